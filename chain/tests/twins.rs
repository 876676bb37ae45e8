//! The store on disk and its twin in memory do the same, whatever comes, also across restarts.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::ids::RecordId;
use aria_chain::record::RecordStatus;
use aria_chain::store::{MemoryStore, Order, Page, RecordFilter, SledStore, Store};
use aria_chain::units::Height;
use proptest::prelude::*;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, open, proof, verify};

#[derive(Clone, Debug)]
enum Step {
    /// A proof of this nonce arrives.
    Arrive(u64),
    /// Proofs of these nonces are forgotten.
    Drop(Vec<u64>),
    /// A block of these nonces; the status of one record changes.
    Commit(Vec<u64>, Option<(u64, usize)>),
    /// The process ends and starts again.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let nonce = 0u64..8;
    let arrive = nonce.clone().prop_map(Step::Arrive);
    let forget = prop::collection::vec(nonce.clone(), 0..3).prop_map(Step::Drop);
    let commit = (prop::collection::btree_set(nonce.clone(), 0..4), prop::option::of((nonce, 0usize..6)))
        .prop_map(|(nonces, status)| Step::Commit(nonces.into_iter().collect(), status));
    prop::collection::vec(prop_oneof![4 => arrive, 1 => forget, 4 => commit, 1 => Just(Step::Restart)], 1..14)
}

/// All that a store tells, as one text.
fn view(store: &dyn Store) -> String {
    let tip = store.tip().unwrap();
    let heights = (0..=tip.height.get() + 1).map(Height::new);
    let blocks: Vec<_> = heights.clone().map(|height| store.block(height)).collect();
    let ids: Vec<Vec<RecordId>> = heights.map(|height| store.record_ids(height).unwrap()).collect();
    let entries: Vec<_> = (0..8).map(|nonce| store.record(&proof(nonce).record_id())).collect();
    let page = Page { limit: 3, after: None, order: Order::Ascending };
    let by_status = RecordStatus::ALL.map(|status| {
        let filter = RecordFilter { status: Some(status), ..RecordFilter::default() };
        store.records(&filter, &page)
    });
    let listed = store.records(&RecordFilter::default(), &page);
    let state = store.state_scan(b"", None, 100);
    format!("{tip:?} {blocks:?} {ids:?} {entries:?} {by_status:?} {listed:?} {state:?} {:?}", store.pending())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_tell_the_same(steps in steps()) {
        let mut chain = Chain::new(1);
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
        let mut disk: Option<SledStore> = Some(open(folder.path(), &chain).unwrap().0);
        for step in steps {
            let sled = disk.as_ref().unwrap();
            match step {
                Step::Arrive(nonce) => {
                    let proof = proof(nonce);
                    prop_assert_eq!(memory.put_pending(&proof), sled.put_pending(&proof));
                }
                Step::Drop(nonces) => {
                    let ids: Vec<RecordId> = nonces.iter().map(|nonce| proof(*nonce).record_id()).collect();
                    prop_assert_eq!(memory.drop_pending(&ids), sled.drop_pending(&ids));
                }
                Step::Commit(nonces, status) => {
                    let before = chain.clone();
                    let (block, mut changes) = chain.next(nonces.into_iter().map(proof).collect());
                    let change = |(nonce, status): (u64, usize)| (proof(nonce).record_id(), RecordStatus::ALL[status]);
                    changes.statuses.extend(status.map(change));
                    let committed = memory.commit(&block, &changes);
                    prop_assert_eq!(&committed, &sled.commit(&block, &changes));
                    if committed.is_err() {
                        chain = before;
                    }
                }
                Step::Restart => {
                    drop(disk.take());
                    let (store, report) = open(folder.path(), &chain).unwrap();
                    prop_assert!(!report.is_new && report.caches_moved.is_empty());
                    disk = Some(store);
                }
            }
            let sled = disk.as_ref().unwrap();
            prop_assert_eq!(view(&memory), view(sled));
            prop_assert_eq!(memory.health(), sled.health());
        }
        let sled = disk.as_ref().unwrap();
        prop_assert_eq!(verify(sled), verify(&memory));
        prop_assert!(verify(sled).is_ok());
    }
}
