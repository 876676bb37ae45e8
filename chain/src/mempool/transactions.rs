//! Transactions that wait for a block. Of each account the lowest number first, among accounts the highest fee, then the
//! first to arrive. A full pool refuses: what was acknowledged is never pushed out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::error::AdmissionError;
use crate::ids::{NodeId, TransactionId};
use crate::limits::{
    BLOCK_TRANSACTIONS_MAX, MEMPOOL_PER_SENDER_MAX, MEMPOOL_SENDER_BYTES_MAX, MEMPOOL_TRANSACTION_BYTES_MAX,
    MEMPOOL_TRANSACTIONS_MAX,
};
use crate::transaction::VerifiedTransaction;
use crate::units::{Height, NanoAria, Timestamp};

/// A transaction that waits, and since when.
type Waiting = (Timestamp, VerifiedTransaction);

/// Transactions that wait. Invariant: both maps and the sum speak of the same ones, no sender has an empty queue, and
/// a queue has no gap.
#[derive(Debug, Default)]
pub struct Transactions {
    senders: BTreeMap<NodeId, BTreeMap<u64, Waiting>>,
    places: BTreeMap<TransactionId, (NodeId, u64)>,
    bytes: usize,
}

impl Transactions {
    /// Takes a transaction that arrived at `now`, when `tip` is the height of the last block and `next` the next number of its
    /// account there.
    pub fn insert(
        &mut self,
        transaction: VerifiedTransaction,
        (tip, next): (Height, u64),
        now: Timestamp,
    ) -> Result<(), AdmissionError> {
        self.check(&transaction, (tip, next))?;
        let (sender, nonce) = (transaction.transaction().sender, transaction.transaction().nonce);
        self.places.insert(transaction.id(), (sender, nonce));
        self.bytes += transaction.size_bytes();
        self.senders.entry(sender).or_default().insert(nonce, (now, transaction));
        Ok(())
    }

    /// Whether a transaction would be taken, and if not, by which rule.
    pub fn check(&self, transaction: &VerifiedTransaction, (tip, next): (Height, u64)) -> Result<(), AdmissionError> {
        let id = transaction.id();
        if self.places.contains_key(&id) {
            return Err(AdmissionError::DuplicateTransaction { transaction: id });
        }
        let (sender, nonce) = (transaction.transaction().sender, transaction.transaction().nonce);
        let expiry = transaction.transaction().expiry;
        if expiry <= tip {
            let next = Height::new(tip.get().saturating_add(1));
            return Err(AdmissionError::TransactionExpired { expiry, next });
        }
        if let Some(queue) = self.senders.get(&sender) {
            if let Some((_, other)) = queue.get(&nonce) {
                return Err(AdmissionError::NonceTaken { sender, nonce, transaction: other.id() });
            }
            if queue.len() >= MEMPOOL_PER_SENDER_MAX {
                return Err(AdmissionError::SenderFull { sender, max: MEMPOOL_PER_SENDER_MAX });
            }
            let bytes = queue.values().map(|(_, waiting)| waiting.size_bytes()).sum::<usize>();
            if bytes + transaction.size_bytes() > MEMPOOL_SENDER_BYTES_MAX {
                return Err(AdmissionError::SenderBytesFull { sender, bytes, max: MEMPOOL_SENDER_BYTES_MAX });
            }
        }
        let next = self.next_nonce(&sender, next);
        if nonce != next {
            return Err(AdmissionError::NonceOutOfTurn { sender, nonce, next });
        }
        if self.places.len() >= MEMPOOL_TRANSACTIONS_MAX {
            return Err(AdmissionError::TransactionsFull { max: MEMPOOL_TRANSACTIONS_MAX });
        }
        if self.bytes + transaction.size_bytes() > MEMPOOL_TRANSACTION_BYTES_MAX {
            return Err(AdmissionError::TransactionBytesFull { bytes: self.bytes, max: MEMPOOL_TRANSACTION_BYTES_MAX });
        }
        Ok(())
    }

