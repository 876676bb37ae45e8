//! Transactions: what is refused by itself, how they wait, and how blocks and stores keep them.

#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing fails, which is what a test is for")]

use aria_chain::block::{Body, ProposedBlock, VerifiedBody};
use aria_chain::codec::Versioned;
use aria_chain::error::{AdmissionError, BlockError, TransactionError};
use aria_chain::ids::{ChainId, ModelId, TransactionId};
use aria_chain::limits::{
    BLOCK_TRANSACTIONS_MAX, DELIVERY_PART_BYTES_MAX, DELIVERY_PARTS_MAX, MEMPOOL_PER_SENDER_MAX,
    MEMPOOL_SENDER_BYTES_MAX, MEMPOOL_TRANSACTION_BYTES_MAX, TRANSACTION_BYTES_MAX,
};
use aria_chain::mempool::transactions::Transactions;
use aria_chain::model::{ModelName, Shape, ShapeError};
use aria_chain::store::{MemoryStore, Pending, Store};
use aria_chain::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use aria_chain::units::{Height, NanoAria, Timestamp};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, SHAPE, STAMP, chain_id, node, open, proof, register, sign_transaction, transfer, verify};

fn changed(change: impl FnOnce(&mut Transaction)) -> SignedTransaction {
    let mut transaction = transfer(1, 2, 0).transaction().clone();
    change(&mut transaction);
    sign_transaction(1, transaction)
}

#[test]
fn a_transaction_counts_only_on_its_chain_and_by_its_sender() {
    let good = transfer(1, 2, 0).signed().clone();
    let other = ChainId::new("other").unwrap();
    let foreign = TransactionError::Chain { got: chain_id(), expected: other.clone() };
    assert_eq!(good.clone().verify(&other), Err(foreign));
    let nothing = changed(|transaction| transaction.action = Action::Bond { amount: NanoAria::ZERO });
    assert_eq!(nothing.verify(&chain_id()), Err(TransactionError::NoAmount));
    // Each field is signed.
    let changes: [fn(&mut Transaction); 5] = [
        |transaction| transaction.sender = node(3),
        |transaction| transaction.nonce += 1,
        |transaction| transaction.fee = NanoAria::new(1),
        |transaction| transaction.expiry = Height::new(1),
        |transaction| transaction.action = Action::Transfer { to: node(9), amount: NanoAria::new(1) },
    ];
    for change in changes {
        let mut altered = good.clone();
        change(&mut altered.transaction);
        let unsigned =
            TransactionError::Unsigned { transaction: altered.transaction.id(), sender: altered.transaction.sender };
        assert_eq!(altered.verify(&chain_id()), Err(unsigned));
    }
    // A signature over another kind of thing with the same bytes is none.
    let id = good.transaction.id();
    let signature = support::key(1).sign_request(&chain_id(), &aria_chain::ids::RequestId::new(*id.as_bytes()));
    assert!(SignedTransaction { signature, ..good }.verify(&chain_id()).is_err());
}

#[test]
fn only_a_possible_shape_is_registered() {
    let verified = |shape: Shape| register(1, "a", shape).verify(&chain_id()).map(|_| ());
    assert_eq!(verified(SHAPE), Ok(()));
    let zero = TransactionError::Shape(ShapeError::Zero { field: "ffn" });
    assert_eq!(verified(Shape { ffn: 0, ..SHAPE }), Err(zero));
    let groups = TransactionError::Shape(ShapeError::HeadGroups { heads: 4, kv_heads: 3 });
    assert_eq!(verified(Shape { kv_heads: 3, ..SHAPE }), Err(groups));
    let large = TransactionError::Shape(ShapeError::TooLarge);
    assert_eq!(verified(Shape { vocab: u32::MAX, dim: u32::MAX, ..SHAPE }), Err(large));
    let signed = register(1, "a", SHAPE);
    let mut altered = signed.clone();
    altered.transaction.action =
        Action::RegisterModel { model: ModelId::new([7; 32]), name: ModelName::new("b").unwrap(), shape: SHAPE };
    assert!(matches!(altered.verify(&chain_id()), Err(TransactionError::Unsigned { .. })));
    assert_eq!((signed.transaction.action.name(), signed.transaction.action.amount()), ("register_model", None));
}

/// A part of a payload, as long as this.
fn part(from: u8, nonce: u64, length: usize) -> VerifiedTransaction {
    let sealed = vec![5; length];
    let action = Action::Deliver { height: Height::new(9), index: 3, part: 0, parts: 2, sealed };
    support::order(from, nonce, action)
}

