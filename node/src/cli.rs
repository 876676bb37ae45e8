//! The command tree. No logic: every command is carried out in `commands/`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use aria_chain::ids::{ModelId, NodeId, RecordId};

use crate::amount::Amount;
use crate::chain::TrustedBlock;

pub mod consent;
mod shown;

pub use consent::{ConsentCommand, StateArgs, TermsArgs};
pub use shown::ShownCommand;

/// Kernel paths by name; which of them this CPU can run is seen when the model is loaded.
const KERNELS: [&str; 5] = ["scalar", "avx2", "avx512-plain", "avx512", "neon"];

/// `aria`: a blockchain client whose mining is AI inference.
#[derive(Debug, Parser)]
#[command(name = "aria", version, about, arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    /// Folder of this node's keys, chain and models [default: ~/.aria]
    #[arg(long, global = true, env = "ARIA_HOME", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Configuration file [default: DATA_DIR/config.toml, if it exists]
    #[arg(long, global = true, env = "ARIA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to log, as in `info` or `aria_node=debug`
    #[arg(long, global = true, env = "ARIA_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look
    #[arg(long, global = true, env = "ARIA_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The groups of commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start, look at and stop the node of a data directory
    #[command(subcommand, arg_required_else_help = true)]
    Node(NodeCommand),
    /// Start a whole local network, one process per node, and watch it
    Devnet(DevnetArgs),
    /// Who this node is connected to
    #[command(subcommand, arg_required_else_help = true)]
    Network(NetworkCommand),
    /// Ask the model a question
    Infer(InferArgs),
    /// Measure how fast this machine runs a model, and how far that is from its limits
    Bench(BenchArgs),
    /// Models that this machine has, and those that the chain knows
    #[command(subcommand, arg_required_else_help = true)]
    Model(ModelCommand),
    /// Read and check the chain
    #[command(subcommand, arg_required_else_help = true)]
    Ledger(LedgerCommand),
    /// What an account has, and orders of it
    #[command(subcommand, arg_required_else_help = true)]
    Wallet(WalletCommand),
    /// What this node lets others do with its machine
    #[command(subcommand, arg_required_else_help = true)]
    Consent(ConsentCommand),
    /// Keys of this node
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyCommand),
}

