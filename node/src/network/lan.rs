//! Nodes of the same chain on the local network, found by multicast DNS (RFC 6762 and 6763), where the user asks for it.
//!
//! What is heard there is hearsay like any other: an address to dial, whose key must be proven.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aria_chain::ids::{BlockHash, NodeId};
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio_util::sync::CancellationToken;

use super::Identity;
use super::book::Contact;
use super::peers::Peers;

/// The service under which nodes are known.
const SERVICE: &str = "_aria._tcp.local.";
/// Hex digits of the key in the names of a node: a label has at most 63 bytes.
const NAME_DIGITS: usize = 32;

/// Says that this node is here, and adds to the book whom it hears of, until told to stop.
pub(super) fn look_around(
    peers: Arc<Peers>,
    address: SocketAddr,
    stop: CancellationToken,
) -> Result<(), mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    if address.ip().is_loopback() {
        // Nobody else can dial this node, so nobody else need hear of it.
        daemon.disable_interface(IfKind::All)?;
        daemon.enable_interface(if address.is_ipv4() { IfKind::LoopbackV4 } else { IfKind::LoopbackV6 })?;
    }
    daemon.register(announcement(&peers.identity, address)?)?;
    let heard = daemon.browse(SERVICE)?;
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                event = heard.recv_async() => event,
            };
            match event {
                Ok(ServiceEvent::ServiceResolved(service)) => hear(&peers, &service),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // It says goodbye to the others, and ends by itself where it cannot.
        let _ = daemon.shutdown();
    });
    Ok(())
}

fn announcement(identity: &Identity, address: SocketAddr) -> Result<ServiceInfo, mdns_sd::Error> {
    let id = identity.key.node_id().to_string();
    let name = &id[..NAME_DIGITS];
    let facts =
        [("id", id.clone()), ("chain", identity.chain_id.to_string()), ("genesis", identity.genesis.to_string())];
    let facts: HashMap<String, String> = facts.map(|(name, fact)| (name.to_owned(), fact)).into();
    let host = format!("{name}.local.");
    // A node that listens everywhere is found at every address of its machine.
    if address.ip().is_unspecified() {
        let everywhere = ServiceInfo::new(SERVICE, name, &host, (), address.port(), facts)?;
        return Ok(everywhere.enable_addr_auto());
    }
    ServiceInfo::new(SERVICE, name, &host, address.ip(), address.port(), facts)
}

fn hear(peers: &Peers, service: &ResolvedService) {
    let fact = |name| service.txt_properties.get_property_val_str(name);
    let genesis: Option<BlockHash> = fact("genesis").and_then(|text| text.parse().ok());
    let id: Option<NodeId> = fact("id").and_then(|text| text.parse().ok());
    let Identity { key, chain_id, genesis: own_genesis } = &peers.identity;
    let is_of_chain = genesis == Some(*own_genesis) && fact("chain") == Some(chain_id.as_str());
    let own = key.node_id();
    let Some(node_id) = id.filter(|id| *id != own && is_of_chain) else { return };
    for place in &service.addresses {
        let ip: IpAddr = place.to_ip_addr();
        let address = SocketAddr::new(ip, service.port);
        tracing::debug!(%node_id, %address, "heard of on the local network");
        peers.book().heard(own, ip, &[Contact { node_id, address }]);
    }
}
