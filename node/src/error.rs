//! What can go wrong in a node, each with what to do about it.

use std::{io, net::SocketAddr, path::PathBuf};

use aria_chain::{ids::BlockHash, units::Height};

/// Errors of the node. The binary prints them as they are.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Neither flag, environment nor home folder names a place.
    #[error("no home folder is known: name a data directory with --data-dir or ARIA_HOME")]
    NoHome,
    /// The data directory or a file in it cannot be used.
    #[error("{}: {cause}{}", path.display(), remedy(cause))]
    DataDir {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// `config.toml`.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that is out of range.
    #[error("{name} {reason}")]
    Value {
        /// Flag or field.
        name: &'static str,
        /// What it must be.
        reason: String,
    },
    /// A port is taken or may not be bound.
    #[error("{door} cannot listen on {address}: {cause}; {}", bind_remedy(cause, flag))]
    Bind {
        /// Which door.
        door: &'static str,
        /// Its flag.
        flag: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// Open to the network without a key.
    #[error(
        "{host} can be reached by others and there is no API key: make one with `aria key api`, or say --insecure if that is meant"
    )]
    Exposed {
        /// The address asked for.
        host: std::net::IpAddr,
    },
    /// Peers.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// A model cannot be found.
    #[error("there is no model `{name}`: `aria model list` shows those at hand, and a path to a GGUF file works too")]
    NoModel {
        /// What was asked for.
        name: String,
    },
    /// A model cannot be run.
    #[error("model `{name}` cannot be run: {reason}")]
    Model {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// A model that takes more memory than the consent contract allows.
    #[error(
        "the model takes {needed_mb} MB with one session, and this node's consent allows {max_mb} MB (clause ram): serve a smaller model with --model, or allow more with --ram or `aria consent set --ram`"
    )]
    DoesNotFit {
        /// What it takes.
        needed_mb: u32,
        /// What is allowed.
        max_mb: u32,
    },
    /// A second model that takes more memory than the machine can spare.
    #[error(
        "the model takes {needed_mb} MB with one session, more than half of the {free_mb} MB that this machine has free: take it out of the models folder, or free some memory"
    )]
    NoMemory {
        /// What it takes.
        needed_mb: u32,
        /// What is free.
        free_mb: u32,
    },
    /// A consent contract that cannot be.
    #[error(transparent)]
    Consent(#[from] aria_chain::consent::ConsentError),
    /// The genesis file.
    #[error("genesis {}: {reason}", path.display())]
    Genesis {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Keys.
    #[error(transparent)]
    Key(#[from] aria_chain::keys::KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] aria_chain::store::StoreError),
    /// The state transition refused a block of ours.
    #[error("block production stopped: {0}")]
    Execution(String),
    /// The peers have another chain than the user trusts.
    #[error(
        "block {height} is {got} and not {expected}, which --trust names: this is another history; name other --bootstrap peers, or another data folder"
    )]
    NotTrusted {
        /// Its height.
        height: Height,
        /// Its hash.
        got: BlockHash,
        /// As trusted.
        expected: BlockHash,
    },
    /// What consensus must not forget cannot be written.
    #[error("consensus stopped: {reason}; free some space or repair the disk, and start again")]
    NotWritten {
        /// The file and what the system said.
        reason: String,
    },
    /// The mempool does not take a proof.
    #[error("the answer's record cannot wait for a block: {0}")]
    Mempool(String),
    /// A task of ours broke an invariant.
    #[error("{task} ended unexpectedly: {reason}")]
    Task {
        /// Which.
        task: &'static str,
        /// How.
        reason: String,
    },
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; the folder must be writable by this user: choose another with --data-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or choose another disk with --data-dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; a folder is needed here: choose another with --data-dir"
        }
        _ => "",
    }
}

fn bind_remedy(cause: &io::Error, flag: &str) -> String {
    match cause.kind() {
        io::ErrorKind::AddrInUse => {
            format!("another program has this port: choose another with {flag} (0 = any free port)")
        }
        io::ErrorKind::PermissionDenied => format!("ports below 1024 need privileges: choose another with {flag}"),
        _ => format!("choose another address with --host or port with {flag}"),
    }
}
