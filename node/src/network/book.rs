//! The address book: where nodes can be dialled, from what peers tell and from what was tried.
//!
//! Nobody can fill it: what one peer tells has so many places, one network (the first 16 bits of an IPv4 address, 32 of an
//! IPv6 one) has so many among those that were proven, and hearsay never pushes out what was proven. Loopback is no network.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use aria_chain::ids::NodeId;
use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

/// Nodes that were dialled with success.
const PROVEN_MAX: usize = 256;
/// Of these, nodes of one network.
const PROVEN_PER_NETWORK_MAX: usize = 16;
/// Nodes that others told of.
const HEARD_MAX: usize = 1_024;
/// Of these, what one peer told.
const HEARD_PER_SOURCE_MAX: usize = 64;
/// Nodes that are told at once.
pub const TOLD_MAX: usize = 32;
/// Failures in a row after which hearsay is forgotten, and what was once proven.
const FAILURES_MAX: (u32, u32) = (3, 12);
/// Pause after the first failure in seconds; it doubles, up to an hour.
const PAUSE_S: u64 = 10;
const PAUSE_MAX_S: u64 = 3_600;

/// Where a node can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Contact {
    /// Its key.
    pub node_id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A line of the book.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its key.
    pub node_id: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// When it was last dialled with success, in seconds since 1970; zero for hearsay.
    pub proven_s: u64,
    /// Who told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<NodeId>,
    #[serde(default)]
    failures: u32,
    /// Not before this time, in seconds since 1970.
    #[serde(default)]
    again_s: u64,
}

/// All that is known. Times come from the caller.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<NodeId, Entry>,
}

impl Book {
    /// A book of these lines, as [`entries`](Book::entries) gave them. Lines beyond the limits are left out.
    pub fn new(entries: Vec<Entry>) -> Book {
        let mut book = Book::default();
        for entry in entries {
            match (entry.proven_s, entry.source) {
                (0, Some(source)) if book.has_room_for(&source) => {
                    book.entries.insert(entry.node_id, entry);
                }
                (0, _) => {}
                _ => book.put_proven(entry),
            }
        }
        book
    }

    /// Where a node can be dialled, if that is known.
    pub fn address_of(&self, node: &NodeId) -> Option<SocketAddr> {
        self.entries.get(node).map(|entry| entry.address)
    }