/// `aria wallet …`. Amounts are in ARIA.
#[derive(Debug, Subcommand)]
pub enum WalletCommand {
    /// Show what an account has
    Balance {
        /// The account [default: this node's]
        account: Option<NodeId>,
        /// JSON-RPC door of the node to ask [default: the one that runs in the data directory]
        #[arg(long, value_name = "URL")]
        rpc: Option<String>,
    },
    /// Give money away
    Send {
        /// Account that gets it
        to: NodeId,
        /// How much, in ARIA
        amount: Amount,
        /// How it is paid for and sent.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Set money aside as security: it backs this node's work with power, and can be slashed
    Bond {
        /// How much, in ARIA
        amount: Amount,
        /// How it is paid for and sent.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Free money that is set aside; it is paid out some blocks later
    Unbond {
        /// How much, in ARIA
        amount: Amount,
        /// How it is paid for and sent.
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Get money to try things with, on a development chain
    Faucet {
        /// How much, in ARIA
        #[arg(default_value = "100")]
        amount: Amount,
        /// Account that gets it [default: this node's]
        #[arg(long, value_name = "ACCOUNT")]
        to: Option<NodeId>,
        /// How it is paid for and sent.
        #[command(flatten)]
        order: OrderArgs,
    },
}

/// Flags of every order.
#[derive(Debug, Clone, Args)]
pub struct OrderArgs {
    /// What to pay for the place in a block, in ARIA; more comes first [default: the least that the chain asks for]
    #[arg(long)]
    pub fee: Option<Amount>,
    /// Do not wait until a block has it
    #[arg(long)]
    pub no_wait: bool,
    /// JSON-RPC door of the node to ask [default: the one that runs in the data directory]
    #[arg(long, value_name = "URL")]
    pub rpc: Option<String>,
}

/// `aria node …`
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Start a node: model, chain and doors in one process
    Start(Box<StartArgs>),
    /// Show what the running node is doing
    Status,
    /// Stop the running node, letting open answers end first
    Stop,
}

/// Flags of `aria node start`. Each may also stand in the environment or in the configuration file.
#[derive(Debug, Default, Clone, Args)]
pub struct StartArgs {
    /// Address that the doors bind; anything but loopback needs an API key
    #[arg(long, env = "ARIA_HOST")]
    pub host: Option<IpAddr>,
    /// Port for peers (0 = any free port) [default: 8765]
    #[arg(long, short, env = "ARIA_PORT")]
    pub port: Option<u16>,
    /// Peers to connect to, host:port, separated by commas
    #[arg(long, env = "ARIA_BOOTSTRAP", value_delimiter = ',', value_name = "HOST:PORT")]
    pub bootstrap: Vec<String>,
    /// Find nodes of the same chain on the local network by multicast DNS, and be found
    #[arg(long, env = "ARIA_MDNS")]
    pub mdns: bool,
    /// Port of the OpenAI API (0 = any free port) [default: 3000]
    #[arg(long, env = "ARIA_API_PORT")]
    pub api_port: Option<u16>,
    /// Port of JSON-RPC, HTTP and WebSocket (0 = any free port) [default: 9944]
    #[arg(long, env = "ARIA_RPC_PORT")]
    pub rpc_port: Option<u16>,
    /// Port of the status page (0 = any free port) [default: 8080]
    #[arg(long, env = "ARIA_DASHBOARD_PORT")]
    pub dashboard_port: Option<u16>,
    /// Model: a name from `aria model list`, or the path of a GGUF file [default: aria-tiny, which is built in]
    #[arg(long, short, env = "ARIA_MODEL")]
    pub model: Option<String>,
    /// What runs the model [default: auto]
    #[arg(long, env = "ARIA_BACKEND")]
    pub backend: Option<BackendChoice>,
    /// Threads of one forward pass [default: one per core]
    #[arg(long, env = "ARIA_THREADS")]
    pub threads: Option<usize>,
    /// Instruction set of the engine [default: the best this CPU has]
    #[arg(long, env = "ARIA_KERNEL", value_parser = KERNELS)]
    pub kernel: Option<String>,
    /// Chain to join: a genesis file [default: a local development chain of this node alone]
    #[arg(long, env = "ARIA_GENESIS", value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Begin with a snapshot of the state that peers offer, without the blocks below; only in a new data directory
    #[arg(long, env = "ARIA_FAST_START")]
    pub fast_start: bool,
    /// A block that is known to be of this chain, from somebody you trust: any other history is refused
    #[arg(long, env = "ARIA_TRUST", value_name = "HEIGHT:HASH")]
    pub trust: Option<TrustedBlock>,
    /// Epochs between two snapshots of the state for others to begin with; 0 = none [default: 10]
    #[arg(long, env = "ARIA_SNAPSHOT_EPOCHS", value_name = "EPOCHS")]
    pub snapshot_epochs: Option<u64>,
    /// Confirm no models that others propose; with `aria model confirm` it can still be done by hand
    #[arg(long, env = "ARIA_NO_CONFIRM_MODELS")]
    pub no_confirm_models: bool,
    /// What this node pays, from its own account, for each answer to its clients; they may ask for less [default: 0]
    #[arg(long, env = "ARIA_CLIENT_FEE", value_name = "ARIA")]
    pub client_fee: Option<Amount>,
    /// Nodes that run layers of answers to this node's clients, separated by commas; they must be peers [default: none]
    #[arg(long, env = "ARIA_STAGES", value_delimiter = ',', value_name = "NODE")]
    pub stages: Vec<String>,
    /// How many of them run one answer together; the others replace who fails [default: all of them]
    #[arg(long, env = "ARIA_PIPELINE_DEPTH", value_name = "NODES")]
    pub pipeline_depth: Option<usize>,
    /// Nodes whose answers this one runs layers of, separated by commas, or `all` [default: none]
    #[arg(long, env = "ARIA_SERVE_STAGES", value_delimiter = ',', value_name = "NODE")]
    pub serve_stages: Vec<String>,
    /// Allow a non-loopback address without an API key
    #[arg(long)]
    pub insecure: bool,
    /// What others may do with this machine.
    #[command(flatten)]
    pub terms: TermsArgs,
}

/// Flags of `aria devnet`.
#[derive(Debug, Clone, Args)]
pub struct DevnetArgs {
    /// Validators of the network
    #[arg(long, default_value_t = 4)]
    pub nodes: u16,
    /// First port; each node takes four: peers, OpenAI API, JSON-RPC, status page
    #[arg(long, default_value_t = 9_700, value_name = "PORT")]
    pub base_port: u16,
    /// Threads of one forward pass, for each node
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Nodes that give each answer together, each with a part of the layers; somebody must be left to check it
    #[arg(long, default_value_t = 1, value_name = "NODES")]
    pub pipeline: u16,
}

/// `aria network …`
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List connected peers
    Peers,
    /// Connect to a node and stay connected until this node stops
    Add {
        /// Where the node listens for peers, HOST:PORT
        address: String,
    },
    /// Stay connected no longer to a node that was added or is a bootstrap address
    Remove {
        /// The address as it was named, HOST:PORT
        address: String,
    },
    /// End the connection to a node and keep it out
    Ban {
        /// Its key, as `aria network peers` shows it
        node_id: String,
        /// For how long; 0 lets it in again
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=525_600))]
        minutes: u64,
        /// Why, for the log
        #[arg(long)]
        reason: Option<String>,
    },
    /// List nodes that are kept out
    Bans,
    /// Ask a node who it is and how far away; no node of your own need run
    Ping {
        /// Where the node listens for peers, HOST:PORT
        address: String,
    },
}

