//! Configuration: flags over environment over file over defaults. Unknown fields of the file are refused.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use aria_chain::{ids::NodeId, limits::STAGES_MAX, units::NanoAria};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    amount::Amount,
    chain::TrustedBlock,
    cli::{BackendChoice, LogFormat, StartArgs},
    error::NodeError,
    pipeline::{NAMED_MAX, PipelineConfig, Serves},
};

/// Largest configuration file read. A full one is under 2 KiB.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// `config.toml`, every field optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// `[node]`
    #[serde(default)]
    pub node: NodeSection,
    /// `[api]`
    #[serde(default)]
    pub api: ApiSection,
    /// `[log]`
    #[serde(default)]
    pub log: LogSection,
    /// `[consent]`: clauses under the names that `aria consent show --json` has for them.
    #[serde(default)]
    pub consent: Map<String, Value>,
}

/// `[node]`: the flags of `aria node start`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    host: Option<IpAddr>,
    port: Option<u16>,
    #[serde(default)]
    bootstrap: Vec<String>,
    #[serde(default)]
    mdns: bool,
    api_port: Option<u16>,
    rpc_port: Option<u16>,
    dashboard_port: Option<u16>,
    model: Option<String>,
    backend: Option<BackendChoice>,
    threads: Option<usize>,
    kernel: Option<String>,
    genesis: Option<PathBuf>,
    #[serde(default)]
    fast_start: bool,
    trust: Option<String>,
    snapshot_epochs: Option<u64>,
    #[serde(default)]
    no_confirm_models: bool,
    client_fee: Option<String>,
    #[serde(default)]
    stages: Vec<String>,
    pipeline_depth: Option<usize>,
    #[serde(default)]
    serve_stages: Vec<String>,
}

/// `[api]`: who may use the OpenAI door, and how much.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSection {
    /// Origins that browsers may call from; none by default.
    #[serde(default)]
    pub cors_origins: Vec<String>,
    /// Answers in the making at once; more wait.
    pub sessions_max: Option<usize>,
    /// Requests that wait; more are told to come back.
    pub queue_max: Option<usize>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSection {
    /// Filter, as in `--log`.
    pub filter: Option<String>,
    /// Format, as in `--log-format`.
    pub format: Option<LogFormat>,
}

/// What a node runs with, all settled.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Address of the doors.
    pub host: IpAddr,
    /// Peers.
    pub port: u16,
    /// Peers to connect to, `host:port` each.
    pub bootstrap: Vec<String>,
    /// Whether nodes of the local network are looked for.
    pub mdns: bool,
    /// OpenAI API.
    pub api_port: u16,
    /// JSON-RPC.
    pub rpc_port: u16,
    /// Status page.
    pub dashboard_port: u16,
    /// Name or path.
    pub model: String,
    /// What runs it.
    pub backend: BackendChoice,
    /// Threads of a forward pass; none = one per core.
    pub threads: Option<usize>,
    /// Forced instruction set.
    pub kernel: Option<String>,
    /// Genesis file; none = the data directory's own, else a fresh local chain.
    pub genesis: Option<PathBuf>,
    /// Whether a new store begins with a snapshot.
    pub fast_start: bool,
    /// A block that must be of the chain.
    pub trust: Option<TrustedBlock>,
    /// Epochs between snapshots; zero for none.
    pub snapshot_epochs: u64,
    /// Whether this node confirms, as a voter, true proposals of models that it has.
    pub confirms_models: bool,
    /// What this node pays for each answer to its own clients.
    pub client_fee: NanoAria,
    /// Who runs layers of this node's answers, and for whom it runs some.
    pub pipeline: PipelineConfig,
    /// No key needed on a public address.
    pub insecure: bool,
    /// Browser origins.
    pub cors_origins: Vec<String>,
    /// Answers at once.
    pub sessions_max: usize,
    /// Requests waiting.
    pub queue_max: usize,
    /// Clauses of consent in the configuration file.
    pub consent: Map<String, Value>,
    /// Clauses of consent by flag.
    pub terms: Map<String, Value>,
}