#[test]
fn a_part_of_a_payload_is_one_of_some_and_not_too_long() {
    let verified = |part: u8, parts: u8, length: usize| {
        let sealed = vec![5; length];
        let action = Action::Deliver { height: Height::new(9), index: 3, part, parts, sealed };
        changed(|transaction| transaction.action = action).verify(&chain_id()).map(drop)
    };
    let most = DELIVERY_PART_BYTES_MAX;
    assert_eq!(verified(DELIVERY_PARTS_MAX - 1, DELIVERY_PARTS_MAX, most), Ok(()));
    assert_eq!(verified(0, 0, 1), Err(TransactionError::Parts { parts: 0 }));
    let many = DELIVERY_PARTS_MAX + 1;
    assert_eq!(verified(0, many, 1), Err(TransactionError::Parts { parts: many }));
    assert_eq!(verified(2, 2, 1), Err(TransactionError::Part { part: 2, parts: 2 }));
    assert_eq!(verified(0, 1, 0), Err(TransactionError::PartBytes { got: 0 }));
    assert_eq!(verified(0, 1, most + 1), Err(TransactionError::PartBytes { got: most + 1 }));
    // A longer one is not even read.
    let signed = changed(|transaction| {
        let sealed = vec![5; most + 1];
        transaction.action = Action::Deliver { height: Height::new(9), index: 3, part: 0, parts: 1, sealed };
    });
    let refused = SignedTransaction::decode(&signed.encode()).unwrap_err().to_string();
    assert!(refused.contains("sealed has 3585 items, at most 3584"), "{refused}");
}

#[test]
fn the_longest_part_fits_a_transaction_of_the_most_places() {
    let mut signed = part(1, 0, DELIVERY_PART_BYTES_MAX).signed().clone();
    signed.transaction.chain_id = ChainId::new("x".repeat(48)).unwrap();
    let bytes = signed.encode();
    assert_eq!((bytes.len(), SignedTransaction::decode(&bytes)), (3_776, Ok(signed)));
    assert!(bytes.len() <= TRANSACTION_BYTES_MAX);
    assert_eq!((part(1, 0, DELIVERY_PART_BYTES_MAX).places(), transfer(1, 2, 0).places()), (12, 1));
}

#[test]
fn bytes_that_wait_are_bounded_for_each_account_and_together() {
    let long = |from: u8, nonce: u64| part(from, nonce, DELIVERY_PART_BYTES_MAX);
    let (size, mut waiting) = (long(1, 0).size_bytes(), Transactions::default());
    let most = u64::try_from(MEMPOOL_SENDER_BYTES_MAX / size).unwrap();
    let mut insert = |from: u8, nonce: u64| waiting.insert(long(from, nonce), (Height::ZERO, 0), Timestamp::ZERO);
    (0..most).for_each(|nonce| insert(1, nonce).unwrap());
    let bytes = usize::try_from(most).unwrap() * size;
    let full = AdmissionError::SenderBytesFull { sender: node(1), bytes, max: MEMPOOL_SENDER_BYTES_MAX };
    assert_eq!(insert(1, most), Err(full));
    let (accounts, mut held) = (2..=250, bytes);
    let refused = accounts.flat_map(|from| (0..most).map(move |nonce| (from, nonce))).find_map(|(from, nonce)| {
        let refused = insert(from, nonce).err();
        held += if refused.is_none() { size } else { 0 };
        refused
    });
    let full = AdmissionError::TransactionBytesFull { bytes: held, max: MEMPOOL_TRANSACTION_BYTES_MAX };
    assert_eq!(refused, Some(full));
    // What went makes room.
    waiting.settle(&[long(1, 0)]);
    assert_eq!(waiting.check(&long(251, 0), (Height::ZERO, 0)), Ok(()));
}

fn pool(transactions: &[VerifiedTransaction]) -> Transactions {
    let mut pool = Transactions::default();
    for (arrival, transaction) in (1..).zip(transactions) {
        let nonce = transaction.transaction().nonce;
        pool.insert(transaction.clone(), (Height::ZERO, nonce), Timestamp::new(arrival)).unwrap();
    }
    pool
}

fn with_fee(from: u8, nonce: u64, fee: u64) -> VerifiedTransaction {
    let mut transaction = transfer(from, 9, nonce).transaction().clone();
    transaction.fee = NanoAria::new(fee);
    sign_transaction(from, transaction).verify(&chain_id()).unwrap()
}

