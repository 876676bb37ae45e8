//! A network of processes on this machine, as `aria devnet` starts it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::program;

/// Ends with this.
pub struct Devnet(Child);

impl Devnet {
    /// So many nodes, started with more flags; and what the ready line says of them.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(folder: &Path, nodes: u64, flags: &[&str]) -> (Devnet, Value) {
        let mut command = Command::new(program());
        command.arg("--data-dir").arg(folder).args(["--json", "devnet", "--base-port", "23700"]);
        command.args(["--nodes", &nodes.to_string()]).args(flags).stdout(Stdio::piped());
        let mut child = command.spawn().expect("aria starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        (Devnet(child), serde_json::from_str(&line).expect("a ready line"))
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        let stopped = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()), "the network is told to stop");
        self.0.wait().expect("the child is ours");
    }
}
