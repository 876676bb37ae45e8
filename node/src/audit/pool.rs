//! Attestations that wait for a block. In memory only: an auditor says again what no block took.

use std::collections::BTreeMap;

use aria_chain::attestation::VerifiedAttestation;
use aria_chain::ids::{AttestationId, NodeId};
use aria_chain::limits::MEMPOOL_ATTESTATIONS_MAX;
use aria_chain::units::Height;

/// Waiting attestations of one auditor: nobody fills the pool alone.
const PER_AUDITOR_MAX: usize = 512;

/// Attestations that wait.
#[derive(Debug, Default)]
pub struct Attestations {
    waiting: BTreeMap<AttestationId, VerifiedAttestation>,
    auditors: BTreeMap<NodeId, usize>,
    /// Grows with every change.
    version: u64,
    /// Whether the next block could hold one of them, for a tip and a version.
    due: Option<(Height, u64, bool)>,
}

impl Attestations {
    /// Takes one. Whether it is new and there is room.
    pub fn insert(&mut self, attestation: VerifiedAttestation) -> bool {
        let count = self.auditors.entry(attestation.attestation().auditor).or_default();
        let is_taken = self.waiting.len() < MEMPOOL_ATTESTATIONS_MAX
            && *count < PER_AUDITOR_MAX
            && !self.waiting.contains_key(&attestation.id());
        if is_taken {
            *count += 1;
            self.version += 1;
            self.waiting.insert(attestation.id(), attestation);
        }
        is_taken
    }

    /// Whether this one waits.
    pub fn get(&self, id: &AttestationId) -> Option<&VerifiedAttestation> {
        self.waiting.get(id)
    }

    /// Removes one that is in a block, or of no use.
    pub fn remove(&mut self, id: &AttestationId) {
        if let Some(gone) = self.waiting.remove(id) {
            self.version += 1;
            let auditor = gone.attestation().auditor;
            if let Some(count) = self.auditors.get_mut(&auditor) {
                *count -= 1;
                if *count == 0 {
                    self.auditors.remove(&auditor);
                }
            }
        }
    }

    /// Removes those about blocks below a height, whose audits are over.
    pub fn expire(&mut self, below: Height) {
        let old = |attestation: &VerifiedAttestation| attestation.attestation().height < below;
        let gone: Vec<AttestationId> =
            self.waiting.values().filter(|one| old(one)).map(VerifiedAttestation::id).collect();
        gone.iter().for_each(|id| self.remove(id));
    }

    /// All of them, the oldest records first.
    pub fn all(&self) -> Vec<VerifiedAttestation> {
        let mut all: Vec<VerifiedAttestation> = self.waiting.values().cloned().collect();
        all.sort_by_key(|one| (one.attestation().height, one.id()));
        all
    }

    /// What is known about whether a block on this tip could hold one of them.
    pub fn is_due(&self, tip: Height) -> Option<bool> {
        self.due.filter(|(of, version, _)| (*of, *version) == (tip, self.version)).map(|(.., is_due)| is_due)
    }

    /// Notes it, as found for these attestations.
    pub fn note_due(&mut self, tip: Height, version: u64, is_due: bool) {
        self.due = Some((tip, version, is_due));
    }

    /// A number that grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
