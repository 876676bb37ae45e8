//! What a store does, on disk and in memory alike: commits, readers, listings, waiting proofs, and every refusal.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use aria_chain::block::{FinalBlock, GenesisBlock};
use aria_chain::ids::{BlockHash, ChainId, Digest, ModelId, RecordId};
use aria_chain::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use aria_chain::record::RecordStatus;
use aria_chain::store::{
    FaultKind, Health, LinkRules, MemoryStore, Order, Page, Pending, RecordFilter, StateChanges, Store, StoreError,
    Tip, verify_chain_links,
};
use aria_chain::units::{Height, Timestamp};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, Maker, STAMP, node, open, proof, state_root, validators, verify};

/// Runs a case on both stores.
fn on_both(case: impl Fn(&dyn Store, Chain)) {
    let chain = Chain::new(1);
    case(&MemoryStore::new(&chain.genesis, &chain.initial()).unwrap(), chain.clone());
    let folder = tempfile::tempdir().unwrap();
    let (store, report) = open(folder.path(), &chain).unwrap();
    assert!(report.is_new);
    case(&store, chain);
}

#[test]
fn a_new_store_holds_genesis() {
    on_both(|store, chain| {
        let genesis = &chain.genesis;
        let tip = Tip {
            height: Height::ZERO,
            hash: genesis.hash(),
            timestamp_ms: Timestamp::new(1_000),
            state_root: state_root(0),
        };
        assert_eq!(store.tip(), Ok(tip));
        assert_eq!(store.chain().genesis_hash, genesis.hash());
        assert_eq!(store.chain().chain_id.as_str(), "aria-test");
        let block = store.block(Height::ZERO).unwrap().unwrap();
        assert_eq!((&block.header, block.hash), (genesis.header(), genesis.hash()));
        assert!(block.certificate.is_none() && block.body.proofs.is_empty());
        assert_eq!(store.validators(&validators(1).hash()), Ok(Some(validators(1))));
        assert_eq!(store.state(b"supply"), Ok(Some(b"0".to_vec())));
        assert_eq!(store.health(), Health::Writing);
        assert_eq!(verify(store), Ok(1));
    });
}

#[test]
fn a_committed_block_is_found_by_all_its_names() {
    on_both(|store, mut chain| {
        let proofs = vec![proof(1), proof(2), proof(3)];
        let (block, changes) = chain.next(proofs.clone());
        store.commit(&block, &changes).unwrap();
        let one = Height::new(1);
        let tip = store.tip().unwrap();
        assert_eq!((tip.height, tip.hash, tip.state_root), (one, block.hash(), changes.state_root));
        assert_eq!(store.header(one), Ok(Some(block.header().clone())));
        assert_eq!(store.height_of(&block.hash()), Ok(Some(one)));
        assert_eq!(store.certificate(one), Ok(Some(block.certificate().clone())));
        let stored = store.block(one).unwrap().unwrap();
        assert_eq!((&stored.header, stored.hash), (block.header(), block.hash()));
        assert_eq!(stored.body, block.block().body());
        assert_eq!(stored.certificate.as_ref(), Some(block.certificate()));
        let ids: Vec<RecordId> = proofs.iter().map(|proof| proof.record_id()).collect();
        assert_eq!(store.record_ids(one), Ok(ids));
        for (index, proof) in (0u32..).zip(&proofs) {
            let entry = store.record(&proof.record_id()).unwrap().unwrap();
            assert_eq!((entry.id, entry.height, entry.index), (proof.record_id(), one, index));
            assert_eq!((entry.status, &entry.record), (RecordStatus::Included, proof.record()));
            assert_eq!(store.proof(&proof.record_id()), Ok(Some(proof.proof().clone())));
        }
        assert_eq!(store.state(b"supply"), Ok(Some(b"1".to_vec())));
        assert_eq!(verify(store), Ok(2));
    });
}