    /// All lines.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.values().cloned().collect()
    }

    /// Notes what a peer tells. Addresses that lead nowhere, or from elsewhere to this machine, are left out.
    pub fn heard(&mut self, source: NodeId, source_ip: IpAddr, contacts: &[Contact]) {
        for contact in contacts.iter().take(TOLD_MAX) {
            let ip = contact.address.ip();
            let is_of_use = contact.address.port() != 0
                && !ip.is_unspecified()
                && !ip.is_multicast()
                && (!ip.is_loopback() || source_ip.is_loopback());
            if is_of_use && !self.entries.contains_key(&contact.node_id) && self.has_room_for(&source) {
                let Contact { node_id, address } = *contact;
                let entry = Entry { node_id, address, proven_s: 0, source: Some(source), failures: 0, again_s: 0 };
                self.entries.insert(node_id, entry);
            }
        }
    }

    fn has_room_for(&self, source: &NodeId) -> bool {
        let hearsay = || self.entries.values().filter(|entry| entry.proven_s == 0);
        hearsay().count() < HEARD_MAX
            && hearsay().filter(|entry| entry.source.as_ref() == Some(source)).count() < HEARD_PER_SOURCE_MAX
    }

    /// Notes that a node was reached at an address.
    pub fn proven(&mut self, contact: Contact, now_s: u64) {
        let Contact { node_id, address } = contact;
        self.put_proven(Entry { node_id, address, proven_s: now_s.max(1), source: None, failures: 0, again_s: 0 });
    }

    /// Makes room by forgetting the one of the same network, or of all, that was proven longest ago.
    fn put_proven(&mut self, entry: Entry) {
        self.entries.remove(&entry.node_id);
        let network = network_of(entry.address.ip());
        let proven = || self.entries.values().filter(|entry| entry.proven_s > 0);
        let of_network = || proven().filter(|other| network.is_some() && network_of(other.address.ip()) == network);
        let oldest = if of_network().count() >= PROVEN_PER_NETWORK_MAX {
            of_network().min_by_key(|entry| entry.proven_s)
        } else if proven().count() >= PROVEN_MAX {
            proven().min_by_key(|entry| entry.proven_s)
        } else {
            None
        };
        if let Some(oldest) = oldest.map(|entry| entry.node_id) {
            self.entries.remove(&oldest);
        }
        self.entries.insert(entry.node_id, entry);
    }

    /// Forgets who is at an address.
    pub fn forget(&mut self, address: SocketAddr) {
        self.entries.retain(|_, entry| entry.address != address);
    }

    /// Notes that a node could not be reached. Who cannot be for long is forgotten.
    pub fn failed(&mut self, node: &NodeId, now_s: u64) {
        let Some(entry) = self.entries.get_mut(node) else { return };
        entry.failures = entry.failures.saturating_add(1);
        let pause = PAUSE_S.checked_shl(entry.failures - 1).unwrap_or(PAUSE_MAX_S).min(PAUSE_MAX_S);
        entry.again_s = now_s.saturating_add(pause);
        let most = if entry.proven_s == 0 { FAILURES_MAX.0 } else { FAILURES_MAX.1 };
        if entry.failures >= most {
            self.entries.remove(node);
        }
    }

    /// Whom to dial next: every other time one that was proven, the last one first, else any that was told of.
    pub fn next(&self, random: u64, now_s: u64, is_busy: impl Fn(&NodeId) -> bool) -> Option<Contact> {
        let free: Vec<&Entry> =
            self.entries.values().filter(|entry| entry.again_s <= now_s && !is_busy(&entry.node_id)).collect();
        let proven = free.iter().filter(|entry| entry.proven_s > 0).max_by_key(|entry| entry.proven_s);
        let hearsay: Vec<&&Entry> = free.iter().filter(|entry| entry.proven_s == 0).collect();
        let any = hearsay.get(usize::try_from(random >> 1).unwrap_or(0) % hearsay.len().max(1));
        let chosen = if random & 1 == 0 { proven.or(any.copied()) } else { any.copied().or(proven) };
        chosen.map(|entry| Contact { node_id: entry.node_id, address: entry.address })
    }

    /// What is told to a peer: nodes that this one reached itself, beginning anywhere.
    pub fn told(&self, random: u64, to: &NodeId) -> Vec<Contact> {
        let known: Vec<&Entry> =
            self.entries.values().filter(|entry| entry.proven_s > 0 && entry.node_id != *to).collect();
        let begin = usize::try_from(random).unwrap_or(0) % known.len().max(1);
        let turned = known.iter().cycle().skip(begin).take(known.len().min(TOLD_MAX));
        turned.map(|entry| Contact { node_id: entry.node_id, address: entry.address }).collect()
    }
}

