//! How a node starts and stops.
//!
//! Starting: folder, key, genesis, store (one process per folder is found out here), doors, then the model, which may take
//! long; until it is loaded `/health` says 503 with the reason. Stopping goes the other way: doors first, the store last.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use aria_chain::{
    keys::NodeKey,
    store::{OpenOptions, SledStore, Store},
};
use aria_inference::{engine::EngineOptions, kernels::KernelKind};
use aria_rpc::{
    admin,
    auth::Gate,
    dashboard, openai,
    server::{self, Listener},
    services::Services,
};
use aria_runtime::genesis::Genesis;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use crate::{
    amount::Amount,
    audit::{delivery, duty, models::Models, payload::Payloads},
    book,
    chain::Chain,
    clock::{Clock, SystemClock},
    config::NodeConfig,
    consensus,
    consent::{self, Governor, KV_BYTES_MAX, place},
    data_dir::{DataDir, RunningNode},
    error::NodeError,
    exchange,
    model::{self, Located},
    network::{Identity, Kept, Legacy, Network, NetworkConfig},
    pipeline::Pipeline,
    registrar::{self, files::Files},
    services::{NodeServices, Served, legacy::LegacyDoor},
    snapshot::{
        fetch::{self, Begin},
        take::Snapshots,
    },
    sobriety,
    supervisor::{Ended, Stage, Supervisor},
};

/// The development chain: `genesis/devnet.toml`.
pub(crate) const DEVNET: &str = include_str!("../../genesis/devnet.toml");

/// Connections of one door.
const CONNECTIONS_MAX: usize = 512;

/// How long a new node looks for a snapshot.
const FAST_START_MAX: Duration = Duration::from_secs(15);

/// A node that runs.
pub struct Node {
    dir: DataDir,
    supervisor: Supervisor,
    stop: CancellationToken,
    served: Arc<OnceLock<Served>>,
    governor: Arc<Governor>,
    /// What it tells about itself.
    pub running: RunningNode,
}

