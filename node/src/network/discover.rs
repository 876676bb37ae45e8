//! Company: as long as this node has dialled too few others, it dials somebody from its book, and peers tell each other whom
//! they know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aria_chain::codec::{Versioned, read_list};
use aria_chain::ids::NodeId;
use borsh::io::{Error, Read};
use borsh::{BorshDeserialize, BorshSerialize};
use tokio_util::sync::CancellationToken;

use super::book::{Contact, TOLD_MAX};
use super::peers::Peers;
use super::{Channel, dial, peer};

/// What peers say about others.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Acquaintance {
    /// Whom do you know?
    Ask,
    /// These, which the sender has reached itself.
    Known(Contacts),
}

impl Versioned for Acquaintance {
    const NAME: &'static str = "acquaintance";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = 8 + TOLD_MAX * 64;
}

/// At most [`TOLD_MAX`] contacts.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Contacts(pub Vec<Contact>);

impl BorshDeserialize for Contacts {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Contacts, Error> {
        read_list(reader, TOLD_MAX, "contacts").map(Contacts)
    }
}

/// What a peer says on this channel. `has_asked` is whether this node asked it and had no answer yet.
pub(super) fn hear(
    peers: &Peers,
    (node, address): (NodeId, SocketAddr),
    bytes: &[u8],
    has_asked: &mut bool,
) -> Result<(), String> {
    match Acquaintance::decode(bytes).map_err(|error| error.to_string())? {
        Acquaintance::Ask => {
            let known = Acquaintance::Known(Contacts(peers.book().told(random(), &node)));
            peers.send(&node, Channel::Peers, &peer::frame(Channel::Peers, &known.encode()));
        }
        // Nobody pushes addresses.
        Acquaintance::Known(_) if !std::mem::take(has_asked) => {}
        Acquaintance::Known(Contacts(contacts)) => {
            let others: Vec<Contact> =
                contacts.into_iter().filter(|contact| contact.node_id != peers.identity.key.node_id()).collect();
            peers.book().heard(node, address.ip(), &others);
        }
    }
    Ok(())
}

/// Dials until there are enough connections that this node began.
pub(super) async fn keep_company(peers: Arc<Peers>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(dial::jitter(peers.config.discover_every)) => {}
        }
        if peers.dialled() >= peers.config.outbound_max {
            continue;
        }
        let own = peers.identity.key.node_id();
        let contact = peers.book().next(random(), now_s(), |node| *node == own || peers.is_connected(node));
        if let Some(contact) = contact {
            let (peers, stop) = (Arc::clone(&peers), stop.clone());
            // The next turn comes after a handshake's time at most, so there are few of these at once.
            peers.book().failed(&contact.node_id, now_s());
            tokio::spawn(async move {
                if let Err(error) = dial::once(&peers, &contact.address.to_string(), &stop).await {
                    tracing::debug!(node = %contact.node_id, address = %contact.address, %error, "cannot connect");
                }
            });
        }
    }
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Without randomness the order is always the same one.
fn random() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_or(0, |()| u64::from_le_bytes(bytes))
}
