//! Flags of a consent contract, and of the commands about it.

use aria_chain::ids::NodeId;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::OrderArgs;

/// `aria consent …`
#[derive(Debug, Subcommand)]
pub enum ConsentCommand {
    /// Show what a node lets others do with its machine
    Show {
        /// The node, as it is registered on chain [default: this one, as it is in force]
        node: Option<NodeId>,
        /// JSON-RPC door of the node to ask [default: the one that runs in the data directory]
        #[arg(long, value_name = "URL")]
        rpc: Option<String>,
    },
    /// Change what is named and keep the rest; a running node keeps to it at once
    Set {
        /// What to change.
        #[command(flatten)]
        terms: TermsArgs,
        /// How it is registered.
        #[command(flatten)]
        register: StateArgs,
    },
    /// Take the consent back: nothing is answered any more until another one is set
    Revoke {
        /// How it is registered.
        #[command(flatten)]
        register: StateArgs,
    },
}

/// Whether and how a contract goes on chain.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// Keep it to this node; do not register it on chain
    #[arg(long)]
    pub no_register: bool,
    /// How it is paid for and sent.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Clauses of a contract; in brackets what each one is where a contract is stated first. Each may also stand under `[consent]` of the configuration file.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Consent")]
pub struct TermsArgs {
    /// Share of the machine's processors, 1 to 100 [first: 25]
    #[arg(long, value_name = "PERCENT")]
    pub cpu: Option<String>,
    /// Memory of the model and its answers, in MB [first: 512]
    #[arg(long, value_name = "MB")]
    pub ram: Option<String>,
    /// To and from all peers together, in megabits a second [first: 10]
    #[arg(long, value_name = "MBPS")]
    pub bandwidth: Option<String>,
    /// When to serve, in UTC; over midnight it belongs to the day on which it begins [first: 00:00-23:59]
    #[arg(long, value_name = "HH:MM-HH:MM")]
    pub schedule: Option<String>,
    /// On which days, as in mon,wed or mon-fri [first: all]
    #[arg(long)]
    pub days: Option<String>,
    /// For which tasks: text_gen, code_gen, summarization, translation, embedding, any [first: any]
    #[arg(long)]
    pub tasks: Option<String>,
    /// Answers in the making at once [first: 2]
    #[arg(long, value_name = "ANSWERS")]
    pub concurrent: Option<String>,
    /// What an answer must be able to earn, in ARIA [first: 0]
    #[arg(long, value_name = "ARIA")]
    pub min_reward: Option<String>,
    /// Whether texts may be logged; this program never does [first: true]
    #[arg(long, value_name = "BOOL")]
    pub logging: Option<bool>,
    /// Whether the node may tell where it is, as --mdns does [first: false]
    #[arg(long, value_name = "BOOL")]
    pub geo: Option<bool>,
}

impl TermsArgs {
    /// What is named, under the names that the contract has for it.
    pub fn fields(&self) -> Map<String, Value> {
        let texts = [
            ("cpu_percent", &self.cpu),
            ("max_ram_mb", &self.ram),
            ("max_bandwidth_mbps", &self.bandwidth),
            ("schedule", &self.schedule),
            ("days", &self.days),
            ("task_types", &self.tasks),
            ("max_concurrent_tasks", &self.concurrent),
            ("min_reward_per_inference", &self.min_reward),
        ];
        let truths = [("allow_logging", self.logging), ("allow_geo_tracking", self.geo)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_ref()?))));
        let truths = truths.into_iter().filter_map(|(name, truth)| Some((name.to_owned(), json!(truth?))));
        texts.chain(truths).collect()
    }
}
