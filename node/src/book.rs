//! The address book at rest: lines of the store, by kind and key, each as JSON.

use std::sync::Arc;
use std::time::Duration;

use aria_chain::ids::NodeId;
use aria_chain::store::{StateEntry, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::network::{Kept, Network};

/// How often the book is written.
const EVERY: Duration = Duration::from_secs(60);

/// First byte of a line about a node that can be dialled, and about one that stays out.
const NODE: u8 = 1;
const BAN: u8 = 2;

/// Nodes that were reached before, and those that stay out. What is damaged is left out: it is a help, and nothing rests on it.
pub fn read(store: &dyn Store) -> Kept {
    let lines = store.peers().unwrap_or_else(|error| {
        tracing::warn!(%error, "the address book cannot be read and is begun anew");
        Vec::new()
    });
    Kept { nodes: of_kind(NODE, &lines), bans: of_kind(BAN, &lines) }
}

fn of_kind<T: DeserializeOwned>(kind: u8, lines: &[StateEntry]) -> Vec<T> {
    let lines = lines.iter().filter(|(key, _)| key.first() == Some(&kind));
    let read = lines.map(|(_, line)| serde_json::from_slice(line));
    read.filter_map(|line| {
        line.inspect_err(|error| tracing::warn!(%error, "a line of the address book is left out")).ok()
    })
    .collect()
}

/// Writes the book now and then, and at the end.
pub async fn keep(network: Network, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut written = None;
    loop {
        let is_over = tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok();
        let (book, store) = (network.kept(), Arc::clone(&store));
        if written.as_ref() != Some(&book) {
            let lines = lines(&book);
            match tokio::task::spawn_blocking(move || store.put_peers(&lines)).await {
                Ok(Err(error)) => tracing::warn!(%error, "the address book is not kept"),
                _ => written = Some(book),
            }
        }
        if is_over {
            return;
        }
    }
}

fn lines(book: &Kept) -> Vec<StateEntry> {
    let nodes = book.nodes.iter().map(|entry| line(NODE, &entry.node_id, entry));
    nodes.chain(book.bans.iter().map(|ban| line(BAN, &ban.node_id, ban))).collect()
}

fn line(kind: u8, node: &NodeId, what: &impl Serialize) -> StateEntry {
    let key = [&[kind], node.as_bytes().as_slice()].concat();
    (key, serde_json::to_vec(what).expect("a line is text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Ban;

    #[test]
    fn a_book_is_read_as_it_was_written_and_what_is_damaged_is_left_out() {
        let ban = |seed: u8| Ban { node_id: NodeId::new([seed; 32]), until_s: 7, reason: "a \"test\"".into() };
        let bans = vec![ban(1), ban(2)];
        let mut lines = lines(&Kept { nodes: Vec::new(), bans: bans.clone() });
        assert_eq!(of_kind::<Ban>(BAN, &lines), bans);
        lines[0].1.pop();
        assert_eq!(of_kind::<Ban>(BAN, &lines), [ban(2)]);
    }
}