/// `--backend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// The exact engine, if it can run the model
    Auto,
    /// The exact engine
    Builtin,
    /// Made-up answers for tests of other software; marked in every answer and record, earns nothing
    #[value(alias = "sim")]
    #[serde(alias = "sim")]
    Simulation,
}

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Flags of `aria infer`.
#[derive(Debug, Clone, Args)]
pub struct InferArgs {
    /// The question; `-` reads it from standard input
    pub prompt: String,
    /// Model: a name from `aria model list`, or the path of a GGUF file
    #[arg(long, short)]
    pub model: Option<String>,
    /// Longest answer, in tokens
    #[arg(long, short = 't', default_value_t = 256)]
    pub max_tokens: u32,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, default_value_t = 0.7)]
    pub temperature: f32,
    /// Draw only from the likeliest tokens that make up this share
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// The same seed and prompt give the same answer
    #[arg(long)]
    pub seed: Option<u64>,
    /// Instruction that precedes the question
    #[arg(long)]
    pub system: Option<String>,
    /// Nobody is shown the question and its answer, not even auditors; the record earns nothing
    #[arg(long)]
    pub private: bool,
    /// What is paid for the answer: by the running node, at most its --client-fee; with --at by the account of this machine's key
    #[arg(long, value_name = "ARIA")]
    pub pay: Option<Amount>,
    /// Ask a node elsewhere, and sign for it with this machine's key: its OpenAI API, as in http://127.0.0.1:3000/v1; of several,
    /// separated by commas, the one with the best reputation
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub at: Vec<String>,
    /// Where reputations are looked up: JSON-RPC of a node that you trust [default: the one that runs here]
    #[arg(long, value_name = "URL", requires = "at")]
    pub rpc: Option<String>,
    /// Key of that API, where it needs one
    #[arg(long, env = "ARIA_API_KEY", value_name = "KEY", requires = "at", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Threads, when no node is running
    #[arg(long)]
    pub threads: Option<usize>,
    /// Instruction set of the engine, when no node is running
    #[arg(long, env = "ARIA_KERNEL", value_parser = KERNELS)]
    pub kernel: Option<String>,
}