impl ConfigFile {
    /// Reads the named file, or `config.toml` of the data directory if there is one.
    pub fn load(named: Option<&Path>, data_dir: &Path) -> Result<ConfigFile, NodeError> {
        let path = named.map_or_else(|| data_dir.join("config.toml"), Path::to_path_buf);
        let fault = |reason: String| NodeError::Config { path: path.clone(), reason };
        match std::fs::metadata(&path) {
            Err(_) if named.is_none() => {
                return Ok(ConfigFile::default());
            }
            Err(error) => return Err(fault(error.to_string())),
            Ok(meta) if meta.len() > CONFIG_BYTES_MAX => {
                return Err(fault(format!("is larger than {CONFIG_BYTES_MAX} bytes")));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
        toml::from_str(&text).map_err(|error| fault(error.to_string()))
    }
}

impl NodeConfig {
    /// Settles flags (which hold the environment's values too) over the file over the defaults.
    pub fn settle(flags: &StartArgs, file: &ConfigFile) -> Result<NodeConfig, NodeError> {
        let threads = flags.threads.or(file.node.threads);
        if threads == Some(0) || threads.is_some_and(|threads| threads > THREADS_MAX) {
            return Err(NodeError::Value { name: "threads", reason: format!("must be 1 to {THREADS_MAX}") });
        }
        let sessions_max = file.api.sessions_max.unwrap_or(8);
        let queue_max = file.api.queue_max.unwrap_or(64);
        if sessions_max == 0 || sessions_max > SESSIONS_MAX {
            return Err(NodeError::Value { name: "api.sessions_max", reason: format!("must be 1 to {SESSIONS_MAX}") });
        }
        Ok(NodeConfig {
            host: flags.host.or(file.node.host).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: flags.port.or(file.node.port).unwrap_or(8765),
            bootstrap: settle_bootstrap(flags, file)?,
            mdns: flags.mdns || file.node.mdns,
            api_port: flags.api_port.or(file.node.api_port).unwrap_or(3000),
            rpc_port: flags.rpc_port.or(file.node.rpc_port).unwrap_or(9944),
            dashboard_port: flags.dashboard_port.or(file.node.dashboard_port).unwrap_or(8080),
            model: flags
                .model
                .clone()
                .or_else(|| file.node.model.clone())
                .unwrap_or_else(|| crate::model::EMBEDDED_NAME.to_owned()),
            backend: flags.backend.or(file.node.backend).unwrap_or(BackendChoice::Auto),
            threads,
            kernel: flags.kernel.clone().or_else(|| file.node.kernel.clone()),
            genesis: flags.genesis.clone().or_else(|| file.node.genesis.clone()),
            fast_start: flags.fast_start || file.node.fast_start,
            trust: flags.trust.map_or_else(|| trusted(file), |trust| Ok(Some(trust)))?,
            snapshot_epochs: flags.snapshot_epochs.or(file.node.snapshot_epochs).unwrap_or(SNAPSHOT_EPOCHS),
            confirms_models: !(flags.no_confirm_models || file.node.no_confirm_models),
            client_fee: client_fee(flags, file)?,
            pipeline: pipeline(flags, file)?,
            insecure: flags.insecure,
            cors_origins: file.api.cors_origins.clone(),
            sessions_max,
            queue_max,
            consent: file.consent.clone(),
            terms: flags.terms.fields(),
        })
    }
}

fn trusted(file: &ConfigFile) -> Result<Option<TrustedBlock>, NodeError> {
    let parsed = file.node.trust.as_ref().map(|text| text.parse()).transpose();
    parsed.map_err(|reason| NodeError::Value { name: "trust", reason })
}

fn client_fee(flags: &StartArgs, file: &ConfigFile) -> Result<NanoAria, NodeError> {
    let named = file.node.client_fee.as_ref().map(|text| text.parse()).transpose();
    let named = named.map_err(|reason| NodeError::Value { name: "client_fee", reason })?;
    Ok(flags.client_fee.or(named).map_or(NanoAria::ZERO, |Amount(fee)| fee))
}

/// Other nodes of pipelines, by flag or else by the file.
fn pipeline(flags: &StartArgs, file: &ConfigFile) -> Result<PipelineConfig, NodeError> {
    let nodes = |name: &'static str, flag: &Vec<String>, file: &Vec<String>| {
        let named = if flag.is_empty() { file } else { flag };
        if named.len() > NAMED_MAX {
            return Err(NodeError::Value { name, reason: format!("must be at most {NAMED_MAX} nodes") });
        }
        let parse = |text: &String| {
            let reason = || format!("`{text}` must be the id of a node, as `aria key show` prints it");
            text.parse::<NodeId>().map_err(|_| NodeError::Value { name, reason: reason() })
        };
        named.iter().map(parse).collect::<Result<Vec<NodeId>, NodeError>>()
    };
    let stages = nodes("stages", &flags.stages, &file.node.stages)?;
    let depth = flags.pipeline_depth.or(file.node.pipeline_depth).unwrap_or(STAGES_MAX - 1);
    if depth == 0 || depth >= STAGES_MAX {
        return Err(NodeError::Value { name: "pipeline_depth", reason: format!("must be 1 to {}", STAGES_MAX - 1) });
    }
    let named = if flags.serve_stages.is_empty() { &file.node.serve_stages } else { &flags.serve_stages };
    let serves = match named.as_slice() {
        [] => Serves::Nobody,
        [one] if one == "all" => Serves::Everybody,
        _ => Serves::Nodes(nodes("serve_stages", named, &Vec::new())?.into_iter().collect()),
    };
    Ok(PipelineConfig { stages, depth, serves })
}

/// Peers by flag, or else by the file. Each is a host and a port.
fn settle_bootstrap(flags: &StartArgs, file: &ConfigFile) -> Result<Vec<String>, NodeError> {
    let named = if flags.bootstrap.is_empty() { &file.node.bootstrap } else { &flags.bootstrap };
    let is_address = |text: &String| {
        text.rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    match named.iter().find(|text| !is_address(text)) {
        Some(text) => Err(NodeError::Value { name: "bootstrap", reason: format!("`{text}` must be host:port") }),
        None if named.len() > BOOTSTRAP_MAX => {
            Err(NodeError::Value { name: "bootstrap", reason: format!("must be at most {BOOTSTRAP_MAX} addresses") })
        }
        None => Ok(named.clone()),
    }
}

/// A snapshot every so many epochs: a thousand blocks, three minutes of a busy chain and half a day of an idle one.
const SNAPSHOT_EPOCHS: u64 = 10;
/// Connections that a node keeps by itself.
const BOOTSTRAP_MAX: usize = 64;
/// More threads than any one machine this runs on has cores.
const THREADS_MAX: usize = 1024;
/// Each session holds a key-value cache.
const SESSIONS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ConfigFile {
        toml::from_str(text).expect("a good file")
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = StartArgs { api_port: Some(1), ..StartArgs::default() };
        let config = NodeConfig::settle(&flags, &file("[node]\napi_port = 2\nrpc_port = 3")).expect("settles");
        assert_eq!((config.api_port, config.rpc_port, config.dashboard_port), (1, 3, 8080));
        assert!(config.host.is_loopback());
    }

    #[test]
    fn unknown_fields_are_refused_by_name() {
        let error = toml::from_str::<ConfigFile>("[node]\napi_prt = 2").expect_err("a typo");
        assert!(error.to_string().contains("api_prt"), "{error}");
    }

    #[test]
    fn models_are_confirmed_unless_flag_or_file_says_no() {
        let confirms = |no_confirm_models: bool, text: &str| {
            let flags = StartArgs { no_confirm_models, ..StartArgs::default() };
            NodeConfig::settle(&flags, &file(text)).expect("settles").confirms_models
        };
        assert!(confirms(false, "") && confirms(false, "[node]\nno_confirm_models = false"));
        assert!(!confirms(true, "") && !confirms(false, "[node]\nno_confirm_models = true"));
    }

    #[test]
    fn what_clients_cost_is_an_amount_by_flag_or_file() {
        let fee = |flag: Option<&str>, text: &str| {
            let client_fee = flag.map(|flag| flag.parse().expect("an amount"));
            NodeConfig::settle(&StartArgs { client_fee, ..StartArgs::default() }, &file(text)).map(|all| all.client_fee)
        };
        assert_eq!(fee(None, "").ok(), Some(NanoAria::ZERO), "nobody's money is spent unasked");
        assert_eq!(fee(None, "[node]\nclient_fee = \"0.005\"").ok(), Some(NanoAria::new(5_000_000)));
        assert_eq!(fee(Some("1"), "[node]\nclient_fee = \"0.005\"").ok(), Some(NanoAria::new(1_000_000_000)));
        assert!(matches!(fee(None, "[node]\nclient_fee = \"much\""), Err(NodeError::Value { name: "client_fee", .. })));
    }

    #[test]
    fn layers_are_run_for_those_who_are_named_and_nobody_else() {
        let settle = |flag: &[&str], text: &str| {
            let serve_stages = flag.iter().map(|text| (*text).to_owned()).collect();
            NodeConfig::settle(&StartArgs { serve_stages, ..StartArgs::default() }, &file(text)).map(|all| all.pipeline)
        };
        let node = NodeId::new([7; 32]);
        let nothing = settle(&[], "").expect("settles");
        assert_eq!((nothing.serves, nothing.stages), (Serves::Nobody, Vec::new()));
        assert_eq!(settle(&["all"], "").expect("settles").serves, Serves::Everybody);
        let named = settle(&[&node.to_string()], "[node]\nserve_stages = [\"all\"]").expect("settles");
        assert_eq!(named.serves, Serves::Nodes([node].into()));
        let stages = settle(&[], &format!("[node]\nstages = [\"{node}\"]\npipeline_depth = 2")).expect("settles");
        assert_eq!((stages.stages, stages.depth), (vec![node], 2));
        for wrong in
            ["stages = [\"x\"]", "serve_stages = [\"all\", \"x\"]", "pipeline_depth = 0", "pipeline_depth = 32"]
        {
            assert!(matches!(settle(&[], &format!("[node]\n{wrong}")), Err(NodeError::Value { .. })), "{wrong}");
        }
    }

    #[test]
    fn zero_threads_are_refused() {
        let flags = StartArgs { threads: Some(0), ..StartArgs::default() };
        assert!(matches!(
            NodeConfig::settle(&flags, &ConfigFile::default()),
            Err(NodeError::Value { name: "threads", .. })
        ));
    }

    #[test]
    fn a_named_file_must_exist() {
        let root = tempfile::tempdir().expect("a folder");
        assert!(ConfigFile::load(None, root.path()).is_ok());
        assert!(matches!(
            ConfigFile::load(Some(&root.path().join("x.toml")), root.path()),
            Err(NodeError::Config { .. })
        ));
    }
}