#[test]
fn what_is_not_there_is_nothing() {
    on_both(|store, _| {
        let (height, id) = (Height::new(1), RecordId::new([1; 32]));
        assert_eq!(store.header(height), Ok(None));
        assert_eq!(store.block(height), Ok(None));
        assert_eq!(store.certificate(height), Ok(None));
        assert_eq!(store.certificate(Height::ZERO), Ok(None));
        assert_eq!(store.height_of(&BlockHash::ZERO), Ok(None));
        assert_eq!(store.record(&id), Ok(None));
        assert_eq!(store.proof(&id), Ok(None));
        assert_eq!(store.record_ids(height), Ok(vec![]));
        assert_eq!(store.validators(&Digest::ZERO), Ok(None));
        assert_eq!(store.state(b"absent"), Ok(None));
        assert_eq!(store.pending(), Ok(vec![]));
        assert_eq!(store.records(&RecordFilter::default(), &Page::default()), Ok(Default::default()));
    });
}

/// A block that everyone signed, altered before, or the refusal of the store.
#[track_caller]
fn commit_refused(store: &dyn Store, chain: &Chain, change: impl FnOnce(&mut Chain), expected: StoreError) {
    let mut other = chain.clone();
    change(&mut other);
    let (block, changes) = other.next(Vec::new());
    assert_eq!(store.commit(&block, &changes), Err(expected));
    assert_eq!(store.health(), Health::Writing, "a refused block is no failure");
}

#[test]
fn only_the_next_block_is_taken() {
    on_both(|store, mut chain| {
        let (block, changes) = chain.next(vec![proof(1)]);
        store.commit(&block, &changes).unwrap();
        let tip = store.tip().unwrap();
        let again = StoreError::NotNext { got: Height::new(1), expected: Height::new(2) };
        assert_eq!(store.commit(&block, &changes), Err(again));
        let expected = StoreError::NotNext { got: Height::new(3), expected: Height::new(2) };
        commit_refused(store, &chain, |c| c.draft.height = Height::new(3), expected);
        let expected = StoreError::OtherParent { got: BlockHash::ZERO, expected: tip.hash };
        commit_refused(store, &chain, |c| c.draft.parent = BlockHash::ZERO, expected);
        let expected = StoreError::OtherState { got: Digest::ZERO, expected: tip.state_root };
        commit_refused(store, &chain, |c| c.draft.state_root = Digest::ZERO, expected);
        assert_eq!(store.tip(), Ok(tip));
        assert_eq!(verify(store), Ok(2));
    });
}

#[test]
fn a_record_is_in_one_block_only() {
    on_both(|store, mut chain| {
        let (block, changes) = chain.next(vec![proof(1)]);
        store.commit(&block, &changes).unwrap();
        let (block, changes) = chain.next(vec![proof(2), proof(1)]);
        let expected = StoreError::RecordTwice { record: proof(1).record_id() };
        assert_eq!(store.commit(&block, &changes), Err(expected));
        assert_eq!(store.record(&proof(2).record_id()), Ok(None), "nothing of a refused block is there");
    });
}

#[test]
fn state_entries_are_written_removed_and_bounded() {
    on_both(|store, mut chain| {
        let (block, mut changes) = chain.next(Vec::new());
        let longest = (vec![7; STATE_KEY_BYTES_MAX], Some(vec![8; STATE_VALUE_BYTES_MAX]));
        let refused = |entry: (Vec<u8>, Option<Vec<u8>>), part, max| {
            let mut changes = changes.clone();
            changes.entries.push(entry);
            let expected = StoreError::StateTooLong { part, got: max + 1, max };
            assert_eq!(store.commit(&block, &changes), Err(expected));
        };
        refused((vec![7; STATE_KEY_BYTES_MAX + 1], None), "key", STATE_KEY_BYTES_MAX);
        refused((vec![7], Some(vec![8; STATE_VALUE_BYTES_MAX + 1])), "value", STATE_VALUE_BYTES_MAX);
        changes.entries.push(longest.clone());
        changes.entries.push((b"supply".to_vec(), None));
        changes.entries.push((b"never there".to_vec(), None));
        store.commit(&block, &changes).unwrap();
        assert_eq!(store.state(&longest.0), Ok(longest.1));
        assert_eq!(store.state(b"supply"), Ok(None));
    });
}

