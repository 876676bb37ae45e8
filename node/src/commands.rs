//! What each command does. Results go to standard output, everything for people to standard error.
#![expect(clippy::print_stdout, reason = "commands print their results")]

use std::process::ExitCode;

use anyhow::Context;
use aria_chain::keys::NodeKey;

use crate::{
    cli::{Cli, Command, KeyCommand, LedgerCommand, LogFormat, ModelCommand, NodeCommand},
    client::ClientError,
    config::ConfigFile,
    data_dir::DataDir,
    error::NodeError,
    telemetry,
};

mod bench;
mod consent;
mod devnet;
mod infer;
mod key;
mod ledger;
mod light;
mod look;
mod model;
mod network;
mod node;
mod paid;
mod registry;
mod shown;
mod wallet;

/// No node answers.
pub const EXIT_NOT_RUNNING: u8 = 3;
/// A verification found a fault.
pub const EXIT_VERIFICATION_FAILED: u8 = 4;

/// What every command may need.
struct Setting {
    data_dir: std::path::PathBuf,
    config: ConfigFile,
    json: bool,
}

impl Setting {
    fn existing(&self) -> DataDir {
        DataDir::existing(&self.data_dir)
    }

    /// This machine's key, which is made where there is none: an account needs no node.
    fn own_key(&self) -> anyhow::Result<NodeKey> {
        let dir = DataDir::create(&self.data_dir)?;
        Ok(NodeKey::load_or_create(&dir.key_file())?)
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    match try_run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            match error.downcast_ref::<ClientError>() {
                Some(ClientError::Unreachable { .. }) => ExitCode::from(EXIT_NOT_RUNNING),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn try_run(cli: Cli) -> anyhow::Result<ExitCode> {
    let data_dir = DataDir::locate(cli.data_dir.as_deref())?;
    let config = ConfigFile::load(cli.config.as_deref(), &data_dir)?;
    // One-shot commands speak for themselves; only a running node logs by default.
    let default = if matches!(cli.command, Command::Node(NodeCommand::Start(_))) { "info" } else { "warn" };
    let filter = cli.log.or_else(|| config.log.filter.clone()).unwrap_or_else(|| default.to_owned());
    let format = cli.log_format.or(config.log.format).unwrap_or(LogFormat::Text);
    telemetry::init(&filter, format).map_err(anyhow::Error::msg)?;
    // By the flag: what the environment names is where this user's node lives.
    let is_named = cli.data_dir.is_some_and(|named| std::env::var_os("ARIA_HOME").is_none_or(|home| named != home));
    let setting = Setting { data_dir, config, json: cli.json };
    match cli.command {
        Command::Node(NodeCommand::Start(args)) => block_on(node::start(&setting, &args)),
        Command::Node(NodeCommand::Status) => block_on(node::status(&setting)),
        Command::Node(NodeCommand::Stop) => block_on(node::stop(&setting)),
        Command::Devnet(args) => block_on(devnet::devnet(&setting, &args, is_named)),
        Command::Network(command) => block_on(network::network(&setting, command)),
        Command::Bench(args) => bench::bench(&setting, &args),
        Command::Infer(args) => block_on(infer::infer(&setting, args)),
        Command::Model(ModelCommand::List) => model::list(&setting),
        Command::Model(ModelCommand::Register(args)) => block_on(registry::register(&setting, args)),
        Command::Model(ModelCommand::Confirm(args)) => block_on(registry::confirm(&setting, args)),
        Command::Model(ModelCommand::Registered { rpc }) => block_on(registry::registered(&setting, rpc.as_deref())),
        Command::Ledger(LedgerCommand::Stats) => block_on(ledger::stats(&setting)),
        Command::Ledger(LedgerCommand::Verify(args)) => block_on(ledger::verify(&setting, &args)),
        Command::Ledger(LedgerCommand::Export(args)) => block_on(ledger::export(&setting, &args)),
        Command::Ledger(LedgerCommand::Election) => block_on(look::election(&setting)),
        Command::Ledger(LedgerCommand::Audit { record }) => block_on(look::audit(&setting, record)),
        Command::Ledger(LedgerCommand::Sobriety { node }) => block_on(look::sobriety(&setting, node)),
        Command::Ledger(LedgerCommand::Rewards { node }) => block_on(look::rewards(&setting, node)),
        Command::Ledger(LedgerCommand::Shown(command)) => block_on(shown::shown(&setting, command)),
        Command::Ledger(LedgerCommand::VerifyProof(args)) => light::verify_proof(&setting, &args),
        Command::Wallet(command) => block_on(wallet::wallet(&setting, command)),
        Command::Consent(command) => block_on(consent::consent(&setting, command)),
        Command::Key(KeyCommand::Show) => key::show(&setting),
        Command::Key(KeyCommand::Api) => key::api(&setting),
    }
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime does not start")?;
    let result = runtime.block_on(command);
    // Blocking work that is still under way (a read of standard input, say) does not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Prints a result as one JSON document.
fn print_json(value: &serde_json::Value) {
    println!("{value}");
}

/// Nothing runs in this folder.
fn not_running(data_dir: &std::path::Path) -> anyhow::Error {
    let reason = "none is running in this data directory".to_owned();
    ClientError::Unreachable { address: data_dir.display().to_string(), reason }.into()
}

/// The store of a node that is not running.
fn offline_store(setting: &Setting) -> anyhow::Result<aria_chain::store::SledStore> {
    let path = setting.existing().chain();
    if !path.is_dir() {
        return Err(not_running(&setting.data_dir)).context("there is no chain here yet");
    }
    let options = aria_chain::store::OpenOptions { repair: false, ..Default::default() };
    let (store, _) = aria_chain::store::SledStore::open_existing(&path, options).map_err(NodeError::from)?;
    Ok(store)
}
