//! Proofs that wait for a block: admission, order, expiry. A plain structure; who calls it decides when.
//!
//! It takes verified proofs only, so no bad one can be met here. Order is by arrival, then by record id; the same
//! proofs in the same order give the same selection. A full pool refuses: what was acknowledged is never pushed out.

pub mod transactions;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::AdmissionError;
use crate::ids::{NodeId, RecordId, RequestId};
use crate::limits::{
    BLOCK_RECORDS_MAX, BODY_BYTES_MAX, MEMPOOL_BYTES_MAX, MEMPOOL_PER_REQUESTER_MAX, MEMPOOL_PROOFS_MAX,
};
use crate::proof::VerifiedProof;
use crate::units::{Height, NanoAria, Timestamp};

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Proofs.
    pub proofs_max: usize,
    /// Bytes of all proofs.
    pub bytes_max: usize,
    /// Proofs of one requester.
    pub per_requester_max: usize,
}

impl Default for MempoolLimits {
    fn default() -> MempoolLimits {
        MempoolLimits {
            proofs_max: MEMPOOL_PROOFS_MAX,
            bytes_max: MEMPOOL_BYTES_MAX,
            per_requester_max: MEMPOOL_PER_REQUESTER_MAX,
        }
    }
}

/// How much a block takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectLimits {
    /// Records.
    pub records_max: usize,
    /// Bytes of their proofs.
    pub bytes_max: usize,
}

impl Default for SelectLimits {
    fn default() -> SelectLimits {
        SelectLimits { records_max: BLOCK_RECORDS_MAX, bytes_max: BODY_BYTES_MAX }
    }
}

/// What waits, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MempoolStatus {
    /// Proofs.
    pub proofs: usize,
    /// Bytes of all proofs.
    pub bytes: usize,
    /// Arrival of the oldest.
    pub oldest: Option<Timestamp>,
}

/// Place in the order: arrival, then id.
type Place = (Timestamp, RecordId);

/// Proofs that wait. Invariant: every map and sum speaks of the same proofs.
#[derive(Debug, Default)]
pub struct Mempool {
    limits: MempoolLimits,
    proofs: BTreeMap<Place, VerifiedProof>,
    places: BTreeMap<RecordId, Place>,
    requests: BTreeMap<RequestId, RecordId>,
    requesters: BTreeMap<NodeId, usize>,
    expiries: BTreeSet<(Height, RecordId)>,
    bytes: usize,
}

impl Mempool {
    /// An empty pool.
    pub fn new(limits: MempoolLimits) -> Mempool {
        Mempool { limits, ..Mempool::default() }
    }

    /// Takes a proof that arrived at `now`, when `tip` is the height of the last block.
    pub fn insert(&mut self, proof: VerifiedProof, tip: Height, now: Timestamp) -> Result<(), AdmissionError> {
        self.check(&proof, tip)?;
        let record = proof.record_id();
        let place = (now, record);
        self.bytes += proof.size_bytes();
        self.places.insert(record, place);
        self.requests.insert(proof.request_id(), record);
        *self.requesters.entry(proof.request().requester).or_default() += 1;
        self.expiries.insert((proof.request().expiry, record));
        self.proofs.insert(place, proof);
        Ok(())
    }

    /// Whether this record waits.
    pub fn contains(&self, record: &RecordId) -> bool {
        self.places.contains_key(record)
    }

    /// Whether a proof would be taken, and if not, by which rule.
    pub fn check(&self, proof: &VerifiedProof, tip: Height) -> Result<(), AdmissionError> {
        let MempoolLimits { proofs_max, bytes_max, per_requester_max } = self.limits;
        let record = proof.record_id();
        if self.places.contains_key(&record) {
            return Err(AdmissionError::DuplicateRecord { record });
        }
        if let Some(record) = self.requests.get(&proof.request_id()) {
            return Err(AdmissionError::DuplicateRequest { request: proof.request_id(), record: *record });
        }
        let expiry = proof.request().expiry;
        if expiry <= tip {
            let next = Height::new(tip.get().saturating_add(1));
            return Err(AdmissionError::Expired { expiry, next });
        }
        let requester = proof.request().requester;
        if self.requesters.get(&requester).is_some_and(|waiting| *waiting >= per_requester_max) {
            return Err(AdmissionError::RequesterFull { requester, max: per_requester_max });
        }
        if self.proofs.len() >= proofs_max {
            return Err(AdmissionError::Full { max: proofs_max });
        }
        if self.bytes + proof.size_bytes() > bytes_max {
            return Err(AdmissionError::BytesFull { bytes: self.bytes, max: bytes_max });
        }
        Ok(())
    }

