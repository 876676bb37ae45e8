//! The node's folder: what lies where, and who may read it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// A data directory that exists, readable by its owner alone.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// The folder named by flag or environment, else `~/.aria`.
    pub fn locate(named: Option<&Path>) -> Result<PathBuf, NodeError> {
        if let Some(path) = named {
            return Ok(path.to_path_buf());
        }
        let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).ok_or(NodeError::NoHome)?;
        Ok(home.join(".aria"))
    }

    /// Opens the folder, making it (mode 0700) if it does not exist.
    pub fn create(path: &Path) -> Result<DataDir, NodeError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|cause| NodeError::DataDir { path: path.to_path_buf(), cause })?;
        // A folder that cannot be written is found here, before a port is bound or a key is made.
        let probe = path.join(format!(".probe-{}", std::process::id()));
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&probe);
        written.and_then(|mut file| file.write_all(b"aria")).and_then(|()| fs::remove_file(&probe)).map_err(
            |cause| {
                // The first fault is what counts; a probe that cannot be removed either is harmless.
                let _ = fs::remove_file(&probe);
                NodeError::DataDir { path: path.to_path_buf(), cause }
            },
        )?;
        Ok(DataDir(path.to_path_buf()))
    }

    /// The folder as it is, for commands that only read.
    pub fn existing(path: &Path) -> DataDir {
        DataDir(path.to_path_buf())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Key of this node.
    pub fn key_file(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// API keys, one a line.
    pub fn api_keys_file(&self) -> PathBuf {
        self.0.join("api.keys")
    }

    /// The API keys of this node; none if no file.
    pub fn api_keys(&self) -> Result<Vec<String>, NodeError> {
        let path = self.api_keys_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(cause) => Err(NodeError::DataDir { path, cause }),
        }
    }

    /// The chain this folder follows, with the local key filled in.
    pub fn genesis_file(&self) -> PathBuf {
        self.0.join("genesis.toml")
    }

    /// The store.
    pub fn chain(&self) -> PathBuf {
        self.0.join("chain")
    }

    /// Snapshots of the state, for others.
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// What auditors may ask for.
    pub fn payloads(&self) -> PathBuf {
        self.0.join("payloads")
    }

    /// What consensus must not forget of the height it works on.
    pub fn consensus(&self) -> Result<PathBuf, NodeError> {
        let path = self.0.join("wal");
        fs::create_dir_all(&path).map_err(|cause| NodeError::DataDir { path: path.clone(), cause })?;
        Ok(path)
    }

    /// Models, one folder or file each.
    pub fn models(&self) -> PathBuf {
        self.0.join("models")
    }

    /// The private door, a unix socket (mode 0600).
    pub fn admin_socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }

    fn running_file(&self) -> PathBuf {
        self.0.join("node.json")
    }

    /// Says that a node runs here.
    pub fn announce(&self, running: &RunningNode) -> Result<(), NodeError> {
        let text = serde_json::to_string_pretty(running).expect("a struct of strings and numbers serialises");
        self.write_private(&self.running_file(), text.as_bytes())
    }

    /// Takes the announcement back.
    pub fn withdraw(&self) {
        for path in [self.running_file(), self.admin_socket()] {
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "could not be removed"),
            }
        }
    }

    /// The node that runs here, if one announced itself and its process still lives.
    pub fn running(&self) -> Option<RunningNode> {
        let text = fs::read_to_string(self.running_file()).ok()?;
        let running: RunningNode = serde_json::from_str(&text).ok()?;
        Path::new(&format!("/proc/{}", running.pid)).exists().then_some(running)
    }

    /// Writes a file that only its owner may read, in one step: a crash leaves the old file or the new one.
    pub fn write_private(&self, path: &Path, bytes: &[u8]) -> Result<(), NodeError> {
        let fault = |cause| NodeError::DataDir { path: path.to_path_buf(), cause };
        let fresh = path.with_extension(format!("new-{}", std::process::id()));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(fault)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fault)?;
        fs::rename(&fresh, path).map_err(fault)?;
        fs::File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(fault)
    }
}

/// What a running node says of itself in `node.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningNode {
    /// Process id.
    pub pid: u32,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// Public key, hex.
    pub node_id: String,
    /// Chain it follows.
    pub chain_id: String,
    /// Model it serves.
    pub model: String,
    /// OpenAI API, up to and with `/v1`.
    pub api: String,
    /// JSON-RPC over HTTP; the same address speaks WebSocket.
    pub rpc: String,
    /// Where peers connect, host:port.
    #[serde(default)]
    pub p2p: String,
    /// Status page.
    pub dashboard: String,
    /// Version of the program.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn example(pid: u32) -> RunningNode {
        RunningNode {
            pid,
            data_dir: PathBuf::from("/x"),
            node_id: "00".into(),
            chain_id: "c".into(),
            model: "m".into(),
            api: "a".into(),
            rpc: "r".into(),
            p2p: "p".into(),
            dashboard: "d".into(),
            version: "v".into(),
        }
    }

    #[test]
    fn only_the_owner_reads() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = DataDir::create(&root.path().join("node")).expect("made");
        dir.announce(&example(std::process::id())).expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.running_file()), 0o600);
    }

    #[test]
    fn a_dead_node_does_not_run() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = DataDir::create(root.path()).expect("made");
        assert!(dir.running().is_none());
        dir.announce(&example(std::process::id())).expect("written");
        assert_eq!(dir.running().map(|running| running.pid), Some(std::process::id()));
        // The largest pid that Linux gives out is below 2^22.
        dir.announce(&example(u32::MAX)).expect("written");
        assert!(dir.running().is_none());
        dir.withdraw();
        assert!(!dir.running_file().exists());
    }
}
