//! Transactions in the context of a block: may this one be included, and what does it move?
//!
//! That its sender signed it was checked before ([`VerifiedTransaction`]). A transaction is included only where it succeeds, so
//! being in a block is its receipt. Every amount that moves is on both sides of a checked sum: what is in all accounts
//! together changes by what is burned, and by nothing else.

use aria_chain::consent::Consent;
use aria_chain::ids::NodeId;
use aria_chain::limits::STATE_SCAN_MAX;
use aria_chain::transaction::{Action, Transaction, VerifiedTransaction};
use aria_chain::units::{Epoch, Height, Microjoules, NanoAria, Overflow};

use super::challenge::{self, Part};
use super::doubt;
use super::fee::least;
use super::leak;
use super::model::{self, ModelFault};
use super::record::Place;
use super::sobriety;
use crate::fixed::part;
use crate::params::Params;
use crate::state::{Candidate, Overlay, StateError, StatedConsent, View, key};

/// Why a block may not include a transaction. One variant per rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransactionFault {
    /// A transaction counts up to its expiry, that height included.
    #[error("the transaction expired at height {expiry}, the block has {height}; sign one with a later expiry")]
    Expired {
        /// Of the transaction.
        expiry: Height,
        /// Of the block.
        height: Height,
    },
    /// What waits is kept, and nothing is kept for ever.
    #[error(
        "the transaction expires at height {expiry}, more than {max} blocks after {height}; choose an earlier expiry"
    )]
    ExpiryTooFar {
        /// Of the transaction.
        expiry: Height,
        /// Of the block.
        height: Height,
        /// See [`Params::request_expiry_blocks_max`](crate::params::Params::request_expiry_blocks_max).
        max: u64,
    },
    /// A number counts once.
    #[error("nonce {got} was used before, the next one is {next}; sign it again with that")]
    NonceUsed {
        /// Of the transaction.
        got: u64,
        /// Of the account.
        next: u64,
    },
    /// Transactions of an account come in order.
    #[error("nonce {got} is ahead, the next one is {next}; sign it again with that")]
    NonceAhead {
        /// Of the transaction.
        got: u64,
        /// Of the account.
        next: u64,
    },
    /// Each place in a block has a price.
    #[error("fee {fee} is below the least of {min} nano-ARIA for a transaction of this size; raise it")]
    FeeTooLow {
        /// Offered.
        fee: NanoAria,
        /// [`Params::fee_min_nano`](crate::params::Params::fee_min_nano) for each place that it takes.
        min: u64,
    },
    /// Nobody spends what they have not.
    #[error("the sender has {balance} nano-ARIA, amount and fees take {needed}; lower the amount or get more")]
    BalanceTooLow {
        /// Free to spend.
        balance: NanoAria,
        /// Amount and fees.
        needed: NanoAria,
    },
    /// Nobody frees more than is set aside.
    #[error(
        "of the sender's bond {bond} nano-ARIA are not being freed already, {amount} are asked for; lower the amount"
    )]
    BondTooLow {
        /// What backs work.
        bond: NanoAria,
        /// To be freed.
        amount: NanoAria,
    },
    /// Only what an auditor opened can be doubted, and that once.
    #[error(
        "auditor {auditor} has opened no root on record {index} of block {height} that can be doubted (again); name another"
    )]
    NothingToDoubt {
        /// The accused.
        auditor: NodeId,
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// While an audit or another doubt goes on, there is nothing to add.
    #[error(
        "record {index} of block {height} is being audited, or another of its auditors is in doubt; wait for the end"
    )]
    DoubtTooEarly {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// What was opened stands after a while.
    #[error("roots on records of block {height} could be doubted up to block {last}; they stand now")]
    DoubtTooLate {
        /// Of the record's block.
        height: Height,
        /// The last block.
        last: Height,
    },
    /// Only what somebody committed to can leak.
    #[error(
        "auditor {auditor} is bound to nothing on record {index} of block {height}; show what an auditor committed to, while it does"
    )]
    NothingToLeak {
        /// The accused.
        auditor: NodeId,
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// What may be told is no leak.
    #[error("auditors may open what they say of record {index} of block {height}; there is no secret left to show")]
    LeakTooLate {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Whoever shows an opening knows all of it.
    #[error(
        "auditor {auditor} committed to something else on record {index} of block {height}; show its secret, verdict and root"
    )]
    OtherCommitment {
        /// The accused.
        auditor: NodeId,
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Only what a committee looks for can be asked for.
    #[error("record {index} of block {height} is not before a committee; challenge a record while one audits it")]
    NothingToChallenge {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Who needs it may ask for it.
    #[error("the sender was not drawn for record {index} of block {height}; leave it to who was")]
    ChallengeNotDrawn {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Who knows what to say needs nothing more.
    #[error("the sender has committed to a verdict on record {index} of block {height} already; challenge before")]
    ChallengeCommitted {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Once is enough.
    #[error("the provider of record {index} of block {height} was challenged already; look at what it posts")]
    ChallengedBefore {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Behind the answer the committee needs its time.
    #[error("it is too late to challenge the provider of record {index} of block {height}; say what you found")]
    ChallengeTooLate {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Nobody is asked for what it could not bring.
    #[error("what is behind a record of {tokens} tokens is too long for the chain; say what you found")]
    PayloadTooLong {
        /// Of prompt and answer.
        tokens: u64,
    },
    /// What is asked for must find room.
    #[error(
        "open challenges leave no room for {parts} parts more, there is some for {room} in all; try again when one is answered"
    )]
    ChallengesFull {
        /// Most parts of what would be asked for.
        parts: u8,
        /// Parts for which there is room.
        room: usize,
    },
    /// Who was not asked brings nothing.
    #[error("no challenge about record {index} of block {height} is open; there is nothing to deliver")]
    NothingToDeliver {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// Nobody else's bytes get in the way.
    #[error("the sender is not the first node of record {index} of block {height}; leave it to that one")]
    DeliveredByOther {
        /// Of the record's block.
        height: Height,
        /// Of the record in it.
        index: u32,
    },
    /// The deposit pays for what a record needs, and for no more.
    #[error("there are {parts} parts, what is behind this record fits {max}; make them longer")]
    TooManyParts {
        /// As given.
        parts: u8,
        /// Most that there may be.
        max: u8,
    },
    /// All parts are of one whole.
    #[error("there are {parts} parts, the ones before are of {expected}; deliver those")]
    OtherParts {
        /// As given.
        parts: u8,
        /// As in the first that came.
        expected: u8,
    },
    /// Each part once.
    #[error("part {part} was delivered already; deliver another")]
    DeliveredBefore {
        /// Which.
        part: u8,
    },
    /// An epoch is attested in the next one.
    #[error("epoch {got} cannot be attested in epoch {now}; attest the one before it")]
    SobrietyEpoch {
        /// Of the attestation.
        got: Epoch,
        /// Of the block.
        now: Epoch,
    },
    /// Once.
    #[error("the sender has attested epoch {epoch} already")]
    SobrietyTold {
        /// Of the attestation.
        epoch: Epoch,
    },
    /// Nobody takes less than its records say, and who gave no answer has nothing to say.
    #[error(
        "the sender's records of epoch {epoch} say {tokens} tokens and {energy_uj} uJ; attest no less, and nothing where there are none"
    )]
    SobrietyBelow {
        /// Of the attestation.
        epoch: Epoch,
        /// By its records.
        tokens: u64,
        /// By its records, and no less than the physical floor.
        energy_uj: Microjoules,
    },
    /// What changes nothing only fills blocks.
    #[error("this consent contract is the one that is registered already, as revision {revision}; change something")]
    ConsentUnchanged {
        /// Of what is registered.
        revision: u64,
    },
    /// Only what is registered can be taken back.
    #[error("the sender has no consent contract to revoke")]
    NoConsent,
    /// See [`ModelFault`].
    #[error(transparent)]
    Model(#[from] ModelFault),
    /// Amounts fit their types.
    #[error("the transaction overflows {quantity}")]
    Overflow {
        /// What overflowed.
        quantity: &'static str,
    },
}

impl From<Overflow> for TransactionFault {
    fn from(overflow: Overflow) -> TransactionFault {
        TransactionFault::Overflow { quantity: overflow.quantity }
    }
}

/// A transaction that cannot be included, or a state that cannot be used. The first is the sender's fault, the second ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// See [`TransactionFault`].
    #[error(transparent)]
    Fault(#[from] TransactionFault),
    /// See [`StateError`].
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<ModelFault> for OrderError {
    fn from(fault: ModelFault) -> OrderError {
        OrderError::Fault(fault.into())
    }
}

impl From<Overflow> for OrderError {
    fn from(overflow: Overflow) -> OrderError {
        OrderError::Fault(overflow.into())
    }
}

/// Includes a transaction and returns what of its fee is left for the proposer. Where it fails, the overlay is as before.
pub(crate) fn apply(
    verified: &VerifiedTransaction,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<NanoAria, OrderError> {
    let (transaction, least) = (verified.transaction(), least(verified.places(), place.params()));
    check_time(transaction, least, place)?;
    let mut effects = Overlay::new(overlay);
    let own = own_fee(transaction, place.params());
    pay(transaction, own, place, &mut effects)?;
    act(transaction, least, place, &mut effects)?;
    let left = burn(transaction, own, place, &mut effects)?;
    let changes = effects.into_changes();
    overlay.absorb(changes);
    Ok(left)
}

fn check_time(transaction: &Transaction, least: NanoAria, place: Place<'_>) -> Result<(), TransactionFault> {
    let (expiry, height, max) = (transaction.expiry, place.height, place.params().request_expiry_blocks_max);
    if expiry < height {
        return Err(TransactionFault::Expired { expiry, height });
    }
    if expiry.blocks_since(height) > max {
        return Err(TransactionFault::ExpiryTooFar { expiry, height, max });
    }
    let fee = transaction.fee;
    if fee < least {
        return Err(TransactionFault::FeeTooLow { fee, min: least.get() });
    }
    Ok(())
}

/// What of a fee its sender pays: what a part of a payload costs at least, the deposit of who asked for it pays, and nobody gets.
pub fn own_fee(transaction: &Transaction, params: &Params) -> NanoAria {
    match transaction.action {
        Action::Deliver { .. } => transaction.fee.minus_or_zero(least(transaction.places(), params)),
        _ => transaction.fee,
    }
}

/// What an action costs besides the fee, all of it destroyed. What a doubt or a challenge is backed with may come back, and is no price.
pub fn price(action: &Action, params: &Params) -> NanoAria {
    match action {
        Action::RegisterModel { .. } => params.model_fee(),
        Action::Transfer { .. }
        | Action::Bond { .. }
        | Action::Unbond { .. }
        | Action::Consent { .. }
        | Action::ConfirmModel { .. }
        | Action::Doubt { .. }
        | Action::Sobriety(_)
        | Action::Leak { .. }
        | Action::Challenge { .. }
        | Action::Deliver { .. } => NanoAria::ZERO,
    }
}

/// Takes amount and fees from the sender, of the fee what is its own to pay, and counts the transaction.
fn pay(
    transaction: &Transaction,
    own: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let Transaction { sender, nonce, fee, action, .. } = transaction;
    let mut account = overlay.read().account(sender)?.unwrap_or_default();
    let (got, next) = (*nonce, account.nonce);
    if got < next {
        return Err(TransactionFault::NonceUsed { got, next }.into());
    }
    if got > next {
        return Err(TransactionFault::NonceAhead { got, next }.into());
    }
    let price = price(action, place.params());
    let fees = fee.checked_add(price)?;
    let needed = own.checked_add(price)?.checked_add(action.spends())?;
    let balance = account.balance;
    account.balance = balance.checked_sub(needed).map_err(|_| TransactionFault::BalanceTooLow { balance, needed })?;
    account.nonce = next.checked_add(1).ok_or(TransactionFault::Overflow { quantity: "nonce" })?;
    overlay.put(key::account(sender), &account);
    let mut totals = overlay.read().epoch_totals(place.epoch())?;
    totals.transactions = totals.transactions.saturating_add(1);
    totals.fees = totals.fees.checked_add(fees)?;
    overlay.put(key::epoch(place.epoch()), &totals);
    Ok(())
}

/// Does what is ordered. `least`: the least fee.
fn act(
    transaction: &Transaction,
    least: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let sender = &transaction.sender;
    match &transaction.action {
        Action::Transfer { to, amount } => credit_balance(to, *amount, overlay).map_err(OrderError::State),
        Action::Bond { amount } => {
            let mut account = overlay.read().account(sender)?.unwrap_or_default();
            account.bond = account.bond.checked_add(*amount)?;
            overlay.put(key::account(sender), &account);
            if overlay.read().candidate(sender)?.is_none() {
                overlay.put(key::candidate(sender), &Candidate::default());
            }
            Ok(())
        }
        Action::Unbond { amount } => unbond(sender, *amount, place, overlay),
        Action::Doubt { height, index, auditor } => doubt::raise(sender, (*height, *index), auditor, place, overlay),
        Action::Leak { height, index, auditor, opening } => {
            leak::show(sender, (*height, *index), (auditor, opening), place, overlay)
        }
        Action::Challenge { height, index } => challenge::raise(sender, (*height, *index), place, overlay),
        Action::Deliver { height, index, part, parts, sealed } => {
            let part = Part { number: (*part, *parts), sealed, fee: least };
            challenge::deliver(sender, (*height, *index), &part, place, overlay)
        }
        Action::Sobriety(attestation) => sobriety::attest(sender, attestation, place, overlay),
        Action::Consent { contract } => state_consent(sender, *contract, place.height, overlay),
        Action::RegisterModel { model, name, shape } => model::propose(sender, (model, name, shape), place, overlay),
        Action::ConfirmModel { model, proposal } => model::confirm(sender, (model, proposal), place, overlay),
    }
}

/// Puts a contract in the place of the one before, or takes that back.
fn state_consent(
    node: &NodeId,
    contract: Option<Consent>,
    height: Height,
    overlay: &mut Overlay<'_>,
) -> Result<(), OrderError> {
    let before = overlay.read().consent(node)?;
    let (registered, revision) = before.map_or((None, 0), |stated| (stated.contract, stated.revision));
    if registered == contract {
        let fault = match contract {
            Some(_) => TransactionFault::ConsentUnchanged { revision },
            None => TransactionFault::NoConsent,
        };
        return Err(fault.into());
    }
    let revision = revision.checked_add(1).ok_or(TransactionFault::Overflow { quantity: "consent revision" })?;
    overlay.put(key::consent(node), &StatedConsent { contract, revision, height });
    Ok(())
}

pub(super) fn credit_balance(node: &NodeId, amount: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    // What is given was somewhere in one supply, which fits its type.
    let damaged = |_: Overflow| StateError::Damaged { key: key::account(node) };
    account.balance = account.balance.checked_add(amount).map_err(damaged)?;
    overlay.put(key::account(node), &account);
    Ok(())
}

fn unbond(node: &NodeId, amount: NanoAria, place: Place<'_>, overlay: &mut Overlay<'_>) -> Result<(), OrderError> {
    let mut account = overlay.read().account(node)?.unwrap_or_default();
    let bond = account.backing();
    if amount > bond {
        return Err(TransactionFault::BondTooLow { bond, amount }.into());
    }
    account.unbonding = account.unbonding.checked_add(amount)?;
    overlay.put(key::account(node), &account);
    let due = key::unbonding(place.height.plus(place.params().unbond_blocks)?, node);
    let waiting = overlay.read().unbonding(&due)?.checked_add(amount)?;
    overlay.put(due, &waiting);
    Ok(())
}

/// Destroys what nobody gets: a part of what the sender paid as a fee, and the whole price. Returns the rest of the fee.
fn burn(
    transaction: &Transaction,
    fee: NanoAria,
    place: Place<'_>,
    overlay: &mut Overlay<'_>,
) -> Result<NanoAria, OrderError> {
    let params = place.params();
    let burned = NanoAria::new(part(fee.get(), params.fee_burn_ppm));
    let mut supply = overlay.read().supply()?;
    supply.burned = supply.burned.checked_add(burned)?.checked_add(price(&transaction.action, params))?;
    overlay.put(key::SUPPLY.to_vec(), &supply);
    Ok(fee.checked_sub(burned)?)
}

/// Gives the proposer what the fees of its block left.
pub(crate) fn reward_proposer(proposer: &NodeId, fees: NanoAria, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    if fees == NanoAria::ZERO {
        return Ok(());
    }
    credit_balance(proposer, fees, overlay)
}

/// Bonds whose time has come are free to spend. What was slashed meanwhile is gone. A bounded number per block: a crowd is
/// paid out over several.
pub(crate) fn release_bonds(height: Height, overlay: &mut Overlay<'_>) -> Result<(), StateError> {
    let first = overlay.scan(key::UNBONDING, 1)?;
    let is_due = |key: &[u8]| -> Result<bool, StateError> {
        let due = key::height_of_unbonding(key).ok_or_else(|| StateError::Damaged { key: key.to_vec() })?;
        Ok(due <= height)
    };
    if !first.first().map_or(Ok(false), |(key, _)| is_due(key))? {
        return Ok(());
    }
    for (entry, _) in overlay.scan(key::UNBONDING, STATE_SCAN_MAX)? {
        if !is_due(&entry)? {
            break;
        }
        let damaged = |_: Overflow| StateError::Damaged { key: entry.clone() };
        let node = NodeId::new(key::last_id(&entry).ok_or_else(|| StateError::Damaged { key: entry.clone() })?);
        let amount = overlay.read().unbonding(&entry)?;
        let mut account = overlay.read().account(&node)?.unwrap_or_default();
        let paid = amount.min(account.bond);
        account.unbonding = account.unbonding.minus_or_zero(amount);
        account.bond = account.bond.checked_sub(paid).map_err(damaged)?;
        account.balance = account.balance.checked_add(paid).map_err(damaged)?;
        overlay.put(key::account(&node), &account);
        overlay.delete(entry);
    }
    Ok(())
}