    /// Whether there is room for one more proof of any size, before work is spent on making it.
    pub fn has_room(&self, requester: &NodeId) -> bool {
        let waiting = self.requesters.get(requester).copied().unwrap_or_default();
        waiting < self.limits.per_requester_max
            && self.proofs.len() < self.limits.proofs_max
            && self.bytes + crate::limits::PROOF_BYTES_MAX <= self.limits.bytes_max
    }

    /// The proofs for the next block: the oldest first, as many as fit. They stay until
    /// [`remove`](Mempool::remove).
    pub fn select(&self, limits: SelectLimits) -> Vec<VerifiedProof> {
        let mut bytes = 0;
        let fits = |proof: &&VerifiedProof| {
            bytes += proof.size_bytes();
            bytes <= limits.bytes_max
        };
        self.proofs.values().take(limits.records_max).take_while(fits).cloned().collect()
    }

    /// Removes proofs that are in a block, and any other answer to the same requests. Unknown ids are passed over.
    pub fn remove<'a>(&mut self, included: impl IntoIterator<Item = &'a VerifiedProof>) {
        for proof in included {
            if let Some(record) = self.requests.get(&proof.request_id()).copied() {
                self.take(&record);
            }
        }
    }

    /// Removes one proof, for instance because the state does not take it any more.
    pub fn take(&mut self, record: &RecordId) -> Option<VerifiedProof> {
        let place = self.places.remove(record)?;
        let proof = self.proofs.remove(&place).expect("each place holds its proof");
        self.bytes -= proof.size_bytes();
        self.requests.remove(&proof.request_id());
        self.expiries.remove(&(proof.request().expiry, *record));
        let requester = proof.request().requester;
        let waiting = self.requesters.get_mut(&requester).expect("each waiting proof counts for its requester");
        *waiting -= 1;
        if *waiting == 0 {
            self.requesters.remove(&requester);
        }
        Some(proof)
    }

    /// Removes what can no longer be included above `tip`, and returns it.
    pub fn expire(&mut self, tip: Height) -> Vec<VerifiedProof> {
        let expired: Vec<RecordId> =
            self.expiries.iter().take_while(|(expiry, _)| *expiry <= tip).map(|(_, record)| *record).collect();
        expired.iter().filter_map(|record| self.take(record)).collect()
    }

    /// A waiting proof.
    pub fn get(&self, record: &RecordId) -> Option<&VerifiedProof> {
        self.proofs.get(self.places.get(record)?)
    }

    /// The record that waits for a request.
    pub fn answer_to(&self, request: &RequestId) -> Option<RecordId> {
        self.requests.get(request).copied()
    }

    /// What a requester signed to pay in the proofs that wait. Looks at all of them.
    pub fn fees_of(&self, requester: &NodeId) -> NanoAria {
        let own = self.proofs.values().map(VerifiedProof::request).filter(|request| request.requester == *requester);
        NanoAria::new(own.fold(0, |sum, request| sum.saturating_add(request.max_fee.get())))
    }

    /// All that waits, oldest first, with its arrival.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &VerifiedProof)> {
        self.proofs.iter().map(|((arrival, _), proof)| (*arrival, proof))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.proofs.is_empty()
    }

    /// What waits, in numbers.
    pub fn status(&self) -> MempoolStatus {
        let oldest = self.proofs.keys().next().map(|(arrival, _)| *arrival);
        MempoolStatus { proofs: self.proofs.len(), bytes: self.bytes, oldest }
    }

    /// Its limits.
    pub fn limits(&self) -> MempoolLimits {
        self.limits
    }
}
