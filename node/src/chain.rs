//! What the services of a node share of the chain: genesis, store, mempool, key, clock.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, atomic::AtomicU64};

use aria_chain::{
    attestation::VerifiedAttestation,
    block::{Header, ProposedBlock},
    codec::Versioned,
    evidence::Evidence,
    ids::{BlockHash, NodeId, RecordId},
    keys::NodeKey,
    mempool::{Mempool, MempoolLimits, transactions::Transactions},
    proof::VerifiedProof,
    record::{RecordEntry, RecordStatus},
    store::{Health, Pending, StateChanges, Store, StoreError},
    transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction},
    units::{Height, NanoAria, Timestamp},
};
use aria_runtime::{
    genesis::Genesis,
    propose::{any_attestable, check_includable, check_orderable},
    rules::audit::{DRAW_AFTER, awaits_draw},
    rules::doubt::SPANS,
    rules::fee,
    state::{Audit, Phase, Reader, RecordPlace, StateError, StoreView, audit_change},
    voters::Voters,
};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    accused::Accused,
    audit::{parts::FalseLayers, payload::Payloads, pool::Attestations},
    clock::Clock,
    consensus::talk::Gossip,
    error::NodeError,
    network::{Channel, Network},
    snapshot::take::Snapshots,
};

/// A block that the user knows to be of the chain, from somebody whom they trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedBlock {
    /// Its height, above genesis.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
}

impl FromStr for TrustedBlock {
    type Err = String;

    fn from_str(text: &str) -> Result<TrustedBlock, String> {
        let form = || format!("`{text}` must be a height above 0 and a block hash: HEIGHT:HASH");
        let (height, hash) = text.split_once(':').ok_or_else(form)?;
        let height = height.parse().ok().filter(|height| *height > 0).ok_or_else(form)?;
        Ok(TrustedBlock { height: Height::new(height), hash: hash.parse().map_err(|_| form())? })
    }
}

/// Payloads that this node asked for: by record, from whom, and who waits.
type Expected = HashMap<RecordId, (NodeId, oneshot::Sender<Vec<u8>>)>;

/// The chain as this node holds it.
pub struct Chain {
    /// Where it began.
    pub genesis: Genesis,
    /// Where it rests.
    pub store: Arc<dyn Store>,
    /// This node's key.
    pub key: Arc<NodeKey>,
    /// States of the past, for nodes that begin with one.
    pub snapshots: Arc<Snapshots>,
    /// A block that the user knows to be of this chain.
    pub trusted: Option<TrustedBlock>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Told when a proof or evidence begins to wait.
    pub wake: Notify,
    /// Peers, once there are some.
    pub network: OnceLock<Network>,
    mempool: Mutex<Mempool>,
    transactions: Mutex<Transactions>,
    attestations: Mutex<Attestations>,
    expected: Mutex<Expected>,
    /// Audits of this node that changed since its duty last looked; nothing where one ended.
    audit_news: Mutex<Vec<(RecordPlace, Option<Audit>)>>,
    /// What lies behind this node's own records, for those who audit them.
    pub payloads: Payloads,
    /// Where records are false that this node found so, for those who judge.
    pub layers: FalseLayers,
    accused: Mutex<Accused>,
    tip_height: watch::Sender<Height>,
    /// Blocks that the best peer has and this node has not.
    pub behind: AtomicU64,
    /// Why this node makes no more blocks, once it does not.
    halted: OnceLock<String>,
}