impl Node {
    /// Starts everything; returns when prompts are answered. `stop` ends it, also while it starts.
    pub async fn start(config: &NodeConfig, data_dir: &Path, stop: CancellationToken) -> Result<Node, NodeError> {
        let dir = DataDir::create(data_dir)?;
        let keys = dir.api_keys()?;
        if !config.host.is_loopback() && keys.is_empty() && !config.insecure {
            return Err(NodeError::Exposed { host: config.host });
        }
        let governor = Governor::open(&dir, config)?;
        let located = model::locate(&config.model, &dir.models())?;
        let kernel = kernel_of(config.kernel.as_deref())?;
        let metrics = install_metrics();
        let key = Arc::new(NodeKey::load_or_create(&dir.key_file())?);
        let genesis = settle_genesis(config, &dir, &key)?;
        if config.fast_start {
            fast_start(config, &dir, &key, &genesis, &stop).await?;
        }
        let fee_max = genesis.params().request_fee_max();
        if config.client_fee > fee_max {
            let reason = format!("must be at most {}, the most that a request may pay on this chain", Amount(fee_max));
            return Err(NodeError::Value { name: "client_fee", reason });
        }
        let chain = Arc::new(open_chain(config, &dir, key, genesis)?);

        let supervisor = Supervisor::default();
        let served: Arc<OnceLock<Served>> = Arc::default();
        let spawner = supervisor.spawner(Stage::Engine);
        let joined = (Arc::clone(&served), Arc::clone(&governor));
        let pipeline =
            Arc::new(Pipeline::new(Arc::clone(&chain), joined, (config.pipeline.clone(), config.sessions_max)));
        let services = NodeServices::new(
            (Arc::clone(&chain), Arc::clone(&pipeline)),
            (Arc::clone(&served), Arc::clone(&governor)),
            spawner,
            stop.clone(),
            metrics,
            config,
        );
        let services: Arc<dyn Services> = Arc::new(services);
        let doors = open_doors(config, &dir, keys, &supervisor, &services).await?;
        let following = consent::file::keep_up(Arc::clone(&governor), dir.clone(), stop.clone());
        supervisor.spawner(Stage::Doors).spawn(following);
        let wal = dir.consensus()?;
        let (tell, told) = mpsc::channel(consensus::run::TOLD_MAX);
        let peers_address = doors.peers_address;
        let legacy = LegacyDoor::new(services, Arc::clone(&chain.clock));
        let spawner = supervisor.spawner(Stage::Consensus);
        spawner.spawn(Arc::clone(&pipeline).keep_company(spawner.stop().clone()));
        start_peers((config, &governor), (&chain, pipeline), &supervisor, (doors.peers, peers_address), legacy, tell);
        let block_maker = Arc::clone(&chain);
        let files = Arc::new(Mutex::new(Files::new(dir.models())));
        let stopping = supervisor.spawner(Stage::Consensus).stop().clone();
        let at_hand = (Arc::clone(&served), Arc::clone(&files));
        let (models, second) = Models::new(at_hand, Arc::clone(&governor), kernel, stopping);
        supervisor.critical(Stage::Consensus, "second model", |_| second.run());
        let auditor = Arc::clone(&chain);
        supervisor.critical(Stage::Consensus, "audits", |stop| duty::run(auditor, models, stop));
        let provider = Arc::clone(&chain);
        supervisor.critical(Stage::Consensus, "deliveries", |stop| delivery::run(provider, stop));
        let teller = Arc::clone(&chain);
        supervisor.critical(Stage::Consensus, "sobriety", |stop| sobriety::run(teller, stop));
        if config.confirms_models {
            let (voter, model) = (Arc::clone(&chain), Arc::clone(&served));
            supervisor.critical(Stage::Consensus, "models", |stop| registrar::run(voter, model, files, stop));
        }
        supervisor.critical(Stage::Consensus, "consensus", |stop| consensus::run::run(block_maker, wal, told, stop));

        let running = RunningNode {
            pid: std::process::id(),
            data_dir: std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_path_buf()),
            node_id: chain.key.node_id().to_string(),
            chain_id: chain.genesis.chain_id().to_string(),
            model: located.name.clone(),
            api: format!("http://{}/v1", doors.api),
            rpc: format!("http://{}", doors.rpc),
            p2p: peers_address.to_string(),
            dashboard: format!("http://{}", doors.dashboard),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let node = Node { dir, supervisor, stop, served, governor, running };
        match node.load(located, config, kernel, &*chain.clock).await {
            Ok(()) => {}
            Err(error) => {
                node.shut_down().await;
                return Err(error);
            }
        }
        node.dir.announce(&node.running)?;
        Ok(node)
    }

    async fn load(
        &self,
        located: Located,
        config: &NodeConfig,
        kernel: Option<KernelKind>,
        clock: &dyn Clock,
    ) -> Result<(), NodeError> {
        let options = EngineOptions {
            threads: self.governor.threads(),
            kernel,
            queue_max: config.queue_max,
            sessions_max: config.sessions_max,
            kv_bytes_max: KV_BYTES_MAX,
            ..EngineOptions::default()
        };
        let (choice, name, governor) = (config.backend, located.name.clone(), Arc::clone(&self.governor));
        let loading = spawn_blocking(move || governor.load(&located, choice, &options));
        let backend = tokio::select! {
            loaded = loading => loaded.map_err(|error| NodeError::Task { task: "model", reason: error.to_string() })??,
            () = self.stop.cancelled() => return Ok(()),
        };
        let engine = Arc::clone(&backend);
        // Doors stop before this stage: what answers are left by then have had their ten seconds.
        self.supervisor.critical(Stage::Engine, "engine", |stop| async move {
            stop.cancelled().await;
            let stopped = spawn_blocking(move || engine.stop(false)).await;
            stopped.map_err(|error| NodeError::Task { task: "engine", reason: error.to_string() })
        });
        self.governor.take_charge(Arc::clone(&backend));
        // Nobody else sets it.
        let _ = self.served.set(Served { name, backend, loaded_s: clock.now_ms() / 1000 });
        Ok(())
    }

