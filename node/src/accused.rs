//! Evidence that waits for a block. In memory only: whoever saw the same contradiction holds it too.

use std::collections::BTreeMap;

use aria_chain::evidence::Evidence;
use aria_chain::ids::NodeId;

/// One piece against each accused. Only candidates can be accused, so there are never many.
#[derive(Debug, Default)]
pub struct Accused(BTreeMap<NodeId, Evidence>);

impl Accused {
    /// Keeps a piece that was checked; the first against a node counts. Whether it is new.
    pub fn insert(&mut self, piece: Evidence) -> bool {
        let is_new = !self.0.contains_key(&piece.node_id);
        self.0.entry(piece.node_id).or_insert(piece);
        is_new
    }

    /// Whether a node is accused.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.0.contains_key(node)
    }

    /// Forgets what is in a block or of no use.
    pub fn remove(&mut self, pieces: &[Evidence]) {
        for piece in pieces {
            self.0.remove(&piece.node_id);
        }
    }

    /// All pieces, in order of node.
    pub fn pieces(&self) -> Vec<Evidence> {
        self.0.values().cloned().collect()
    }

    /// Whether nobody is accused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
