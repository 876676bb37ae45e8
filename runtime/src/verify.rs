//! A whole chain, executed again: every stored block against the rules, and the stored state against what the blocks
//! make of genesis. This is what `ledger verify` runs.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use aria_chain::block::{FinalBlock, GenesisBlock, Header, ProposedBlock};
use aria_chain::error::{BlockError, CertificateError};
use aria_chain::ids::{BlockHash, Digest, RecordId};
use aria_chain::limits::STATE_SCAN_MAX;
use aria_chain::record::RecordStatus;
use aria_chain::store::{FaultKind, LinkRules, Store, StoreError, StoredBlock, verify_chain_links};
use aria_chain::units::Height;

use crate::execute::{BlockFault, ExecuteError, ExecutedBlock, execute};
use crate::genesis::Genesis;
use crate::rules::settle::Settlement;
use crate::state::lattice::Lattice;
use crate::state::{MemoryState, StateError, key};
use crate::voters::Voters;

/// What is wrong with a stored chain. One variant per kind; the rule is inside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyFault {
    /// The store cannot give the block.
    #[error("the store cannot be read: {0}")]
    Unreadable(#[from] StoreError),
    /// Blocks follow each other without a gap.
    #[error("the store has no block at this height")]
    Missing,
    /// The first block is the one of the genesis file.
    #[error("the store begins with block {got}, the genesis file with {expected}; use the genesis file of this chain")]
    Genesis {
        /// In the store.
        got: BlockHash,
        /// From the file.
        expected: BlockHash,
    },
    /// See [`BlockError`].
    #[error("the block is not well formed: {0}")]
    Malformed(#[from] BlockError),
    /// Every block above genesis carries its certificate.
    #[error("the block has no certificate")]
    NoCertificate,
    /// See [`CertificateError`].
    #[error("the block's certificate does not hold: {0}")]
    Certificate(#[from] CertificateError),
    /// See [`BlockFault`].
    #[error("the block is invalid on its parent: {0}")]
    Invalid(#[from] BlockFault),
    /// The re-executed state cannot be used: a fault of this program.
    #[error(transparent)]
    State(#[from] StateError),
    /// Each record stands in the index with the status that its block gives it.
    #[error("record {record} has status {got} in the store, its block gives {expected}", got = shown(.got), expected = .expected.name())]
    Status {
        /// The record.
        record: RecordId,
        /// In the store.
        got: Option<RecordStatus>,
        /// By execution.
        expected: RecordStatus,
    },
    /// A block of a store that began with a snapshot, by itself: see [`FaultKind`].
    #[error(transparent)]
    Link(FaultKind),
    /// The state of such a store has the root that its last block left.
    #[error("the state's entries have root {got}, {expected} was committed")]
    StateRoot {
        /// Computed.
        got: Digest,
        /// As committed.
        expected: Digest,
    },
    /// The store's state is what its blocks make of genesis, entry by entry.
    #[error("the state entry at key {key} is not what the blocks make of it")]
    StateEntry {
        /// Key of the first entry that differs, in hex.
        key: String,
    },
}

fn shown(status: &Option<RecordStatus>) -> &'static str {
    status.map_or("none", RecordStatus::name)
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// First height asked for.
    pub from: Height,
    /// Last height verified, or the one before the fault.
    pub to: Height,
    /// Blocks verified between the two, both included.
    pub blocks: u64,
    /// Records in them.
    pub records: u64,
    /// Whether the stored state was compared, entry by entry: only where the verification reached the tip.
    pub is_state_compared: bool,
    /// Whether the caller stopped it.
    pub is_stopped: bool,
    /// The first bad height and what is wrong there.
    pub fault: Option<(Height, VerifyFault)>,
}

/// Verifies the heights `from..=to`, or up to the tip where that is lower. Blocks below `from` are executed as well,
/// because their state is needed; a fault among them is reported like any other. `progress` hears of every block and may
/// stop.
///
/// A store that began with a snapshot has no state to execute its blocks on: then every block's hashes, links, signatures
/// and certificate are verified, and the root of the state.
pub fn verify_chain(
    store: &dyn Store,
    genesis: &Genesis,
    from: Height,
    to: Height,
    progress: &mut dyn FnMut(Height) -> ControlFlow<()>,
) -> VerifyReport {
    let nothing = VerifyReport {
        from,
        to: from,
        blocks: 0,
        records: 0,
        is_state_compared: false,
        is_stopped: false,
        fault: None,
    };
    let mut replay = Replay {
        store,
        genesis,
        state: MemoryState::new(),
        tip: genesis.block().header().clone(),
        open: BTreeSet::new(),
        report: nothing,
    };
    let outcome = if store.base() > Height::ZERO { replay.check(to, progress) } else { replay.run(to, progress) };
    if let Err((height, fault)) = outcome {
        replay.report.fault = Some((height, fault));
    }
    replay.report
}

struct Replay<'a> {
    store: &'a dyn Store,
    genesis: &'a Genesis,
    state: MemoryState,
    tip: Header,
    /// Records whose audits go on.
    open: BTreeSet<RecordId>,
    report: VerifyReport,
}

impl Replay<'_> {
    fn run(
        &mut self,
        to: Height,
        progress: &mut dyn FnMut(Height) -> ControlFlow<()>,
    ) -> Result<(), (Height, VerifyFault)> {
        let top = self.store.tip().map_err(|error| (Height::ZERO, error.into()))?.height;
        let mut height = Height::ZERO;
        loop {
            self.step(height).map_err(|fault| (height, fault))?;
            if progress(height).is_break() {
                self.report.is_stopped = true;
                return Ok(());
            }
            match height.next() {
                Ok(next) if next <= to.min(top) => height = next,
                _ => break,
            }
        }
        if height == top {
            let open = || self.open.iter().try_for_each(|record| self.check_status(record, RecordStatus::Included));
            let found = self.compare_state().and_then(|()| open());
            self.conclude(top, found)?;
        }
        Ok(())
    }

    /// Takes over what a comparison with the state after `top` found. Where a block was committed meanwhile, a difference
    /// is no fault: two states were compared.
    fn conclude(&mut self, top: Height, found: Result<(), VerifyFault>) -> Result<(), (Height, VerifyFault)> {
        let now = self.store.tip().map_err(|error| (top, error.into()))?.height;
        self.report.is_state_compared = found.is_ok();
        match found {
            Err(fault) if now == top => Err((top, fault)),
            _ => Ok(()),
        }
    }

    /// Verifies without execution.
    fn check(
        &mut self,
        to: Height,
        progress: &mut dyn FnMut(Height) -> ControlFlow<()>,
    ) -> Result<(), (Height, VerifyFault)> {
        let (store, rules) = (self.store, LinkRules { stamp_zero_digits: self.genesis.params().stamp_zero_digits });
        let top = store.tip().map_err(|error| (Height::ZERO, error.into()))?;
        let first = self.report.from.max(store.base());
        self.report.from = first;
        for number in first.get()..=to.min(top.height).get() {
            let height = Height::new(number);
            verify_chain_links(store, height, height, rules, &mut |_| ())
                .map_err(|fault| (fault.height, VerifyFault::Link(fault.kind)))?;
            let header = store.header(height).map_err(|error| (height, error.into()))?;
            self.report.to = height;
            self.report.blocks = self.report.blocks.saturating_add(1);
            self.report.records =
                self.report.records.saturating_add(header.map_or(0, |header| u64::from(header.record_count)));
            if progress(height).is_break() {
                self.report.is_stopped = true;
                return Ok(());
            }
        }
        if to >= top.height {
            let got = stored_root(store).map_err(|fault| (top.height, fault))?;
            let expected = top.state_root;
            let found = if got == expected { Ok(()) } else { Err(VerifyFault::StateRoot { got, expected }) };
            self.conclude(top.height, found)?;
        }
        Ok(())
    }

    fn step(&mut self, height: Height) -> Result<(), VerifyFault> {
        let stored = self.store.block(height)?.ok_or(VerifyFault::Missing)?;
        let records = if height == Height::ZERO { self.begin(&stored)? } else { self.block(stored)? };
        if height >= self.report.from {
            self.report.to = height;
            self.report.blocks = self.report.blocks.saturating_add(1);
            self.report.records = self.report.records.saturating_add(records);
        }
        Ok(())
    }

    fn begin(&mut self, stored: &StoredBlock) -> Result<u64, VerifyFault> {
        let expected: GenesisBlock = self.genesis.block();
        if stored.hash != expected.hash() || stored.header != *expected.header() {
            return Err(VerifyFault::Genesis { got: stored.hash, expected: expected.hash() });
        }
        self.state.apply(&self.genesis.changes().entries);
        Ok(0)
    }

    fn block(&mut self, stored: StoredBlock) -> Result<u64, VerifyFault> {
        let digits = self.genesis.params().stamp_zero_digits;
        let certificate = stored.certificate.ok_or(VerifyFault::NoCertificate)?;
        let block = ProposedBlock::check(stored.header, stored.body, self.genesis.chain_id(), digits)?;
        let executed = execute(&block, &self.tip, &self.state, self.genesis).map_err(|error| match error {
            ExecuteError::Invalid(fault) => VerifyFault::Invalid(fault),
            ExecuteError::State(error) => VerifyFault::State(error),
        })?;
        let voters = Voters::above(self.tip.height, &self.state, self.genesis.params())?;
        let block = FinalBlock::new(block, certificate, &voters.set)?;
        self.check_statuses(block.block(), &executed)?;
        self.state.apply(&executed.changes.entries);
        self.tip = block.header().clone();
        Ok(u64::from(self.tip.record_count))
    }

    /// Ends of this block's audits, and its records that no audit will touch. The others are open until their audits end.
    fn check_statuses(&mut self, block: &ProposedBlock, executed: &ExecutedBlock) -> Result<(), VerifyFault> {
        for (record, status) in &executed.changes.statuses {
            self.open.remove(record);
            self.check_status(record, *status)?;
        }
        for (record, _) in &executed.changes.audits {
            // One that nobody decided ends without a status of its own.
            if self.open.remove(record) {
                self.check_status(record, RecordStatus::Included)?;
            }
        }
        for (proof, settlement) in block.proofs().iter().zip(&executed.settlements) {
            match settlement {
                Settlement::Awaiting(_) => drop(self.open.insert(proof.record_id())),
                Settlement::Paid(_) | Settlement::Included(_) => {
                    self.check_status(&proof.record_id(), RecordStatus::Included)?;
                }
                Settlement::SelfAudited(_) => {}
            }
        }
        Ok(())
    }

    fn check_status(&self, record: &RecordId, expected: RecordStatus) -> Result<(), VerifyFault> {
        let got = self.store.record(record)?.map(|entry| entry.status);
        if got != Some(expected) {
            return Err(VerifyFault::Status { record: *record, got, expected });
        }
        Ok(())
    }

    /// The state after the tip, ours and the store's, page by page in order of key.
    fn compare_state(&self) -> Result<(), VerifyFault> {
        let mut ours = self.state.entries();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.state_scan(&[], after.as_deref(), STATE_SCAN_MAX)?;
            for (key, value) in &page {
                match ours.next() {
                    Some(entry) if entry == (key.as_slice(), value.as_slice()) => {}
                    // The smaller key is the one that only one side has.
                    Some((own, _)) => return Err(differs(own.min(key))),
                    None => return Err(differs(key)),
                }
            }
            match page.last() {
                Some((key, _)) => after = Some(key.clone()),
                None => break,
            }
        }
        ours.next().map_or(Ok(()), |(key, _)| Err(differs(key)))
    }
}

/// The root of a store's state, summed anew over every entry.
fn stored_root(store: &dyn Store) -> Result<Digest, VerifyFault> {
    let mut sum = Lattice::empty();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.state_scan(&[], after.as_deref(), STATE_SCAN_MAX)?;
        page.iter().filter(|(key, _)| key != key::LATTICE).for_each(|(key, value)| sum.add(key, value));
        match page.last() {
            Some((key, _)) => after = Some(key.clone()),
            None => return Ok(sum.root()),
        }
    }
}

fn differs(key: &[u8]) -> VerifyFault {
    VerifyFault::StateEntry { key: key.iter().map(|byte| format!("{byte:02x}")).collect() }
}