    /// Runs until told to stop, or until a task ends without which the node cannot go on; then stops in order.
    pub async fn run(mut self) -> Result<(), NodeError> {
        let stop = self.stop.clone();
        let ended = tokio::select! {
            () = stop.cancelled() => None,
            ended = self.supervisor.first_end() => Some(ended),
        };
        self.shut_down().await;
        match ended {
            None => Ok(()),
            Some(Ended { result: Err(error), .. }) => Err(error),
            Some(Ended { task, result: Ok(()) }) => Err(NodeError::Task { task, reason: "it returned".into() }),
        }
    }

    async fn shut_down(self) {
        let Node { dir, supervisor, stop, .. } = self;
        stop.cancel();
        supervisor.shut_down().await;
        dir.withdraw();
    }
}

/// The kernel with this name.
pub fn kernel_of(name: Option<&str>) -> Result<Option<KernelKind>, NodeError> {
    let Some(name) = name else { return Ok(None) };
    let kind = name.parse::<KernelKind>();
    kind.map(Some).map_err(|error| NodeError::Value { name: "kernel", reason: error.to_string() })
}

/// One recorder per process: a second node in it (a test's) shares the first one's.
fn install_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("metrics are recorded elsewhere in this process");
            }
            handle
        })
        .clone()
}

/// Brings a snapshot from peers into a new folder, before anything else runs.
async fn fast_start(
    config: &NodeConfig,
    dir: &DataDir,
    key: &Arc<NodeKey>,
    genesis: &Genesis,
    stop: &CancellationToken,
) -> Result<(), NodeError> {
    let (store, patience) = (dir.chain(), FAST_START_MAX);
    if store.exists() {
        tracing::info!("there is a chain in this folder; --fast-start is for new ones");
        return Ok(());
    }
    let own =
        |cause| NodeError::Bind { door: "peers", flag: "--host", address: SocketAddr::new(config.host, 0), cause };
    let listener = TcpListener::bind((config.host, 0)).await.map_err(own)?;
    // Nobody is told of this port: it is gone in a moment.
    let nowhere = SocketAddr::new(config.host, 0);
    let ending = stop.child_token();
    let (nobody, settings) = (Kept::default(), NetworkConfig::default());
    let (network, events) =
        Network::start((listener, nowhere), identity(key, genesis), settings, nobody, None, ending.clone());
    dial_all(&network, &config.bootstrap);
    tracing::info!(seconds = patience.as_secs(), "looking for a snapshot");
    let begin = Begin { genesis, trusted: config.trust, store, patience };
    let height = fetch::run(&begin, &network, events, stop).await;
    ending.cancel();
    match height? {
        Some(height) => tracing::info!(%height, "begins with a snapshot"),
        None => tracing::warn!("no peer has a snapshot that can be used; follows the chain from genesis"),
    }
    Ok(())
}

fn identity(key: &Arc<NodeKey>, genesis: &Genesis) -> Identity {
    Identity { key: Arc::clone(key), chain_id: genesis.chain_id().clone(), genesis: genesis.block().hash() }
}

/// The store, and the node's view of it. The first start of a folder settles which chain it follows.
fn open_chain(config: &NodeConfig, dir: &DataDir, key: Arc<NodeKey>, genesis: Genesis) -> Result<Chain, NodeError> {
    let node_id = key.node_id();
    let (store, report) = SledStore::open(&dir.chain(), &genesis.block(), &genesis.changes(), OpenOptions::default())?;
    for path in report.half_written_removed.iter().chain(&report.caches_moved) {
        tracing::warn!(path = %path.display(), "left over from an interrupted run; put aside, nothing is lost");
    }
    let store: Arc<dyn Store> = Arc::new(store);
    let every_blocks = config.snapshot_epochs.saturating_mul(genesis.params().epoch_blocks);
    let snapshots = Arc::new(Snapshots::new(dir.snapshots(), every_blocks));
    let chain = Chain::new(
        genesis,
        store,
        key,
        Arc::new(SystemClock),
        (snapshots, config.trust),
        Payloads::new(dir.payloads()),
    )?;
    if chain.voters()?.set.power_of(&node_id) == 0 {
        tracing::info!(%node_id, chain = %chain.genesis.chain_id(), "follows this chain without a vote");
    }
    Ok(chain)
}