/// Flags of `aria bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Random weights of a published shape, made in memory
    #[arg(long, value_parser = ["tiny", "0.7b", "2b", "8b"], conflicts_with = "model")]
    pub shape: Option<String>,
    /// Model: a name from `aria model list`, or the path of a GGUF file [default: aria-tiny, which is built in]
    #[arg(long, short)]
    pub model: Option<String>,
    /// Threads of one forward pass, several with commas [default: one per core]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Vec<u16>,
    /// Instruction set of the engine [default: the best this CPU has]
    #[arg(long, env = "ARIA_KERNEL", value_parser = KERNELS)]
    pub kernel: Option<String>,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub prompt: u32,
    /// Tokens to generate
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    pub generate: u32,
    /// Requests at the same time, several numbers with commas
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub batch: Vec<u16>,
    /// Prompt lengths in place of --prompt, several with commas
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub context: Vec<u32>,
    /// Repetitions of each measurement; medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub repeat: u16,
    /// The whole set: threads 1 to all, streams 1 to 8, contexts 32 to 1024
    #[arg(long, conflicts_with_all = ["threads", "batch", "context"])]
    pub set: bool,
}

/// `aria model …`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// List the built-in model and those in DATA_DIR/models
    List,
    /// Propose a model to the chain, so that answers of it earn something
    Register(RegisterArgs),
    /// Confirm a proposed model as a voter; a node does this by itself for models that it has
    Confirm(ConfirmArgs),
    /// List the models that the chain knows, and those that are proposed
    Registered {
        /// JSON-RPC door of the node to ask [default: the one that runs in the data directory]
        #[arg(long, value_name = "URL")]
        rpc: Option<String>,
    },
}

/// Flags of `aria model register`.
#[derive(Debug, Clone, Args)]
pub struct RegisterArgs {
    /// Model: a name from `aria model list`, or the path of a GGUF file
    pub model: String,
    /// What the chain is to call it [default: its name here]
    #[arg(long)]
    pub name: Option<String>,
    /// How it is paid for and sent.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Flags of `aria model confirm`.
#[derive(Debug, Clone, Args)]
pub struct ConfirmArgs {
    /// Digest of the model
    pub model: ModelId,
    /// The model's file, or its name from `aria model list` [default: whichever has this digest]
    #[arg(long, value_name = "NAME_OR_PATH")]
    pub file: Option<String>,
    /// Confirm the proposal under this name [default: the first one that is true]
    #[arg(long)]
    pub name: Option<String>,
    /// How it is paid for and sent.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `aria ledger …`
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Height, records, tokens and energy of the chain
    Stats,
    /// Check every hash, signature, root and state of the chain
    Verify(VerifyArgs),
    /// Write blocks as JSON, one a line
    Export(ExportArgs),
    /// Check that a record is final, from a file and without a node
    VerifyProof(VerifyProofArgs),
    /// Who votes with how much power, and who proposes the next blocks
    Election,
    /// Who checked a record, what they said, and how it ended
    Audit {
        /// The record
        record: RecordId,
    },
    /// What the answers of a node took in energy, against the baseline of the chain
    Sobriety {
        /// The node [default: this one]
        node: Option<NodeId>,
    },
    /// What a node's records earned, with the factors of it
    Rewards {
        /// The node [default: this one]
        node: Option<NodeId>,
    },
    /// What is shown as it comes
    #[command(flatten)]
    Shown(ShownCommand),
}

/// Flags of `aria ledger verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// First height
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Last height [default: the tip]
    #[arg(long)]
    pub to: Option<u64>,
}

/// Flags of `aria ledger verify-proof`.
#[derive(Debug, Clone, Args)]
pub struct VerifyProofArgs {
    /// What `chain_getLightProof` answered; `-` reads it from standard input
    pub file: PathBuf,
    /// Chain to trust: a genesis file [default: the one of the data directory]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Trust this validator set in place of the one in the genesis file
    #[arg(long, value_name = "HASH")]
    pub trusted_set: Option<String>,
}

/// Flags of `aria ledger export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// First height
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Last height [default: the tip]
    #[arg(long)]
    pub to: Option<u64>,
    /// File to write [default: standard output]
    #[arg(long, short)]
    pub output: Option<PathBuf>,
}

/// `aria key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show this node's id; makes the key if there is none
    Show,
    /// Make an API key, needed when the node binds more than loopback
    Api,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_seeds_spelling_of_simulation_is_read() {
        let cli = Cli::try_parse_from(["aria", "node", "start", "--backend", "sim"]).expect("parses");
        let Command::Node(NodeCommand::Start(args)) = cli.command else { panic!("node start") };
        assert_eq!(args.backend, Some(BackendChoice::Simulation));
    }
}