    /// Those for the next block, in the order in which it may hold them. They stay until they are taken out.
    pub fn select(&self) -> Vec<VerifiedTransaction> {
        let mut queues: Vec<_> = self.senders.values().map(|queue| queue.values().peekable()).collect();
        let place = |queue: usize, next: &Waiting| -> (Reverse<NanoAria>, Timestamp, TransactionId, usize) {
            (Reverse(next.1.transaction().fee), next.0, next.1.id(), queue)
        };
        let mut heads: BTreeSet<_> =
            queues.iter_mut().enumerate().filter_map(|(queue, waiting)| Some(place(queue, waiting.peek()?))).collect();
        let (mut selected, mut taken) = (Vec::new(), 0);
        while let Some((.., queue)) = heads.pop_first() {
            let Some((_, transaction)) = queues[queue].next() else { continue };
            taken += transaction.places();
            if taken > BLOCK_TRANSACTIONS_MAX {
                break;
            }
            selected.push(transaction.clone());
            heads.extend(queues[queue].peek().map(|next| place(queue, next)));
        }
        selected
    }

    /// Removes one that can be in no block, and those of its account that come after it. Returns all of them.
    pub fn refuse(&mut self, id: &TransactionId) -> Vec<TransactionId> {
        let Some((sender, nonce)) = self.places.get(id).copied() else { return Vec::new() };
        self.remove(&sender, nonce..)
    }

    /// Removes what a block has, and whatever else has one of these numbers. Returns what was not in the block.
    pub fn settle(&mut self, included: &[VerifiedTransaction]) -> Vec<TransactionId> {
        let mut others = Vec::new();
        for transaction in included {
            let (id, order) = (transaction.id(), transaction.transaction());
            let gone = self.remove(&order.sender, ..=order.nonce);
            others.extend(gone.into_iter().filter(|other| *other != id));
        }
        others
    }

    fn remove(&mut self, sender: &NodeId, nonces: impl RangeBounds<u64>) -> Vec<TransactionId> {
        let Some(queue) = self.senders.get_mut(sender) else { return Vec::new() };
        let nonces: Vec<u64> = queue.range(nonces).map(|(nonce, _)| *nonce).collect();
        let gone: Vec<VerifiedTransaction> =
            nonces.iter().filter_map(|nonce| queue.remove(nonce)).map(|(_, transaction)| transaction).collect();
        if queue.is_empty() {
            self.senders.remove(sender);
        }
        self.bytes -= gone.iter().map(VerifiedTransaction::size_bytes).sum::<usize>();
        let gone: Vec<TransactionId> = gone.iter().map(VerifiedTransaction::id).collect();
        for id in &gone {
            self.places.remove(id);
        }
        gone
    }

    /// Removes what can no longer be included above `tip`, with what comes after it, and returns it.
    pub fn expire(&mut self, tip: Height) -> Vec<TransactionId> {
        let is_over = |transaction: &VerifiedTransaction| transaction.transaction().expiry <= tip;
        let expired: Vec<TransactionId> =
            self.iter().filter(|(_, one)| is_over(one)).map(|(_, one)| one.id()).collect();
        expired.iter().flat_map(|id| self.refuse(id)).collect()
    }

    /// A waiting transaction.
    pub fn get(&self, id: &TransactionId) -> Option<&VerifiedTransaction> {
        let (sender, nonce) = self.places.get(id)?;
        self.senders.get(sender)?.get(nonce).map(|(_, transaction)| transaction)
    }

    /// The number that the next transaction of an account should have, where `next` is that of its account.
    pub fn next_nonce(&self, sender: &NodeId, next: u64) -> u64 {
        let last = self.senders.get(sender).and_then(|queue| queue.keys().next_back());
        last.map_or(next, |last| next.max(last.saturating_add(1)))
    }

    /// What waits of an account, in order.
    pub fn of(&self, sender: &NodeId) -> Vec<VerifiedTransaction> {
        let queue = self.senders.get(sender);
        queue.into_iter().flat_map(BTreeMap::values).map(|(_, transaction)| transaction.clone()).collect()
    }

    /// All that wait, by account and number, with their arrival.
    pub fn iter(&self) -> impl Iterator<Item = (Timestamp, &VerifiedTransaction)> {
        self.senders.values().flat_map(BTreeMap::values).map(|(since, transaction)| (*since, transaction))
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}