/// The genesis of this folder: as named, else as settled at its first start, else the development chain of this key.
fn settle_genesis(config: &NodeConfig, dir: &DataDir, key: &NodeKey) -> Result<Genesis, NodeError> {
    let settled = dir.genesis_file();
    let path = config.genesis.clone().unwrap_or_else(|| settled.clone());
    let fault = |reason: String| NodeError::Genesis { path: path.clone(), reason };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && config.genesis.is_none() => DEVNET.to_owned(),
        Err(error) => return Err(fault(error.to_string())),
    };
    let genesis = Genesis::from_toml(&text, Some(key.node_id())).map_err(|error| fault(error.to_string()))?;
    if !settled.exists() {
        dir.write_private(&settled, genesis.to_toml().as_bytes())?;
    }
    Ok(genesis)
}

/// Where the doors listen.
struct Doors {
    api: SocketAddr,
    rpc: SocketAddr,
    dashboard: SocketAddr,
    peers: TcpListener,
    peers_address: SocketAddr,
}

fn dial_all(network: &Network, addresses: &[String]) {
    for address in addresses {
        if !network.dial(address.clone()) {
            tracing::warn!(address, "is not dialled: too many addresses are named");
        }
    }
}

/// Lets peers in, and looks for those that are named.
fn start_peers(
    (config, governor): (&NodeConfig, &Arc<Governor>),
    (chain, pipeline): (&Arc<Chain>, Arc<Pipeline>),
    supervisor: &Supervisor,
    listener: (TcpListener, SocketAddr),
    legacy: LegacyDoor,
    tell: mpsc::Sender<consensus::run::Told>,
) {
    let identity = identity(&chain.key, &chain.genesis);
    let spawner = supervisor.spawner(Stage::Consensus);
    let (stop, known) = (spawner.stop().clone(), book::read(&*chain.store));
    let settings = NetworkConfig { throttle: Arc::clone(&governor.throttle), ..NetworkConfig::default() };
    let legacy = Some(Box::new(legacy) as Box<dyn Legacy>);
    let (network, events) = Network::start(listener, identity, settings, known, legacy, stop.clone());
    spawner.spawn(book::keep(network.clone(), Arc::clone(&chain.store), stop.clone()));
    dial_all(&network, &config.bootstrap);
    if config.mdns {
        spawner.spawn(place::look_around(network.clone(), governor.may_tell_place(), stop));
    }
    // It is set here and nowhere else.
    let _ = chain.network.set(network.clone());
    let parts = (Arc::clone(chain), pipeline);
    supervisor.critical(Stage::Consensus, "peers", |stop| exchange::run(parts, network, events, tell, stop));
}

async fn bind(
    config: &NodeConfig,
    door: &'static str,
    flag: &'static str,
    port: u16,
) -> Result<(TcpListener, SocketAddr), NodeError> {
    let address = SocketAddr::new(config.host, port);
    let fault = |cause| NodeError::Bind { door, flag, address, cause };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    Ok((listener, address))
}

