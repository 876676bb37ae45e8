//! `aria ledger`: the chain, through the running node or from the store at rest.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    process::ExitCode,
};

use anyhow::Context;
use aria_chain::{
    store::{Store, StoredBlock},
    units::Height,
};
use aria_rpc::{chain::views, services::VerifyView};
use aria_runtime::{genesis::Genesis, verify::verify_chain};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{EXIT_VERIFICATION_FAILED, Setting, offline_store, print_json};
use crate::{
    cli::{ExportArgs, VerifyArgs},
    client::rpc,
    services::verify_view,
};

/// Totals over a chain.
#[derive(Default)]
struct Totals {
    records: u64,
    tokens: u64,
    energy_mj: f64,
}

impl Totals {
    fn add(&mut self, block: &Value) {
        for record in block["records"].as_array().into_iter().flatten() {
            self.records += 1;
            self.tokens += record["tokens_generated"].as_u64().unwrap_or_default();
            self.energy_mj += record["energy_mj"].as_f64().unwrap_or_default();
        }
    }
}

pub(super) async fn stats(setting: &Setting) -> anyhow::Result<ExitCode> {
    let source = Source::open(setting)?;
    let status = source.status().await?;
    let mut totals = Totals::default();
    // A node that began with a snapshot has no records below.
    let base = status["base_height"].as_u64().unwrap_or_default();
    for height in base..=status["height"].as_u64().unwrap_or_default() {
        totals.add(&source.block(height).await?);
    }
    let per_token = if totals.tokens == 0 { Value::Null } else { json!(totals.energy_mj / totals.tokens as f64) };
    let view = json!({
        "chain_id": status["chain_id"],
        "height": status["height"],
        "base_height": base,
        "hash": status["hash"],
        "records": totals.records,
        "tokens_generated": totals.tokens,
        "energy_mj": totals.energy_mj,
        "energy_mj_per_token": per_token,
    });
    if setting.json {
        print_json(&view);
    } else {
        for (name, value) in view.as_object().into_iter().flatten() {
            println!("{name:<20} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn verify(setting: &Setting, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let report = match setting.existing().running() {
        Some(node) => {
            eprintln!("asking the running node …");
            rpc(&node.rpc, "chain_verify", json!({"from": args.from, "to": args.to})).await?
        }
        None => match verify_offline(setting, args) {
            Ok(report) => json!(report),
            // A store that does not open is a verification that failed, and the error says at which height.
            Err(error) if error.downcast_ref::<crate::error::NodeError>().is_some() => {
                json!({"ok": false, "fault": {"message": format!("{error:#}")}})
            }
            Err(error) => return Err(error),
        },
    };
    let ok = report["ok"] == true;
    if setting.json {
        print_json(&report);
    } else if ok {
        println!(
            "sound: {} blocks and {} records, heights {} to {}",
            report["blocks"], report["records"], report["from"], report["to"]
        );
    } else {
        let fault = &report["fault"];
        println!("NOT sound: height {}: {}", fault["height"], fault["message"].as_str().unwrap_or("stopped"));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(EXIT_VERIFICATION_FAILED) })
}

fn verify_offline(setting: &Setting, args: &VerifyArgs) -> anyhow::Result<VerifyView> {
    let genesis = setting.existing().genesis_file();
    let text = std::fs::read_to_string(&genesis).with_context(|| format!("{} cannot be read", genesis.display()))?;
    let genesis = Genesis::from_toml(&text, None)?;
    let store = offline_store(setting)?;
    let tip = store.tip().map_err(crate::error::NodeError::from)?;
    let to = args.to.map_or(tip.height, Height::new);
    let bar = ProgressBar::new(to.get().min(tip.height.get()) + 1).with_style(style());
    let report = verify_chain(&store, &genesis, Height::new(args.from), to, &mut |height| {
        bar.set_position(height.get() + 1);
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    Ok(verify_view(&report))
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{bar:30} block {pos} of {len}, {eta} left").expect("the template is a good one")
}

pub(super) async fn export(setting: &Setting, args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let source = Source::open(setting)?;
    let status = source.status().await?;
    let height = |name: &str| status[name].as_u64().unwrap_or_default();
    let (tip, base) = (height("height"), height("base_height"));
    if args.from < base {
        anyhow::bail!(
            "this node began with a snapshot and has no blocks below {base}: add --from {base}, or ask another node"
        );
    }
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(BufWriter::new(
            File::create(path).with_context(|| format!("{} cannot be written", path.display()))?,
        )),
        None => Box::new(io::stdout().lock()),
    };
    for height in args.from..=args.to.unwrap_or(tip).min(tip) {
        match writeln!(out, "{}", source.block(height).await?) {
            // Whoever reads our lines has enough of them.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
            written => written.context("the export cannot be written")?,
        }
    }
    out.flush().context("the export cannot be written")?;
    Ok(ExitCode::SUCCESS)
}

/// Where blocks come from.
enum Source {
    Running(String),
    Resting(Box<dyn Store>),
}

impl Source {
    fn open(setting: &Setting) -> anyhow::Result<Source> {
        Ok(match setting.existing().running() {
            Some(node) => Source::Running(node.rpc),
            None => Source::Resting(Box::new(offline_store(setting)?)),
        })
    }

    async fn status(&self) -> anyhow::Result<Value> {
        match self {
            Source::Running(url) => Ok(rpc(url, "chain_status", json!([])).await?),
            Source::Resting(store) => {
                let tip = store.tip()?;
                let (chain_id, base) = (&store.chain().chain_id, store.base());
                Ok(json!({"chain_id": chain_id, "height": tip.height, "base_height": base, "hash": tip.hash}))
            }
        }
    }

    /// The block at a height with records and proofs, as `chain_getBlock` shows it at verbosity 2.
    async fn block(&self, height: u64) -> anyhow::Result<Value> {
        match self {
            Source::Running(url) => Ok(rpc(url, "chain_getBlock", json!([height, 2])).await?),
            Source::Resting(store) => {
                let block = store.block(Height::new(height))?.with_context(|| format!("block {height} is missing"))?;
                Ok(full_view(&**store, &block)?)
            }
        }
    }
}

fn full_view(store: &dyn Store, block: &StoredBlock) -> Result<Value, aria_chain::store::StoreError> {
    let mut records = Vec::new();
    for proof in &block.body.proofs {
        let entry = store.record(&proof.record.id())?;
        records.push(entry.map_or(Value::Null, |entry| views::record(&entry, None)));
    }
    let mut view = views::block(block, records);
    view["certificate"] = block.certificate.as_ref().map_or(Value::Null, views::certificate);
    view["proofs"] = block.body.proofs.iter().map(views::useful_work_proof).collect();
    Ok(view)
}
