//! A store that begins with a snapshot goes on like any other, and says what it does not have.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::light::{FinalHeader, set_changes};
use aria_chain::record::RecordStatus;
use aria_chain::store::{
    MemoryStore, OpenOptions, Page, RecordFilter, Restoring, SledStore, Start, StateEntry, Store, StoreError, Tables,
};
use aria_chain::units::Height;

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, open, proof, validators, verify};

/// Height of the snapshot, and of the change of the set below it.
const AT: u64 = 6;
const CHANGE: u64 = 3;

/// A chain up to a height above the snapshot, the set of which changes below.
struct Made {
    chain: Chain,
    full: MemoryStore,
    /// The state right after the block of the snapshot.
    state: Vec<StateEntry>,
}

fn made() -> Made {
    let mut chain = Chain::new(4);
    let full = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    let mut state = Vec::new();
    for height in 1..=AT + 2 {
        let (block, changes) =
            if height == CHANGE { chain.hand_over(3) } else { chain.next(vec![proof(height), proof(100 + height)]) };
        full.commit(&block, &changes).unwrap();
        if height == AT {
            state = full.state_scan(b"", None, 100).unwrap();
        }
    }
    Made { chain, full, state }
}

fn final_block(full: &dyn Store, height: u64) -> aria_chain::block::FinalBlock {
    let stored = full.block(Height::new(height)).unwrap().unwrap();
    let set = full.validators(&stored.header.validators_hash).unwrap().unwrap();
    let chain_id = full.chain().chain_id.clone();
    let block = aria_chain::block::ProposedBlock::check(stored.header, stored.body, &chain_id, support::STAMP).unwrap();
    aria_chain::block::FinalBlock::new(block, stored.certificate.unwrap(), &set).unwrap()
}

fn fill<T: Tables>(made: &Made, restoring: Restoring<T>) -> impl Store + use<T> {
    let (first, second) = made.state.split_at(made.state.len() / 2);
    restoring.put_state(first.to_vec()).unwrap();
    restoring.put_state(second.to_vec()).unwrap();
    let headers = set_changes(&made.full, (Height::ZERO, Height::new(AT)), 1, 64).unwrap();
    assert_eq!(headers.len(), 1);
    let block = final_block(&made.full, AT);
    let (sets, state_root) = ([validators(3)], support::state_root(AT));
    let start = Start { genesis: &made.chain.genesis, block: &block, state_root, headers: &headers, sets: &sets };
    restoring.finish(&start).unwrap()
}

fn goes_on(made: &Made, store: &dyn Store) {
    let full = &made.full;
    assert_eq!((store.base(), store.tip().unwrap().height), (Height::new(AT), Height::new(AT)));
    assert_eq!(store.state_scan(b"", None, 100).unwrap(), made.state);
    for height in AT + 1..=AT + 2 {
        let block = final_block(full, height);
        let key = format!("height/{height:04}").into_bytes();
        let entries = vec![
            (key, Some(height.to_be_bytes().to_vec())),
            (b"supply".to_vec(), Some(height.to_string().into_bytes())),
        ];
        let changes = aria_chain::store::StateChanges {
            entries,
            state_root: support::state_root(height),
            // A record of before the snapshot is settled: not ours to know.
            statuses: vec![(proof(1).record_id(), RecordStatus::Verified)],
            ..Default::default()
        };
        store.commit(&block, &changes).unwrap();
    }
    // What it has is what the other has.
    for height in [0, AT, AT + 1, AT + 2].map(Height::new) {
        assert_eq!(store.block(height), full.block(height));
        assert_eq!(store.record_ids(height), full.record_ids(height));
    }
    assert_eq!(store.state_scan(b"", None, 100), full.state_scan(b"", None, 100));
    let listed = store.records(&RecordFilter::default(), &Page::default()).unwrap();
    assert_eq!(listed.records.len(), 6, "two records in each of three blocks");
    // What it does not have is missing, not damaged.
    for height in (1..AT).map(Height::new) {
        assert_eq!(store.block(height), Ok(None));
        assert_eq!(store.record_ids(height), Ok(Vec::new()));
        let is_kept = height.get() == CHANGE;
        assert_eq!(store.header(height).unwrap().is_some(), is_kept);
        assert_eq!(store.certificate(height).unwrap().is_some(), is_kept);
    }
    assert_eq!(store.record(&proof(1).record_id()), Ok(None));
    let changes = set_changes(store, (Height::ZERO, Height::new(AT + 2)), 1, 64).unwrap();
    assert_eq!(changes, set_changes(full, (Height::ZERO, Height::new(AT + 2)), 1, 64).unwrap());
    assert_eq!(FinalHeader::of(store, Height::new(AT)), FinalHeader::of(full, Height::new(AT)));
    assert_eq!(verify(store), Ok(3), "every whole block above genesis");
}

#[test]
fn a_store_begins_with_a_snapshot_and_goes_on() {
    let made = made();
    goes_on(&made, &fill(&made, MemoryStore::restore()));
    let folder = tempfile::tempdir().unwrap();
    drop(fill(&made, SledStore::restore(folder.path(), OpenOptions::default()).unwrap()));
    {
        let (store, report) = open(folder.path(), &made.chain).unwrap();
        assert!(!report.is_new);
        goes_on(&made, &store);
    }
    let (store, _) = open(folder.path(), &made.chain).unwrap();
    assert_eq!((store.base().get(), store.tip().unwrap().height.get()), (AT, AT + 2), "after a restart too");
    drop(store);
    let again = SledStore::restore(folder.path(), OpenOptions::default()).map(drop);
    assert!(matches!(again, Err(StoreError::NotEmpty { .. })), "a chain is not written over");
}

#[test]
fn a_store_that_was_not_finished_holds_no_chain() {
    let made = made();
    let folder = tempfile::tempdir().unwrap();
    let restoring = SledStore::restore(folder.path(), OpenOptions::default()).unwrap();
    restoring.put_state(made.state.clone()).unwrap();
    drop(restoring);
    let opened = SledStore::open_existing(folder.path(), OpenOptions::default()).map(drop);
    assert!(matches!(opened, Err(StoreError::Empty { .. })), "{opened:?}");
    let long = MemoryStore::restore().put_state(vec![(vec![7; 1_000], Vec::new())]);
    assert!(matches!(long, Err(StoreError::StateTooLong { .. })));
}