#[test]
fn state_is_scanned_by_prefix_in_pages() {
    on_both(|store, mut chain| {
        let (block, mut changes) = chain.next(Vec::new());
        changes.entries =
            [&b"a"[..], b"b", b"b/1", b"b/2", b"b/3", b"c"].map(|k| (k.to_vec(), Some(k.to_vec()))).into();
        store.commit(&block, &changes).unwrap();
        let keys = |prefix: &[u8], after: Option<&[u8]>, limit| {
            let entries = store.state_scan(prefix, after, limit).unwrap();
            entries.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(keys(b"b", None, 9), ["b", "b/1", "b/2", "b/3"]);
        assert_eq!(keys(b"b/", None, 2), ["b/1", "b/2"]);
        assert_eq!(keys(b"b/", Some(b"b/2"), 2), ["b/3"]);
        assert_eq!(keys(b"b/", Some(b"a"), 1), ["b/1"]);
        assert_eq!(keys(b"b/", Some(b"b/3"), 9), [""; 0]);
        assert_eq!(keys(b"", None, 99), ["a", "b", "b/1", "b/2", "b/3", "c", "supply"]);
        assert_eq!(keys(b"", None, 0), [""; 0]);
        assert_eq!(store.state_scan(b"c", None, 1), Ok(vec![(b"c".to_vec(), b"c".to_vec())]));
    });
}

#[test]
fn waiting_proofs_keep_their_order_until_a_block_takes_them() {
    on_both(|store, mut chain| {
        for nonce in [3, 1, 2] {
            assert_eq!(store.put_pending(&proof(nonce)), Ok(Pending::Added));
        }
        assert_eq!(store.put_pending(&proof(1)), Ok(Pending::Known));
        let nonces = || store.pending().unwrap().iter().map(|proof| proof.request.nonce).collect::<Vec<_>>();
        assert_eq!(nonces(), [3, 1, 2]);
        let (block, changes) = chain.next(vec![proof(1), proof(9)]);
        store.commit(&block, &changes).unwrap();
        assert_eq!(nonces(), [3, 2]);
        assert_eq!(store.put_pending(&proof(1)), Ok(Pending::Final), "what is in a block never waits again");
        assert_eq!(store.put_pending(&proof(9)), Ok(Pending::Final));
        store.drop_pending(&[proof(3).record_id(), proof(7).record_id()]).unwrap();
        assert_eq!(nonces(), [2]);
        assert_eq!(store.put_pending(&proof(3)), Ok(Pending::Added));
        assert_eq!(nonces(), [2, 3]);
    });
}

#[test]
fn the_address_book_is_replaced_as_a_whole() {
    on_both(|store, _| {
        let line = |key: u8, value: &str| (vec![1, key], value.as_bytes().to_vec());
        assert_eq!(store.peers().unwrap(), []);
        store.put_peers(&[line(2, "two"), line(1, "one")]).unwrap();
        assert_eq!(store.peers().unwrap(), [line(1, "one"), line(2, "two")]);
        store.put_peers(&[line(2, "another"), line(3, "three")]).unwrap();
        assert_eq!(store.peers().unwrap(), [line(2, "another"), line(3, "three")]);
        assert!(store.state_scan(b"", None, 100).unwrap().iter().all(|(key, _)| *key != vec![1, 2]), "it is no state");
    });
}

#[test]
fn statuses_follow_the_changes() {
    on_both(|store, mut chain| {
        let (block, mut changes) = chain.next(vec![proof(1), proof(2)]);
        let (first, second) = (proof(1).record_id(), proof(2).record_id());
        changes.statuses = vec![(second, RecordStatus::SelfAudited)];
        store.commit(&block, &changes).unwrap();
        let status = |id| store.record(id).unwrap().unwrap().status;
        assert_eq!((status(&first), status(&second)), (RecordStatus::Included, RecordStatus::SelfAudited));
        let (block, mut changes) = chain.next(Vec::new());
        let unknown = RecordId::new([1; 32]);
        changes.statuses = vec![(unknown, RecordStatus::Verified)];
        assert_eq!(store.commit(&block, &changes), Err(StoreError::UnknownRecord { record: unknown }));
        changes.statuses = vec![(first, RecordStatus::Verified)];
        store.commit(&block, &changes).unwrap();
        assert_eq!(status(&first), RecordStatus::Verified);
        let of_status = |status| {
            let filter = RecordFilter { status: Some(status), ..RecordFilter::default() };
            let page = store.records(&filter, &Page::default()).unwrap();
            page.records.iter().map(|entry| entry.id).collect::<Vec<_>>()
        };
        assert_eq!(of_status(RecordStatus::Verified), [first]);
        assert_eq!(of_status(RecordStatus::SelfAudited), [second]);
        assert_eq!(of_status(RecordStatus::Included), []);
    });
}

/// Twelve records in four blocks: nonces 10 h + i, models 8 or 9, nodes 2, 3 and 4.
fn listing(store: &dyn Store, chain: &mut Chain) {
    for height in 1..=4u64 {
        let proofs = (0..3u64).map(|index| {
            let stages = if index == 1 { vec![(4, 0, 24)] } else { vec![(2, 0, 12), (3, 12, 24)] };
            let model = if height == 3 { 8 } else { 9 };
            Maker { stages, model, ..Maker::nonce(height * 10 + index) }.verified()
        });
        let (block, mut changes) = chain.next(proofs.collect());
        let first = block.block().proofs()[0].record_id();
        changes.statuses = vec![(first, RecordStatus::Verified)];
        store.commit(&block, &changes).unwrap();
    }
}

/// Nonces of all records of a list, read in pages.
fn nonces(store: &dyn Store, filter: &RecordFilter, order: Order, limit: usize) -> Vec<u64> {
    let mut page = Page { limit, after: None, order };
    let mut nonces = Vec::new();
    loop {
        let found = store.records(filter, &page).unwrap();
        assert!(found.records.len() <= limit);
        for entry in found.records {
            let proof = store.proof(&entry.id).unwrap().unwrap();
            assert_eq!((&proof.record, entry.height.get()), (&entry.record, proof.request.nonce / 10));
            nonces.push(proof.request.nonce);
        }
        page.after = found.next;
        if page.after.is_none() {
            return nonces;
        }
    }
}

#[test]
fn records_are_listed_by_every_filter_order_and_page_size() {
    on_both(|store, mut chain| {
        listing(store, &mut chain);
        let all = RecordFilter::default;
        let (from, to) = (Some(Height::new(2)), Some(Height::new(3)));
        let cases: Vec<(RecordFilter, Vec<u64>)> = vec![
            (all(), vec![10, 11, 12, 20, 21, 22, 30, 31, 32, 40, 41, 42]),
            (RecordFilter { node: Some(node(4)), ..all() }, vec![11, 21, 31, 41]),
            (RecordFilter { node: Some(node(3)), ..all() }, vec![10, 12, 20, 22, 30, 32, 40, 42]),
            (RecordFilter { node: Some(node(5)), ..all() }, vec![]),
            (RecordFilter { model: Some(ModelId::new([8; 32])), ..all() }, vec![30, 31, 32]),
            (RecordFilter { status: Some(RecordStatus::Verified), ..all() }, vec![10, 20, 30, 40]),
            (RecordFilter { from, ..all() }, vec![20, 21, 22, 30, 31, 32, 40, 41, 42]),
            (RecordFilter { from, to, ..all() }, vec![20, 21, 22, 30, 31, 32]),
            (RecordFilter { to, node: Some(node(4)), ..all() }, vec![11, 21, 31]),
            (RecordFilter { from: Some(Height::new(9)), ..all() }, vec![]),
            (RecordFilter { from: to, to: from, ..all() }, vec![]),
            (RecordFilter { node: Some(node(2)), status: Some(RecordStatus::Verified), ..all() }, vec![10, 20, 30, 40]),
            (RecordFilter { node: Some(node(4)), status: Some(RecordStatus::Verified), ..all() }, vec![]),
            (
                RecordFilter {
                    model: Some(ModelId::new([9; 32])),
                    status: Some(RecordStatus::Included),
                    to: Some(Height::new(2)),
                    ..all()
                },
                vec![11, 12, 21, 22],
            ),
        ];
        for (filter, expected) in cases {
            for limit in [1, 2, 3, 5, 100] {
                assert_eq!(nonces(store, &filter, Order::Ascending, limit), expected, "{filter:?}");
                let backwards: Vec<u64> = expected.iter().rev().copied().collect();
                assert_eq!(nonces(store, &filter, Order::Descending, limit), backwards, "{filter:?}");
            }
        }
    });
}

#[test]
fn a_cursor_stays_the_same_place_while_blocks_come() {
    on_both(|store, mut chain| {
        listing(store, &mut chain);
        let page = Page { limit: 4, after: None, order: Order::Descending };
        let first = store.records(&RecordFilter::default(), &page).unwrap();
        let (block, changes) = chain.next(vec![proof(50)]);
        store.commit(&block, &changes).unwrap();
        let next = Page { after: first.next.unwrap().to_string().parse().ok(), ..page };
        let second = store.records(&RecordFilter::default(), &next).unwrap();
        let places: Vec<(u64, u32)> = second.records.iter().map(|entry| (entry.height.get(), entry.index)).collect();
        assert_eq!(places, [(3, 1), (3, 0), (2, 2), (2, 1)]);
        // Limits are cut, not refused.
        let huge = Page { limit: 0, after: None, order: Order::Ascending };
        assert_eq!(store.records(&RecordFilter::default(), &huge).unwrap().records.len(), 1);
        let huge = Page { limit: usize::MAX, ..huge };
        assert_eq!(store.records(&RecordFilter::default(), &huge).unwrap().records.len(), 13);
    });
}

#[test]
fn a_certificate_of_many_is_stored_in_pieces() {
    let chain = Chain::new(100);
    let store = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    let (block, changes) = chain.clone().next(Vec::new());
    store.commit(&block, &changes).unwrap();
    assert_eq!(store.certificate(Height::new(1)), Ok(Some(block.certificate().clone())));
    assert_eq!(store.validators(&validators(100).hash()), Ok(Some(validators(100))));
    assert_eq!(verify(&store), Ok(2));
}

#[test]
fn a_store_is_for_one_chain() {
    let chain = Chain::new(1);
    let store = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    let name = ChainId::new("aria-other").unwrap();
    let genesis = GenesisBlock::new(name.clone(), Timestamp::new(1_000), validators(1), state_root(0));
    let mut other = chain.clone();
    other.draft.chain_id = name.clone();
    other.draft.parent = genesis.hash();
    let block = other.propose(Vec::new());
    let vote = aria_chain::certificate::Vote::sign(
        &support::key(101),
        &name,
        Height::new(1),
        aria_chain::units::Round::ZERO,
        block.hash(),
    );
    let certificate =
        aria_chain::certificate::CommitCertificate::gather(vote.height, vote.round, block.hash(), &[vote]);
    let foreign = FinalBlock::new(block, certificate, &validators(1)).unwrap();
    let expected = StoreError::ForeignBlock { got: name, expected: chain.genesis.header().chain_id.clone() };
    assert_eq!(store.commit(&foreign, &StateChanges::default()), Err(expected));
    let wrong = StateChanges::default();
    let refused = MemoryStore::new(&chain.genesis, &wrong).err();
    assert_eq!(refused, Some(StoreError::OtherState { got: state_root(0), expected: Digest::ZERO }));
}

#[test]
fn links_are_verified_in_any_range_with_progress() {
    on_both(|store, mut chain| {
        listing(store, &mut chain);
        let rules = LinkRules { stamp_zero_digits: STAMP };
        let mut seen = Vec::new();
        let mut progress = |height: Height| seen.push(height.get());
        let checked = verify_chain_links(store, Height::new(2), Height::new(3), rules, &mut progress);
        assert_eq!(checked, Ok(2));
        assert_eq!(seen, [2, 3]);
        assert_eq!(verify_chain_links(store, Height::new(9), Height::new(12), rules, &mut |_| {}), Ok(0));
        let strict = LinkRules { stamp_zero_digits: 6 };
        let fault = verify_chain_links(store, Height::ZERO, Height::new(9), strict, &mut |_| {}).unwrap_err();
        assert_eq!(fault.height, Height::new(1), "genesis has no stamp");
        assert!(matches!(fault.kind, FaultKind::Block(_)), "{fault}");
        assert!(fault.to_string().starts_with("height 1: block hash"), "{fault}");
    });
}

#[test]
fn readers_see_whole_blocks_while_a_writer_commits() {
    on_both(|store, mut chain| {
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let read = || {
                let mut last = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let tip = store.tip().unwrap();
                    assert!(tip.height.get() >= last, "the tip only rises");
                    last = tip.height.get();
                    let block = store.block(tip.height).unwrap().unwrap();
                    assert_eq!(block.hash, tip.hash);
                    assert_eq!(store.height_of(&tip.hash), Ok(Some(tip.height)));
                    let page = store.records(&RecordFilter::default(), &Page::default()).unwrap();
                    assert!(page.records.len() >= usize::try_from(last).unwrap());
                }
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            for height in 1..=25 {
                let (block, changes) = chain.next(vec![proof(height)]);
                store.commit(&block, &changes).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(verify(store), Ok(26));
    });
}
