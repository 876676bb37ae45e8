//! A node as a process.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::http::{self, Answer};

/// Longest wait for anything a node does in a test. Generous: machines that build software are slow at times.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// The `aria` program, beside these tests in the build folder. `cargo test --workspace` builds it with them, because the
/// node's own package has a test that needs it; after a change, run the tests so, or build the program first.
///
/// # Panics
/// If it is not there.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test.ancestors().nth(2).expect("tests lie two folders down in the build folder");
        let binary = folder.join("aria");
        assert!(binary.is_file(), "{} is not built: run `cargo test --workspace`", binary.display());
        binary
    })
}

/// Runs `aria` to its end, away from this machine's own configuration.
///
/// # Panics
/// If it cannot be started.
pub fn aria(data_dir: &Path, arguments: &[&str]) -> Output {
    command(data_dir).args(arguments).output().expect("aria runs")
}

/// What a command prints as JSON.
///
/// # Panics
/// If it fails, or prints something else.
pub fn told(data_dir: &Path, arguments: &[&str]) -> Value {
    let output = aria(data_dir, &[&["--json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {error}"))
}

/// What a command that fails says.
///
/// # Panics
/// If it succeeds.
pub fn refused(data_dir: &Path, arguments: &[&str]) -> String {
    let output = aria(data_dir, arguments);
    assert!(!output.status.success(), "{arguments:?} succeeded");
    String::from_utf8(output.stderr).expect("what is said is text")
}

/// What starts a node on free ports.
pub const START: [&str; 10] =
    ["node", "start", "--port", "0", "--api-port", "0", "--rpc-port", "0", "--dashboard-port", "0"];

pub(crate) fn command(data_dir: &Path) -> Command {
    command_with_log(data_dir, "error")
}

pub(crate) fn command_with_log(data_dir: &Path, filter: &str) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ARIA_") {
            command.env_remove(name);
        }
    }
    command.arg("--data-dir").arg(data_dir).args(["--log", filter]);
    command
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    /// What it said when it was ready.
    pub ready: Value,
    /// Its folder.
    pub data_dir: PathBuf,
}

impl Node {
    /// Starts a node on free ports and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(data_dir: &Path) -> Node {
        Node::start_with(data_dir, &[])
    }

    /// The same, with more flags.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Node {
        Node::spawn(command(data_dir), data_dir, flags)
    }

    /// Starts a node that writes everything it has to log into a file, down to the smallest detail.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_logging(data_dir: &Path, log: &Path) -> Node {
        let mut command = command_with_log(data_dir, "trace");
        command.stderr(std::fs::File::create(log).expect("the log can be written"));
        Node::spawn(command, data_dir, &[])
    }

    /// Starts a node none of whose files can grow beyond so many bytes: what it meets then is what a full disk does.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_on_a_small_disk(data_dir: &Path, file_bytes_max: u64) -> Node {
        // A shell counts in blocks of 512 bytes; the signal that the system sends beside the error is ignored, as a full disk sends none.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", file_bytes_max / 512);
        let inner = command(data_dir);
        let mut outer = Command::new("sh");
        outer.args(["-c", &script]).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        Node::spawn(outer, data_dir, &[])
    }

    fn spawn(mut command: Command, data_dir: &Path, flags: &[&str]) -> Node {
        command.arg("--json").args(START);
        let mut child = command.args(flags).stdout(Stdio::piped()).spawn().expect("aria starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("standard output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the ready line is read");
        let Ok(ready) = serde_json::from_str(&line) else {
            let status = child.wait();
            panic!("no ready line but {line:?}; the node ended with {status:?}");
        };
        Node { child, ready, data_dir: data_dir.to_path_buf() }
    }

    /// `host:port` of a door named as in the ready line.
    ///
    /// # Panics
    /// If there is no such door.
    pub fn address(&self, door: &str) -> &str {
        let url = self.ready[door].as_str().unwrap_or_else(|| panic!("no door {door} in {}", self.ready));
        let rest = url.strip_prefix("http://").expect("doors speak HTTP");
        rest.split('/').next().expect("split gives at least one piece")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Posts to the OpenAI door.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        http::post(self.address("api"), path, body)
    }

    /// Asks a question, greedily, and returns the whole answer object.
    ///
    /// # Panics
    /// If the node refuses.
    pub fn ask(&self, question: &str) -> Value {
        let body = json!({"model": self.ready["model"], "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 48});
        let answer = self.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// Calls JSON-RPC and returns the whole answer object.
    pub fn call(&self, method: &str, params: Value) -> Value {
        http::post(self.address("rpc"), "/", &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))
            .json()
    }

    /// Calls JSON-RPC and returns its result.
    ///
    /// # Panics
    /// If the node answers with an error.
    pub fn result(&self, method: &str, params: Value) -> Value {
        let mut answer = self.call(method, params);
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Waits until a record is in a block and returns it.
    ///
    /// # Panics
    /// If that takes longer than [`PATIENCE`].
    pub fn sealed(&self, record_id: &str) -> Value {
        let start = Instant::now();
        loop {
            let record = self.result("chain_getRecord", json!([record_id]));
            if !record.is_null() {
                return record;
            }
            assert!(start.elapsed() < PATIENCE, "record {record_id} was not sealed");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the process to end by itself.
    ///
    /// # Panics
    /// If it does not in time.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the node did not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the process as kill -9 does.
    ///
    /// # Panics
    /// If it is not our child any more.
    pub fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child is ours");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn terminate(mut self) -> (std::process::ExitStatus, Duration) {
        let start = Instant::now();
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        (self.wait(), start.elapsed())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Already gone when the test killed or stopped it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