/// Binds every door before the first is served, so that a port in use is found while nothing runs yet.
async fn open_doors(
    config: &NodeConfig,
    dir: &DataDir,
    keys: Vec<String>,
    supervisor: &Supervisor,
    services: &Arc<dyn Services>,
) -> Result<Doors, NodeError> {
    let (api, api_address) = bind(config, "the OpenAI API", "--api-port", config.api_port).await?;
    let (rpc, rpc_address) = bind(config, "JSON-RPC", "--rpc-port", config.rpc_port).await?;
    let (page, page_address) = bind(config, "the status page", "--dashboard-port", config.dashboard_port).await?;
    let (peers, peers_address) = bind(config, "the port for peers", "--port", config.port).await?;
    let admin = bind_admin(dir)?;

    let routes = Gate::new(api_address, &keys, &config.cors_origins).protect(openai::router(Arc::clone(services)));
    serve(supervisor, "api", api, routes);
    let routes = Gate::new(page_address, &keys, &[]).protect(dashboard::router(Arc::clone(services)));
    serve(supervisor, "dashboard", page, routes);
    serve(supervisor, "admin", admin, admin::router(Arc::clone(services)));
    let handle = aria_rpc::chain::serve(rpc, Arc::clone(services), aria_rpc::chain::hosts_of(rpc_address));
    let handle = handle.map_err(|cause| NodeError::Bind {
        door: "JSON-RPC",
        flag: "--rpc-port",
        address: rpc_address,
        cause,
    })?;
    supervisor.critical(Stage::Doors, "rpc", |stop| async move {
        stop.cancelled().await;
        // It fails only where the server has stopped already.
        let _ = handle.stop();
        handle.stopped().await;
        Ok(())
    });
    Ok(Doors { api: api_address, rpc: rpc_address, dashboard: page_address, peers, peers_address })
}

fn serve(supervisor: &Supervisor, task: &'static str, listener: impl Listener, routes: aria_rpc::Router) {
    supervisor.critical(Stage::Doors, task, |stop| async move {
        server::serve(listener, routes, stop, CONNECTIONS_MAX).await;
        Ok(())
    });
}

/// The private door. The store's lock is held by now, so a socket that is still there belongs to nobody.
fn bind_admin(dir: &DataDir) -> Result<UnixListener, NodeError> {
    let path = dir.admin_socket();
    let fault = |cause| NodeError::DataDir { path: path.clone(), cause };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(fault)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fault)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use aria_inference::{digest::model_digest, hyper::Hyper};
    use aria_runtime::state::{MemoryState, Reader};

    use super::*;

    #[test]
    fn the_development_chain_registers_the_built_in_model() {
        let key = NodeKey::from_seed(&[1; 32]);
        let genesis = Genesis::from_toml(DEVNET, Some(key.node_id())).expect("a good file");
        let mut state = MemoryState::new();
        state.apply(&genesis.changes().entries);
        let gguf =
            model::locate(model::EMBEDDED_NAME, Path::new("")).and_then(|located| located.open()).expect("built in");
        let digest = model_digest(&gguf).expect("a whole model");
        let registered = Reader(&state).model(&aria_chain::ids::ModelId::new(digest.0)).expect("readable");
        let shape = registered.expect("registered under its digest").shape;
        let hyper = Hyper::from_gguf(&gguf).expect("a whole model");
        assert_eq!(model::shape_of(&hyper), Some(shape), "as a voter reads it in the file");
        assert_eq!(shape.ops_per_token(), Ok(hyper.ops_per_token()), "work is reckoned from the shape that runs");
    }

    #[test]
    fn the_first_start_settles_the_chain_of_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = DataDir::create(folder.path()).expect("made");
        let config = NodeConfig::settle(&crate::cli::StartArgs::default(), &crate::config::ConfigFile::default())
            .expect("defaults");
        let key = NodeKey::from_seed(&[1; 32]);
        let first = settle_genesis(&config, &dir, &key).expect("the development chain");
        assert_eq!(settle_genesis(&config, &dir, &key).expect("the settled file"), first);
        let other = settle_genesis(
            &config,
            &DataDir::create(&folder.path().join("b")).expect("made"),
            &NodeKey::from_seed(&[2; 32]),
        );
        assert_ne!(other.expect("another chain").chain_id(), first.chain_id());
    }
}
