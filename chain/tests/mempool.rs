//! The mempool: one case per admission rule, order, expiry, and a model that it must equal.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::error::AdmissionError;
use aria_chain::ids::RecordId;
use aria_chain::mempool::{Mempool, MempoolLimits, MempoolStatus, SelectLimits};
use aria_chain::proof::VerifiedProof;
use aria_chain::units::{Height, Microjoules, Timestamp};
use proptest::prelude::*;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Maker, chain_id, node, proof};

const NOW: Timestamp = Timestamp::new(5_000);

fn pool(limits: MempoolLimits) -> Mempool {
    Mempool::new(limits)
}

fn insert(pool: &mut Mempool, proof: &VerifiedProof) -> Result<(), AdmissionError> {
    pool.insert(proof.clone(), Height::new(10), NOW)
}

/// Another answer to the request of `proof(nonce)`.
fn other_answer(nonce: u64) -> VerifiedProof {
    let maker = Maker::nonce(nonce);
    let mut record = maker.record();
    record.energy_uj = Microjoules::new(1);
    maker.sign(maker.request(), record).verify(&chain_id()).unwrap()
}

fn ids(proofs: &[VerifiedProof]) -> Vec<RecordId> {
    proofs.iter().map(VerifiedProof::record_id).collect()
}

#[test]
fn what_waits_already_is_refused() {
    let mut pool = Mempool::default();
    insert(&mut pool, &proof(1)).unwrap();
    let record = proof(1).record_id();
    let refused = insert(&mut pool, &proof(1)).unwrap_err();
    assert_eq!((refused.rule(), refused), ("DuplicateRecord", AdmissionError::DuplicateRecord { record }));
    let refused = insert(&mut pool, &other_answer(1)).unwrap_err();
    let request = proof(1).request_id();
    assert_eq!(refused.rule(), "DuplicateRequest");
    assert_eq!(refused, AdmissionError::DuplicateRequest { request, record });
    assert_eq!(pool.answer_to(&request), Some(record));
    assert_eq!(pool.get(&record), Some(&proof(1)));
    assert_eq!(pool.status().proofs, 1);
}

#[test]
fn what_can_no_longer_be_included_is_refused() {
    let expires = |expiry| Maker { expiry, ..Maker::default() }.verified();
    let mut pool = Mempool::default();
    let refused = insert(&mut pool, &expires(10)).unwrap_err();
    assert_eq!(refused, AdmissionError::Expired { expiry: Height::new(10), next: Height::new(11) });
    assert_eq!(refused.rule(), "Expired");
    insert(&mut pool, &expires(11)).unwrap();
    assert_eq!(pool.expire(Height::new(10)), []);
    assert_eq!(pool.expire(Height::new(11)), [expires(11)]);
    assert!(pool.is_empty());
}

#[test]
fn a_full_pool_refuses_and_keeps_what_it_has() {
    let size = proof(1).size_bytes();
    let limits = MempoolLimits { proofs_max: 2, bytes_max: usize::MAX / 2, per_requester_max: 9 };
    let mut full = pool(limits);
    insert(&mut full, &proof(1)).unwrap();
    assert!(full.has_room(&node(1)));
    insert(&mut full, &proof(2)).unwrap();
    assert!(!full.has_room(&node(1)));
    let refused = insert(&mut full, &proof(3)).unwrap_err();
    assert_eq!((refused.rule(), refused), ("Full", AdmissionError::Full { max: 2 }));
    assert_eq!(full.status(), MempoolStatus { proofs: 2, bytes: 2 * size, oldest: Some(NOW) });
    assert_eq!(full.limits(), limits);

    let max = 2 * size;
    let mut full = pool(MempoolLimits { bytes_max: max, ..MempoolLimits::default() });
    insert(&mut full, &proof(1)).unwrap();
    assert!(!full.has_room(&node(1)), "room for a proof of any size is needed");
    insert(&mut full, &proof(2)).unwrap();
    let refused = insert(&mut full, &proof(3)).unwrap_err();
    assert_eq!((refused.rule(), refused), ("BytesFull", AdmissionError::BytesFull { bytes: max, max }));
}

#[test]
fn nobody_fills_the_pool_alone() {
    let mut pool = pool(MempoolLimits { per_requester_max: 1, ..MempoolLimits::default() });
    insert(&mut pool, &proof(1)).unwrap();
    let refused = insert(&mut pool, &proof(2)).unwrap_err();
    assert_eq!(refused, AdmissionError::RequesterFull { requester: node(1), max: 1 });
    assert_eq!(refused.rule(), "RequesterFull");
    assert!(!pool.has_room(&node(1)) && pool.has_room(&node(4)));
    insert(&mut pool, &Maker { requester: 4, ..Maker::default() }.verified()).unwrap();
    pool.take(&proof(1).record_id()).unwrap();
    insert(&mut pool, &proof(2)).unwrap();
}