#[test]
fn the_pool_gives_higher_fees_first_but_never_a_number_before_the_one_below() {
    let (a0, a1, b0, c0, c1) =
        (with_fee(1, 0, 10), with_fee(1, 1, 90), with_fee(2, 0, 50), with_fee(3, 7, 50), with_fee(3, 8, 60));
    let pool = pool(&[a0.clone(), b0.clone(), c0.clone(), c1.clone(), a1.clone()]);
    assert_eq!(pool.select(), [b0, c0, c1, a0, a1], "of equal fees the first to arrive");
    assert_eq!((pool.len(), pool.next_nonce(&node(1), 0), pool.next_nonce(&node(8), 4)), (5, 2, 4));
}

#[test]
fn the_pool_refuses_by_name() {
    let first = transfer(1, 2, 0);
    let mut waiting = pool(std::slice::from_ref(&first));
    let twice = AdmissionError::DuplicateTransaction { transaction: first.id() };
    assert_eq!(waiting.check(&first, (Height::ZERO, 0)), Err(twice));
    let other = with_fee(1, 0, 7);
    let taken = AdmissionError::NonceTaken { sender: node(1), nonce: 0, transaction: first.id() };
    assert_eq!(waiting.check(&other, (Height::ZERO, 0)), Err(taken));
    let late = AdmissionError::TransactionExpired { expiry: Height::new(1_000), next: Height::new(1_001) };
    assert_eq!(waiting.check(&transfer(1, 2, 1), (Height::new(1_000), 0)), Err(late));
    let most = u64::try_from(MEMPOOL_PER_SENDER_MAX).unwrap();
    for nonce in 1..most {
        waiting.insert(transfer(1, 2, nonce), (Height::ZERO, 0), Timestamp::ZERO).unwrap();
    }
    let full = AdmissionError::SenderFull { sender: node(1), max: MEMPOOL_PER_SENDER_MAX };
    assert_eq!(waiting.check(&transfer(1, 2, most), (Height::ZERO, 0)), Err(full));
    assert_eq!(waiting.check(&transfer(2, 2, 0), (Height::ZERO, 0)), Ok(()), "somebody else still may");
    for (nonce, next) in [(3, 4), (5, 4), (9, 4)] {
        let out_of_turn = AdmissionError::NonceOutOfTurn { sender: node(2), nonce, next };
        assert_eq!(waiting.check(&transfer(2, 2, nonce), (Height::ZERO, next)), Err(out_of_turn));
    }
}

#[test]
fn the_pool_forgets_what_is_in_a_block_refused_or_expired() {
    let [zero, one, two, three] = [0, 1, 2, 3].map(|nonce| transfer(1, 2, nonce));
    let all = || pool(&[zero.clone(), one.clone(), two.clone(), three.clone(), transfer(7, 2, 0)]);
    let mut waiting = all();
    assert_eq!(waiting.settle(&[zero.clone(), with_fee(1, 1, 5)]), [one.id()], "its number is another's now");
    assert_eq!((waiting.get(&zero.id()), waiting.get(&two.id())), (None, Some(&two)));
    assert_eq!(waiting.of(&node(1)), [two.clone(), three.clone()]);
    let mut waiting = all();
    assert_eq!(waiting.refuse(&two.id()), [two.id(), three.id()], "none may wait behind a gap");
    assert_eq!((waiting.refuse(&two.id()), waiting.next_nonce(&node(1), 0)), (vec![], 2));
    assert_eq!(waiting.expire(Height::new(999)), []);
    assert_eq!(waiting.expire(Height::new(1_000)).len(), 3);
    assert!(waiting.is_empty() && waiting.iter().next().is_none());
}

#[test]
fn a_block_carries_transactions_and_its_store_finds_them() {
    let mut chain = Chain::new(1);
    let store = MemoryStore::new(&chain.genesis, &chain.initial()).unwrap();
    let orders = [transfer(1, 2, 0), transfer(2, 3, 0)];
    chain.transactions = orders.to_vec();
    let (block, changes) = chain.next(vec![proof(1)]);
    assert_eq!((block.header().transaction_count, block.block().transactions()), (2, &orders[..]));
    let checked = ProposedBlock::check(block.header().clone(), block.block().body(), &chain_id(), STAMP).unwrap();
    assert_eq!(&checked, block.block());
    assert_eq!(store.transaction(&orders[0].id()), Ok(None), "not before it is final");
    store.commit(&block, &changes).unwrap();
    chain.transactions = vec![transfer(3, 1, 0)];
    let (last, changes) = chain.next(Vec::new());
    assert!(!last.header().is_empty(), "a block with an order alone is no heartbeat");
    store.commit(&last, &changes).unwrap();
    assert_eq!(verify(&store), Ok(3));
    let (place, found) = store.transaction(&orders[1].id()).unwrap().unwrap();
    assert_eq!((place.height.get(), place.index, &found), (1, 1, orders[1].signed()));
    assert_eq!(store.transaction(&TransactionId::ZERO), Ok(None));
    let listed = store.transactions(None, 2).unwrap();
    assert_eq!(listed.iter().map(|(place, _)| (place.height.get(), place.index)).collect::<Vec<_>>(), [(2, 0), (1, 1)]);
    assert_eq!(store.transactions(Some(listed[1].0), 9).unwrap()[0].1, *orders[0].signed());
    assert_eq!(store.block(Height::new(1)).unwrap().unwrap().body, block.block().body());
}