impl Chain {
    /// Opens the node's view of the chain: what was waiting when the node stopped waits again.
    pub fn new(
        genesis: Genesis,
        store: Arc<dyn Store>,
        key: Arc<NodeKey>,
        clock: Arc<dyn Clock>,
        (snapshots, trusted): (Arc<Snapshots>, Option<TrustedBlock>),
        payloads: Payloads,
    ) -> Result<Chain, NodeError> {
        let tip = store.tip()?.height;
        let mempool = Mutex::new(Mempool::new(MempoolLimits::default()));
        let chain = Chain {
            genesis,
            store,
            key,
            snapshots,
            trusted,
            clock,
            wake: Notify::new(),
            network: OnceLock::new(),
            mempool,
            transactions: Mutex::default(),
            attestations: Mutex::default(),
            expected: Mutex::default(),
            audit_news: Mutex::default(),
            payloads,
            layers: FalseLayers::default(),
            accused: Mutex::default(),
            tip_height: watch::Sender::new(tip),
            behind: AtomicU64::new(0),
            halted: OnceLock::new(),
        };
        if let Some(block) = trusted
            && let Some(header) = chain.store.header(block.height)?
        {
            chain.check_trusted(&header)?;
        }
        let now = Timestamp::new(chain.clock.now_ms());
        for signed in chain.store.pending()? {
            let record = signed.record.id();
            let readmitted = signed.verify(chain.genesis.chain_id()).map_err(|error| error.to_string());
            if let Err(error) =
                readmitted.and_then(|proof| chain.mempool().insert(proof, tip, now).map_err(|error| error.to_string()))
            {
                tracing::warn!(%record, %error, "was waiting and is dropped");
                chain.store.drop_pending(&[record])?;
            }
        }
        for signed in chain.store.pending_transactions()? {
            let transaction = signed.transaction.id();
            let verified = signed.verify(chain.genesis.chain_id()).map_err(|error| error.to_string());
            if let Err(error) = verified.and_then(|verified| chain.admit_order(verified)) {
                tracing::warn!(%transaction, error, "was waiting and is dropped");
                chain.store.drop_pending_transactions(&[transaction])?;
            }
        }
        chain.sweep_payloads()?;
        Ok(chain)
    }

