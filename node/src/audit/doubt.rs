//! Whether another auditor ran what it attested. Now and then this node runs a record once more, with the secret that one of the
//! others opened, and says so on the chain where the root is another.

use std::sync::Arc;

use aria_chain::codec::Versioned as _;
use aria_chain::ids::{NodeId, RecordId};
use aria_chain::transaction::Action;
use aria_runtime::rules::doubt::doubted_until;
use aria_runtime::state::{Audit, OpenedRoot, Reader, RecordPlace};
use tokio::task::spawn_blocking;

use super::judge::holds;
use super::models::Models;
use super::payload::Payload;
use crate::chain::Chain;

/// One of so many audits is followed by a look at one other root of it: an eighth of a prefill for each. As every other auditor does
/// so, about one guess in so many is looked at, whatever the size of the committee.
const ONE_IN: u8 = 8;

/// A root that is to be looked at.
pub(super) struct Check {
    pub(super) place: RecordPlace,
    record: RecordId,
    auditor: NodeId,
}

impl Check {
    /// Decides by a secret of this node whether, and whose. It was drawn before anybody could know.
    pub(super) fn draw(place: RecordPlace, audit: &Audit, me: NodeId, secret: &[u8; 32]) -> Option<Check> {
        let [first, second, ..] = *secret;
        let others: Vec<NodeId> = audit.members.iter().map(|member| member.node).filter(|node| *node != me).collect();
        let auditor = *others.get(usize::from(second).checked_rem(others.len())?)?;
        (first % ONE_IN == 0).then_some(Check { place, record: audit.record, auditor })
    }

    /// Looks, and doubts if there is a reason.
    pub(super) async fn run(self, chain: &Arc<Chain>, models: &Models) {
        let found = self.find(chain, models).await;
        let Some(false) = found else { return };
        tracing::warn!(record = %self.record, auditor = %self.auditor, "an auditor attested what it did not run");
        let (chain, record) = (Arc::clone(chain), self.record);
        let doubted = spawn_blocking(move || self.doubt(&chain)).await;
        if let Ok(Err(error)) = doubted {
            tracing::warn!(%record, error, "the doubt could not be raised");
        }
    }

    /// Whether the root holds. None: this node cannot tell, or there is nothing to look at.
    async fn find(&self, chain: &Arc<Chain>, models: &Models) -> Option<bool> {
        let (proof, opened) = {
            let (chain, record, (height, index)) = (Arc::clone(chain), self.record, self.place);
            let read = spawn_blocking(move || {
                let opened = Reader(&chain.view()).opened(height, index).ok().flatten();
                (chain.store.proof(&record).ok().flatten(), opened)
            });
            read.await.ok()?
        };
        let (proof, opened) = (proof?, opened?);
        let root: OpenedRoot = opened.roots.into_iter().find(|root| root.node == self.auditor)?;
        let payload = Payload::decode(&chain.payloads.read(&self.record)?).ok()?;
        holds(models, payload, &proof, &root).await
    }

    /// Says so. Blocks for a disk sync.
    fn doubt(self, chain: &Chain) -> Result<(), String> {
        let (height, index) = self.place;
        let expiry = doubted_until(height, chain.genesis.params());
        chain.order(Action::Doubt { height, index, auditor: self.auditor }, expiry)
    }
}
