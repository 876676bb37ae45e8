//! The chain's door: JSON-RPC over HTTP and WebSocket (`docs/rpc.md`).
//!
//! In reading order: [`api`] lists the methods, `votes` has those about validators, `ledger` those about amounts and work, `transactions` orders and what waits, `audits` who checked a record, `rewards` what it earned, `models` what models the chain knows, `light` makes light proofs, [`subscribe`] the subscriptions, [`arguments`]
//! reads parameters by position or by name, [`views`] turns what rests in the store into JSON.

use std::{net::SocketAddr, sync::Arc};

use jsonrpsee::{
    RpcModule,
    server::{BatchRequestConfig, PingConfig, RandomIntegerIdProvider, Server, ServerConfig, ServerHandle},
};
use tokio::net::TcpListener;

use crate::services::Services;

pub mod api;
pub mod arguments;
mod audits;
mod consents;
mod ledger;
mod light;
mod models;
mod rewards;
pub mod subscribe;
mod transactions;
pub mod views;
mod votes;

/// Calls of one batch.
pub const BATCH_MAX: u32 = 50;
/// Bytes of one request.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;
/// Bytes of one answer: a full block with all signatures takes about 2 MiB.
pub const RESPONSE_BYTES_MAX: u32 = 10 << 20;
/// Connections at once.
pub const CONNECTIONS_MAX: u32 = 200;
/// Messages that wait for a slow reader before it is dropped.
const MESSAGES_MAX: u32 = 256;

/// What goes with every call.
pub(crate) type Context = Arc<dyn Services>;

/// All public methods.
pub fn module(services: Arc<dyn Services>) -> RpcModule<Context> {
    let mut module = RpcModule::new(services);
    api::register(&mut module);
    subscribe::register(&mut module);
    module
}

/// Serves the public methods on a listener until the handle is stopped. `hosts` are the values of the Host header that are
/// let in; everything else is a page somewhere that points its name at this machine.
pub fn serve(
    listener: TcpListener,
    services: Arc<dyn Services>,
    hosts: Option<Vec<String>>,
) -> std::io::Result<ServerHandle> {
    let config = ServerConfig::builder()
        .max_connections(CONNECTIONS_MAX)
        .max_request_body_size(REQUEST_BYTES_MAX)
        .max_response_body_size(RESPONSE_BYTES_MAX)
        .set_batch_request_config(BatchRequestConfig::Limit(BATCH_MAX))
        .set_message_buffer_capacity(MESSAGES_MAX)
        .max_subscriptions_per_connection(subscribe::SUBSCRIPTIONS_MAX)
        .enable_ws_ping(PingConfig::new())
        .set_id_provider(RandomIntegerIdProvider)
        .build();
    let hosts = match hosts {
        Some(hosts) => {
            jsonrpsee::server::middleware::http::HostFilterLayer::new(hosts).map_err(std::io::Error::other)?
        }
        None => jsonrpsee::server::middleware::http::HostFilterLayer::disable(),
    };
    let health = jsonrpsee::server::middleware::http::ProxyGetRequestLayer::new([("/health", "node_health")])
        .map_err(std::io::Error::other)?;
    let layers = tower::ServiceBuilder::new().layer(hosts).layer(health);
    let server =
        Server::builder().set_config(config).set_http_middleware(layers).build_from_tcp(listener.into_std()?)?;
    Ok(server.start(module(services)))
}

/// Values of the Host header for a door bound to `address`: names of this machine only, if it is loopback.
pub fn hosts_of(address: SocketAddr) -> Option<Vec<String>> {
    let port = address.port();
    address
        .ip()
        .is_loopback()
        .then(|| ["localhost", "127.0.0.1", "[::1]"].iter().map(|host| format!("{host}:{port}")).collect())
}