#[test]
fn the_oldest_go_first_and_equal_arrivals_by_id() {
    let mut pool = Mempool::default();
    let arrivals = [(1, 30), (2, 10), (3, 20), (4, 20), (5, 20)];
    for (nonce, now) in arrivals {
        pool.insert(proof(nonce), Height::ZERO, Timestamp::new(now)).unwrap();
    }
    let mut middle = vec![proof(3).record_id(), proof(4).record_id(), proof(5).record_id()];
    middle.sort();
    let expected = [vec![proof(2).record_id()], middle, vec![proof(1).record_id()]].concat();
    assert_eq!(ids(&pool.select(SelectLimits::default())), expected);
    let listed: Vec<RecordId> = pool.iter().map(|(_, proof)| proof.record_id()).collect();
    assert_eq!(listed, expected);
    assert_eq!(pool.iter().next().unwrap().0, Timestamp::new(10));

    let size = proof(1).size_bytes();
    let select = |records_max, bytes_max| pool.select(SelectLimits { records_max, bytes_max }).len();
    assert_eq!(select(2, usize::MAX), 2);
    assert_eq!(select(9, 3 * size), 3);
    assert_eq!(select(9, 3 * size - 1), 2);
    assert_eq!(select(0, usize::MAX), 0);
    assert_eq!(pool.status().proofs, 5, "selecting removes nothing");
}

#[test]
fn a_block_removes_every_answer_to_its_requests() {
    let mut pool = Mempool::default();
    insert(&mut pool, &proof(1)).unwrap();
    insert(&mut pool, &proof(2)).unwrap();
    pool.remove([&other_answer(1), &proof(7)]);
    assert_eq!(ids(&pool.select(SelectLimits::default())), [proof(2).record_id()]);
    assert_eq!(pool.take(&proof(1).record_id()), None);
    pool.remove([&proof(2)]);
    assert_eq!(pool.status(), MempoolStatus::default());
    insert(&mut pool, &proof(1)).unwrap();
}

/// What the pool does, written as plainly as possible.
#[derive(Default)]
struct Model {
    waiting: Vec<(u64, VerifiedProof)>,
}

impl Model {
    fn insert(&mut self, proof: &VerifiedProof, tip: u64, now: u64) -> bool {
        let is_known = self.waiting.iter().any(|(_, other)| other.request_id() == proof.request_id());
        let from_same = self.waiting.iter().filter(|(_, other)| other.request().requester == proof.request().requester);
        let taken = !is_known && proof.request().expiry.get() > tip && from_same.count() < 3 && self.waiting.len() < 5;
        if taken {
            self.waiting.push((now, proof.clone()));
            self.waiting.sort_by_key(|(now, proof)| (*now, proof.record_id()));
        }
        taken
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { requester: u8, nonce: u64, other: bool, now: u64 },
    Remove { requester: u8, nonce: u64 },
    Expire { tip: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let insert = (1u8..3, 0u64..6, any::<bool>(), 0u64..4).prop_map(|(requester, nonce, other, now)| Step::Insert {
        requester,
        nonce,
        other,
        now,
    });
    let remove = (1u8..3, 0u64..6).prop_map(|(requester, nonce)| Step::Remove { requester, nonce });
    let expire = (0u64..8).prop_map(|tip| Step::Expire { tip });
    prop::collection::vec(prop_oneof![4 => insert, 2 => remove, 1 => expire], 1..40)
}

fn made(requester: u8, nonce: u64, other: bool) -> VerifiedProof {
    let maker = Maker { requester, nonce, expiry: nonce + 2, stages: vec![(2, 0, 1)], ..Maker::default() };
    let mut record = maker.record();
    record.energy_uj = Microjoules::new(u64::from(other));
    maker.sign(maker.request(), record).verify(&chain_id()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_equals_its_model(steps in steps()) {
        let limits = MempoolLimits { proofs_max: 5, bytes_max: 1 << 20, per_requester_max: 3 };
        let mut pool = Mempool::new(limits);
        let mut model = Model::default();
        let mut tip = 0;
        for step in steps {
            match step {
                Step::Insert { requester, nonce, other, now } => {
                    let proof = made(requester, nonce, other);
                    let taken = pool.insert(proof.clone(), Height::new(tip), Timestamp::new(now)).is_ok();
                    prop_assert_eq!(taken, model.insert(&proof, tip, now));
                }
                Step::Remove { requester, nonce } => {
                    let proof = made(requester, nonce, false);
                    pool.remove([&proof]);
                    model.waiting.retain(|(_, other)| other.request_id() != proof.request_id());
                }
                Step::Expire { tip: at } => {
                    tip = tip.max(at);
                    pool.expire(Height::new(tip));
                    model.waiting.retain(|(_, proof)| proof.request().expiry.get() > tip);
                }
            }
            let expected: Vec<RecordId> = model.waiting.iter().map(|(_, proof)| proof.record_id()).collect();
            prop_assert_eq!(ids(&pool.select(SelectLimits::default())), expected);
            let bytes: usize = model.waiting.iter().map(|(_, proof)| proof.size_bytes()).sum();
            prop_assert_eq!(pool.status().bytes, bytes);
        }
    }
}