/// The network of an address; none for this machine itself.
fn network_of(ip: IpAddr) -> Option<[u8; 4]> {
    match ip {
        _ if ip.is_loopback() => None,
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            Some([a, b, 0, 0])
        }
        IpAddr::V6(ip) => ip.octets().first_chunk().copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::new(bytes)
    }

    fn contact(n: u16, ip: [u8; 4]) -> Contact {
        Contact { node_id: node(n), address: SocketAddr::from((ip, 8_765)) }
    }

    fn afar() -> IpAddr {
        IpAddr::from([9, 9, 9, 9])
    }

    #[test]
    fn one_source_fills_its_own_places_only() {
        let mut book = Book::default();
        for batch in 0..20_u16 {
            let told: Vec<Contact> = (0..32).map(|n| contact(1_000 + batch * 32 + n, [1, 2, 3, 4])).collect();
            book.heard(node(1), afar(), &told);
        }
        assert_eq!(book.entries.len(), HEARD_PER_SOURCE_MAX);
        for source in 2..60 {
            let told: Vec<Contact> = (0..32).map(|n| contact(5_000 + source * 32 + n, [1, 2, 3, 4])).collect();
            book.heard(node(source), afar(), &told);
        }
        assert_eq!(book.entries.len(), HEARD_MAX);
        book.proven(contact(9, [7, 7, 7, 7]), 5);
        assert_eq!(book.told(0, &node(0)), [contact(9, [7, 7, 7, 7])], "hearsay is not passed on");
    }

    #[test]
    fn one_network_does_not_push_out_the_others() {
        let mut book = Book::default();
        book.proven(contact(1, [5, 5, 0, 1]), 1);
        for n in 0..400 {
            book.proven(contact(1_000 + n, [6, 6, 0, 1]), 10 + u64::from(n));
        }
        assert_eq!(book.entries.len(), 1 + PROVEN_PER_NETWORK_MAX);
        assert!(book.entries.contains_key(&node(1)) && book.entries.contains_key(&node(1_399)));
        for n in 0..400_u16 {
            let [high, low] = n.to_be_bytes();
            book.proven(contact(2_000 + n, [10 + high, low, 0, 1]), 1_000 + u64::from(n));
        }
        assert_eq!(book.entries.len(), PROVEN_MAX);
        let mut local = Book::default();
        (0..100).for_each(|n| local.proven(contact(n, [127, 0, 0, 1]), 1));
        assert_eq!(local.entries.len(), 100, "this machine is no network");
    }

    #[test]
    fn addresses_that_lead_nowhere_are_left_out() {
        let mut book = Book::default();
        let nowhere = Contact { node_id: node(4), address: SocketAddr::from(([1, 2, 3, 4], 0)) };
        let told = [contact(1, [0, 0, 0, 0]), contact(2, [224, 0, 0, 1]), contact(3, [127, 0, 0, 1]), nowhere];
        book.heard(node(9), afar(), &told);
        assert!(book.entries.is_empty());
        book.heard(node(9), IpAddr::from([127, 0, 0, 1]), &told);
        assert_eq!(book.entries.keys().collect::<Vec<_>>(), [&node(3)], "who is here may speak of here");
        // What is known is not changed by hearsay.
        book.proven(contact(5, [1, 1, 1, 1]), 1);
        book.heard(node(9), afar(), &[contact(5, [2, 2, 2, 2])]);
        assert_eq!(book.entries[&node(5)].address.ip(), IpAddr::from([1, 1, 1, 1]));
    }

    #[test]
    fn who_cannot_be_reached_waits_longer_and_is_forgotten() {
        let mut book = Book::default();
        book.heard(node(9), afar(), &[contact(1, [1, 2, 3, 4])]);
        let next = |book: &Book, now_s| book.next(1, now_s, |_| false).map(|contact| contact.node_id);
        assert_eq!(next(&book, 100), Some(node(1)));
        book.failed(&node(1), 100);
        assert_eq!((next(&book, 109), next(&book, 110)), (None, Some(node(1))));
        book.failed(&node(1), 110);
        assert_eq!((next(&book, 129), next(&book, 130)), (None, Some(node(1))));
        book.failed(&node(1), 130);
        assert!(book.entries.is_empty());
        book.proven(contact(2, [1, 2, 3, 4]), 1);
        for _ in 1..FAILURES_MAX.1 {
            book.failed(&node(2), 0);
        }
        assert_eq!(book.entries[&node(2)].again_s, PAUSE_MAX_S);
        book.failed(&node(2), 0);
        assert!(book.entries.is_empty());
    }

    #[test]
    fn proven_and_told_take_turns_and_who_is_busy_is_left_alone() {
        let mut book = Book::default();
        book.proven(contact(1, [1, 1, 1, 1]), 10);
        book.proven(contact(2, [2, 2, 2, 2]), 20);
        book.heard(node(9), afar(), &[contact(3, [3, 3, 3, 3])]);
        let next = |random, busy: &[u16]| {
            let is_busy = |id: &NodeId| busy.iter().any(|n| node(*n) == *id);
            book.next(random, 0, is_busy).map(|contact| contact.node_id)
        };
        assert_eq!((next(0, &[]), next(1, &[])), (Some(node(2)), Some(node(3))));
        assert_eq!((next(0, &[2]), next(1, &[3])), (Some(node(1)), Some(node(2))));
        assert_eq!((next(0, &[1, 2]), next(0, &[1, 2, 3])), (Some(node(3)), None));
        assert_eq!(book.told(7, &node(2)), [contact(1, [1, 1, 1, 1])]);
    }

    #[test]
    fn a_book_is_read_back_as_it_was_written() {
        let mut book = Book::default();
        book.proven(contact(1, [1, 1, 1, 1]), 10);
        book.heard(node(9), afar(), &[contact(3, [3, 3, 3, 3])]);
        book.failed(&node(3), 5);
        let text = serde_json::to_string(&book.entries()).expect("a book is text");
        let again = Book::new(serde_json::from_str(&text).expect("it is read back"));
        assert_eq!(again.entries(), book.entries());
    }
}
