//! `aria ledger …`: what the chain tells about one thing each.

use aria_chain::ids::{NodeId, RecordId, TransactionId};
use clap::Subcommand;

/// Views of the chain that are shown as they come.
#[derive(Debug, Clone, Subcommand)]
pub enum ShownCommand {
    /// How a node's checked records and verdicts have ended
    Reputation {
        /// The node [default: this one]
        node: Option<NodeId>,
    },
    /// A node's verified work in the last epochs, beside that of all
    Work {
        /// The node [default: this one]
        node: Option<NodeId>,
        /// How many epochs
        #[arg(long, default_value_t = 10)]
        epochs: u64,
    },
    /// What all nodes did in the last epochs
    Epochs {
        /// How many epochs
        #[arg(long, default_value_t = 10)]
        epochs: u64,
    },
    /// What money exists, and how it came about
    Supply,
    /// The parameters of the chain
    Params,
    /// Accounts, in order of their ids
    Accounts {
        /// How many
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
    /// A transaction and its receipt
    Transaction {
        /// Its id
        id: TransactionId,
    },
    /// A record's request, claims and signatures
    Proof {
        /// The record
        record: RecordId,
    },
    /// What waits for a block
    Waiting {
        /// How many
        #[arg(long, default_value_t = 100)]
        limit: u64,
    },
}