    /// The transactions that wait. Held like the pool of proofs.
    pub fn transactions(&self) -> MutexGuard<'_, Transactions> {
        self.transactions.lock().expect("no section that holds this lock panics")
    }

    /// The proofs that wait. Held for short sections only, never across an await.
    pub fn mempool(&self) -> MutexGuard<'_, Mempool> {
        self.mempool.lock().expect("no section that holds this lock panics")
    }

    /// The evidence that waits. Held like the pool of proofs.
    pub fn accused(&self) -> MutexGuard<'_, Accused> {
        self.accused.lock().expect("no section that holds this lock panics")
    }

    /// Takes a piece of evidence that was checked, unless its author is excluded already or has nothing to lose. Whether
    /// it is new.
    pub fn accuse(&self, piece: Evidence) -> Result<bool, NodeError> {
        let candidate = Reader(&self.view()).candidate(&piece.node_id);
        let candidate = candidate.map_err(|error| NodeError::Execution(error.to_string()))?;
        if candidate.is_none_or(|candidate| candidate.excluded.is_some()) {
            return Ok(false);
        }
        let (node, height, kind) = (piece.node_id, piece.height, piece.first.0.name());
        let is_new = self.accused().insert(piece);
        if is_new {
            tracing::warn!(%node, %height, kind, "signed two different messages in one round");
            self.wake.notify_one();
        }
        Ok(is_new)
    }

    /// Who votes on the next block.
    pub fn voters(&self) -> Result<Voters, NodeError> {
        let tip = self.store.tip()?.height;
        let voters = Voters::above(tip, &self.view(), self.genesis.params());
        voters.map_err(|error| NodeError::Execution(error.to_string()))
    }

    /// Whether a header does not stand where the user trusts another one.
    pub fn check_trusted(&self, header: &Header) -> Result<(), NodeError> {
        match self.trusted {
            Some(trusted) if trusted.height == header.height && trusted.hash != header.hash() => {
                let (height, expected) = (header.height, trusted.hash);
                Err(NodeError::NotTrusted { height, got: header.hash(), expected })
            }
            _ => Ok(()),
        }
    }

    /// Header of the last final block.
    pub fn tip_header(&self) -> Result<Header, NodeError> {
        let height = self.store.tip()?.height;
        let header = self.store.header(height)?;
        header
            .ok_or(NodeError::Task { task: "store", reason: format!("the tip's header (height {height}) is missing") })
    }

    /// Height of the last final block, from memory.
    pub fn tip_height(&self) -> Height {
        *self.tip_height.borrow()
    }

    /// The same, now and whenever it changes.
    pub fn tip_changes(&self) -> watch::Receiver<Height> {
        self.tip_height.subscribe()
    }

    /// Whether the next block could hold this proof: nobody is given the id of a record that no block will have.
    pub fn check_includable(&self, proof: &VerifiedProof) -> Result<(), String> {
        let parent = self.tip_header().map_err(|error| error.to_string())?;
        check_includable(&parent, self.earliest(&parent), proof, &self.view(), &self.genesis)
            .map_err(|error| error.to_string())
    }

    /// The state after the tip, for runtime.
    pub fn view(&self) -> StoreView<'_> {
        StoreView(&*self.store)
    }

    /// No more blocks from here on; what is there can still be read.
    pub fn halt(&self, reason: String) {
        // The first reason is the cause.
        let _ = self.halted.set(reason);
    }

    /// Whether anything can still be written.
    pub fn health(&self) -> Health {
        let halted = self.halted.get().map(|reason| Health::ReadOnly { reason: reason.clone() });
        halted.unwrap_or_else(|| self.store.health())
    }

    /// Makes a proof wait, on disk and in the pool. When this returns a client may be told. Blocks for a disk sync.
    pub fn acknowledge(&self, proof: VerifiedProof) -> Result<(), NodeError> {
        let tip = self.store.tip()?.height;
        self.mempool().check(&proof, tip).map_err(|error| NodeError::Mempool(error.to_string()))?;
        let news = Gossip::Proof(Box::new(proof.proof().clone())).encode();
        if self.store.put_pending(&proof)? != Pending::Final {
            let now = Timestamp::new(self.clock.now_ms());
            self.mempool().insert(proof, tip, now).map_err(|error| NodeError::Mempool(error.to_string()))?;
            self.wake.notify_one();
            if let Some(network) = self.network.get() {
                network.broadcast(Channel::Gossip, &news, None);
            }
        }
        Ok(())
    }

    /// Lets a transaction wait in memory if the next block could hold it behind what waits of its account.
    pub fn admit_order(&self, order: VerifiedTransaction) -> Result<(), String> {
        let (place, now) = self.check_order(&order)?;
        self.transactions().insert(order, place, now).map_err(|error| error.to_string())
    }

    /// Height of the tip and the next number of the account there, for the pool; and the time.
    fn check_order(&self, order: &VerifiedTransaction) -> Result<((Height, u64), Timestamp), String> {
        let parent = self.tip_header().map_err(|error| error.to_string())?;
        let sender = order.transaction().sender;
        let account = Reader(&self.view()).account(&sender).map_err(|error| error.to_string())?;
        let place = (parent.height, account.map_or(0, |account| account.nonce));
        self.transactions().check(order, place).map_err(|error| error.to_string())?;
        let mut row = self.transactions().of(&sender);
        row.push(order.clone());
        // What waits may be in a block by now.
        row.retain(|one| one.transaction().nonce >= place.1);
        let timestamp = self.earliest(&parent);
        check_orderable(&parent, timestamp, &row, &self.view(), &self.genesis).map_err(|error| error.to_string())?;
        Ok((place, Timestamp::new(self.clock.now_ms())))
    }

    /// What would become of a transaction.
    pub fn check_orderable(&self, order: &VerifiedTransaction) -> Result<(), String> {
        self.check_order(order).map(drop)
    }

    /// Makes a transaction wait, on disk and in the pool. When this returns a client may be told. Blocks for a disk sync.
    pub fn acknowledge_order(&self, order: VerifiedTransaction) -> Result<(), String> {
        let (place, now) = self.check_order(&order)?;
        let news = Gossip::Transaction(Box::new(order.signed().clone())).encode();
        let kept = self.store.put_pending_transaction(&order).map_err(|error| error.to_string())?;
        if kept != Pending::Final {
            let id = order.id();
            if let Err(error) = self.transactions().insert(order, place, now) {
                // Another took its number meanwhile. What was refused does not come back after a restart.
                self.store.drop_pending_transactions(&[id]).map_err(|error| error.to_string())?;
                return Err(error.to_string());
            }
            self.wake.notify_one();
            if let Some(network) = self.network.get() {
                network.broadcast(Channel::Gossip, &news, None);
            }
        }
        Ok(())
    }

    /// Orders something for this node's own account, at the least fee. Blocks for a disk sync.
    pub fn order(&self, action: Action, expiry: Height) -> Result<(), String> {
        let (sender, chain_id) = (self.key.node_id(), self.genesis.chain_id().clone());
        let account = Reader(&self.view()).account(&sender).map_err(|error| error.to_string())?.unwrap_or_default();
        let nonce = self.transactions().next_nonce(&sender, account.nonce);
        let mut transaction = Transaction { chain_id, sender, nonce, fee: NanoAria::ZERO, expiry, action };
        transaction.fee = fee::least(transaction.places(), self.genesis.params());
        let signature = self.key.sign_transaction(&transaction.chain_id, &transaction.id());
        let signed = SignedTransaction { transaction, signature };
        self.acknowledge_order(signed.verify(self.genesis.chain_id()).map_err(|error| error.to_string())?)
    }

    /// What waits of this node's own account.
    pub fn own_orders(&self) -> Vec<VerifiedTransaction> {
        self.transactions().of(&self.key.node_id())
    }

    /// Tells peers once more what waits of this node's own account: who was behind did not take it when it came.
    pub fn repeat_orders(&self) {
        let Some(network) = self.network.get() else { return };
        for order in self.own_orders() {
            let news = Gossip::Transaction(Box::new(order.signed().clone())).encode();
            network.broadcast(Channel::Gossip, &news, None);
        }
    }

    /// The attestations that wait. Held like the pool of proofs.
    pub fn attestations(&self) -> MutexGuard<'_, Attestations> {
        self.attestations.lock().expect("no section that holds this lock panics")
    }

    /// Notes which audits a block changed, as far as they are this node's duty.
    pub fn note_audits(&self, changes: &StateChanges) {
        let me = self.key.node_id();
        let is_mine = |audit: &Audit| audit.members.iter().any(|member| member.node == me);
        let changed = changes.entries.iter().filter_map(|(key, value)| audit_change(key, value.as_deref()));
        let mine = changed.filter(|(_, audit)| audit.as_ref().is_none_or(is_mine));
        self.audit_news.lock().expect("no section that holds this lock panics").extend(mine);
    }

    /// Takes what was noted.
    pub fn take_audit_news(&self) -> Vec<(RecordPlace, Option<Audit>)> {
        std::mem::take(&mut *self.audit_news.lock().expect("no section that holds this lock panics"))
    }

    /// Lets an attestation of a validator wait, if its records may still be audited. Whether it is new.
    pub fn admit_attestation(&self, attestation: VerifiedAttestation) -> bool {
        let (auditor, height) = (attestation.attestation().auditor, attestation.attestation().height);
        let is_voter = Reader(&self.view()).voters().is_ok_and(|set| set.power_of(&auditor) > 0);
        is_voter && height >= self.audits_from() && self.attestations().insert(attestation)
    }

    /// Forgets what lies behind records of which nobody has anything to say any more.
    pub fn sweep_payloads(&self) -> Result<(), StoreError> {
        self.layers.retain(|record| matches!(self.audit_of(record), Ok(Some(_))));
        let from = self.audits_from();
        self.payloads.retain(|record| {
            // Whoever doubts an auditor of a verified record runs it again.
            let is_wanted = |entry: RecordEntry| match entry.status {
                RecordStatus::Included => true,
                RecordStatus::Verified => entry.height >= from,
                _ => false,
            };
            Ok(self.mempool().contains(record) || self.store.record(record)?.is_some_and(is_wanted))
        })
    }

    /// The lowest height of whose records something may still be said.
    pub fn audits_from(&self) -> Height {
        let span = self.genesis.params().audit_blocks.saturating_mul(SPANS).saturating_add(DRAW_AFTER);
        Height::new(self.tip_height().get().saturating_sub(span))
    }

    /// Whether records here are audited by others, so that what lies behind them is kept.
    pub fn is_audited(&self) -> bool {
        self.voters().is_ok_and(|voters| voters.set.members().len() > 1)
    }

    /// Whether a node is to be told what lies behind a record: only who was drawn to audit it.
    pub fn may_audit(&self, node: &NodeId, record: &RecordId) -> Result<bool, NodeError> {
        let is_member = |audit: Audit| audit.members.iter().any(|member| member.node == *node);
        Ok(self.audit_of(record)?.is_some_and(is_member))
    }

    /// Whether a node is to be shown where a record is false: only who judges a dispute about it.
    pub fn may_judge(&self, node: &NodeId, record: &RecordId) -> Result<bool, NodeError> {
        let is_judge =
            |audit: Audit| audit.phase == Phase::Disputed && audit.members.iter().any(|member| member.node == *node);
        Ok(self.audit_of(record)?.is_some_and(is_judge))
    }

    /// The audit of a record that is not over.
    pub fn audit_of(&self, record: &RecordId) -> Result<Option<Audit>, NodeError> {
        let Some(entry) = self.store.record(record)? else { return Ok(None) };
        let audit = Reader(&self.view()).audit(entry.height, entry.index);
        audit.map_err(|error| NodeError::Execution(error.to_string()))
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().expect("no section that holds this lock panics")
    }

    /// Waits for what lies behind a record, from its provider.
    pub fn expect_payload(&self, record: RecordId, from: NodeId) -> oneshot::Receiver<Vec<u8>> {
        let (told, answer) = oneshot::channel();
        self.expected().insert(record, (from, told));
        answer
    }

    /// Nobody waits for what lies behind a record any more.
    pub fn expect_no_payload(&self, record: &RecordId) {
        self.expected().remove(record);
    }

    /// Passes a payload on to who waits for it. What was not asked for is dropped.
    pub fn payload_came(&self, from: &NodeId, record: &RecordId, payload: Option<Vec<u8>>) {
        let is_expected = |(provider, _): &(NodeId, _)| provider == from;
        let mut expected = self.expected();
        if expected.get(record).is_some_and(is_expected)
            && let (Some((_, told)), Some(payload)) = (expected.remove(record), payload)
        {
            // Who gave up meanwhile asks again.
            let _ = told.send(payload);
        }
    }

    /// Whether a block should be made without waiting for a heartbeat.
    pub fn is_block_wanted(&self) -> Result<bool, NodeError> {
        if !self.mempool().is_empty() || !self.transactions().is_empty() || !self.accused().is_empty() {
            return Ok(true);
        }
        let tip = self.tip_height();
        let (known, version) = {
            let pool = self.attestations();
            (pool.is_due(tip), pool.version())
        };
        if let Some(is_due) = known {
            return Ok(is_due);
        }
        let (parent, view) = (self.tip_header()?, self.view());
        let execution = |error: StateError| NodeError::Execution(error.to_string());
        let is_due = awaits_draw(parent.height, &view).map_err(execution)? || {
            let waiting = self.attestations().all();
            any_attestable(&parent, self.earliest(&parent), &waiting, &view, &self.genesis).map_err(execution)?
        };
        // A block that came meanwhile makes this the answer for a tip that nobody asks about.
        self.attestations().note_due(parent.height, version, is_due);
        Ok(is_due)
    }

    /// When the next block can be at the earliest: never closer to its parent than the rules allow, even where the clock went
    /// back a little.
    pub fn earliest(&self, parent: &Header) -> Timestamp {
        let earliest_ms = parent.timestamp_ms.get().saturating_add(self.genesis.params().block_interval_ms);
        Timestamp::new(self.clock.now_ms().max(earliest_ms))
    }

    /// Notes a final block that the store has.
    pub fn advance(&self, block: &ProposedBlock) {
        self.tip_height.send_replace(block.header().height);
        metrics::counter!("aria_blocks_total").increment(1);
        metrics::counter!("aria_records_sealed_total").increment(block.proofs().len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a height for a chart")]
        metrics::gauge!("aria_height").set(block.header().height.get() as f64);
    }
}