#[test]
fn transactions_in_a_block_are_bounded_counted_and_checked() {
    let seal = |transactions: Vec<VerifiedTransaction>| {
        let body = VerifiedBody { transactions, ..VerifiedBody::default() };
        ProposedBlock::seal(Chain::new(1).draft, body, STAMP)
    };
    let many = vec![transfer(1, 2, 0); BLOCK_TRANSACTIONS_MAX + 1];
    assert_eq!(seal(many), Err(BlockError::TooManyTransactions { got: BLOCK_TRANSACTIONS_MAX + 1 }));
    let long = part(1, 0, DELIVERY_PART_BYTES_MAX);
    let (fitting, left) = (BLOCK_TRANSACTIONS_MAX / long.places(), BLOCK_TRANSACTIONS_MAX % long.places());
    let mut full = vec![long.clone(); fitting];
    full.extend(vec![transfer(1, 2, 0); left]);
    assert!(seal(full.clone()).is_ok());
    full.push(transfer(1, 2, 0));
    assert_eq!(seal(full), Err(BlockError::TransactionPlaces { got: BLOCK_TRANSACTIONS_MAX + 1 }));
    let waiting = pool(&(0..60).flat_map(|nonce| [1, 2].map(|from| part(from, nonce, 3_584))).collect::<Vec<_>>());
    assert_eq!(waiting.select().len(), fitting, "no more are offered than a block has room for");
    let block = seal(vec![transfer(1, 2, 0)]).unwrap();
    let without = ProposedBlock::check(block.header().clone(), Body::default(), &chain_id(), STAMP);
    assert_eq!(without, Err(BlockError::TransactionCount { header: 1, body: 0 }));
    let mut body = block.body();
    body.transactions[0] = transfer(1, 3, 0).signed().clone();
    let other = ProposedBlock::check(block.header().clone(), body.clone(), &chain_id(), STAMP);
    assert!(matches!(other, Err(BlockError::BodyRoot { .. })), "{other:?}");
    body.transactions[0].transaction.fee = NanoAria::new(3);
    let forged = ProposedBlock::check(block.header().clone(), body, &chain_id(), STAMP);
    assert!(matches!(forged, Err(BlockError::Transaction { index: 0, .. })), "{forged:?}");
}

#[test]
fn what_waits_survives_a_restart_until_a_block_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(1);
    let (one, two, three) = (transfer(1, 2, 0), transfer(1, 2, 1), transfer(1, 2, 2));
    let signed = |waiting: &[&VerifiedTransaction]| -> Vec<SignedTransaction> {
        waiting.iter().map(|one| one.signed().clone()).collect()
    };
    {
        let (store, _) = open(folder.path(), &chain).unwrap();
        assert_eq!(store.put_pending_transaction(&two), Ok(Pending::Added));
        assert_eq!(store.put_pending(&proof(1)), Ok(Pending::Added), "one count of arrivals for both");
        assert_eq!(store.put_pending_transaction(&one), Ok(Pending::Added));
        assert_eq!(store.put_pending_transaction(&one), Ok(Pending::Known));
    }
    let (store, _) = open(folder.path(), &chain).unwrap();
    assert_eq!(store.pending_transactions().unwrap(), signed(&[&two, &one]), "in the order of arrival");
    assert_eq!(store.put_pending_transaction(&three), Ok(Pending::Added));
    chain.transactions = vec![one.clone()];
    let (block, changes) = chain.next(Vec::new());
    store.commit(&block, &changes).unwrap();
    assert_eq!(store.put_pending_transaction(&one), Ok(Pending::Final));
    assert_eq!(store.pending_transactions().unwrap(), signed(&[&two, &three]));
    store.drop_pending_transactions(&[two.id(), one.id()]).unwrap();
    assert_eq!(store.pending_transactions().unwrap(), signed(&[&three]));
    assert_eq!(store.pending().unwrap().len(), 1, "proofs wait on their own");
}
