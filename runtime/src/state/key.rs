//! Every key of the state, byte by byte. The first byte names the table; numbers are big-endian, so that a scan
//! meets them in order.
//!
//! | Key | Value |
//! |---|---|
//! | `00` | lattice sum of all other entries, 2048 bytes |
//! | `01` | genesis hash |
//! | `02` | [`Supply`](crate::state::Supply) |
//! | `03` node | [`Account`](crate::state::Account) |
//! | `04` model | [`Model`](crate::state::Model) |
//! | `05` epoch (8) node | [`Work`](crate::state::Work) of the node in the epoch |
//! | `06` epoch (8) | [`EpochTotals`](crate::state::EpochTotals) |
//! | `07` expiry height (8) request | height (8) of the block that holds the record of this request |
//! | `08` | [`ValidatorSet`](aria_chain::certificate::ValidatorSet) that votes in this epoch |
//! | `09` | the same of the next epoch |
//! | `0a` node | [`Candidate`](crate::state::Candidate) |
//! | `0c` | the chain's random number after the last block, 32 bytes |
//! | `0f` epoch (8) node | [`Sobriety`](crate::state::Sobriety) of the node in the epoch |
//! | `0e` node | [`Reputation`](crate::reputation::Reputation) of a node of which something was settled |
//! | `0d` height (8) index (4) | [`Audit`](crate::state::Audit) of the record at this place |
//! | `10` node | [`StatedConsent`](crate::state::StatedConsent): what the node last stated of its machine |
//! | `11` `00` model proposal (32) | [`ModelProposal`](crate::state::ModelProposal) |
//! | `11` `01` name | digest of the model that was registered under the name by a transaction |
//! | `12` height (8) index (4) | [`Opened`](crate::state::Opened) by the auditors of the record at this place |
//! | `13` height (8) index (4) | [`Doubt`](crate::state::Doubt) about one of them |
//! | `14` epoch (8) node | [`SobrietyAttestation`](aria_chain::sobriety::SobrietyAttestation) of the node for the epoch |
//! | `15` epoch (8) model node | [`Spent`](crate::state::Spent): measured energy of the node's answers by the model, until it is compared |
//! | `16` node model | [`Standing`](crate::state::Standing) in this epoch |
//! | `17` height (8) index (4) | [`Challenge`](crate::state::Challenge) of the provider of the record at this place |
//! | `18` height (8) index (4) part (1) | bytes of a sealed part that it posted |
//! | `19` until (8) height (8) index (4) | nothing: a challenge that is open, by the last block that takes parts |
//! | `0b` height (8) node | [`NanoAria`](aria_chain::units::NanoAria) of the node's bond that is paid out at the height |

use aria_chain::ids::{Digest, ModelId, NodeId, RequestId};
use aria_chain::units::{Epoch, Height};

/// The sum over all other entries; the only one that the sum leaves out.
pub const LATTICE: &[u8] = &[0x00];
/// Hash of the genesis that this state grew from.
pub const GENESIS: &[u8] = &[0x01];
/// Amounts issued.
pub const SUPPLY: &[u8] = &[0x02];
/// Table of accounts.
pub const ACCOUNTS: &[u8] = &[0x03];
/// Table of registered models.
pub const MODELS: &[u8] = &[0x04];
/// Table of work by epoch and node.
pub const WORK: &[u8] = &[0x05];
/// Table of totals by epoch.
pub const EPOCHS: &[u8] = &[0x06];
/// Table of request ids that have been counted.
pub const REQUESTS: &[u8] = &[0x07];

/// The set that votes in this epoch.
pub const VOTERS: &[u8] = &[0x08];
/// The set that votes in the next epoch.
pub const NEXT_VOTERS: &[u8] = &[0x09];
/// Table of nodes that may get power.
pub const CANDIDATES: &[u8] = &[0x0a];

/// Table of bonds that are being freed, by the height at which they are paid out.
pub const UNBONDING: &[u8] = &[0x0b];

/// What a node is paid out at a height.
pub fn unbonding(due: Height, node: &NodeId) -> Vec<u8> {
    [UNBONDING, &due.get().to_be_bytes(), node.as_bytes()].concat()
}

/// The height inside a key of [`UNBONDING`].
pub fn height_of_unbonding(key: &[u8]) -> Option<Height> {
    height_behind(UNBONDING, key)
}

/// The chain's random number after the last block.
pub const BEACON: &[u8] = &[0x0c];
/// Table of audits that go on, by the place of their record.
pub const AUDITS: &[u8] = &[0x0d];

/// Table of reputations.
pub const REPUTATIONS: &[u8] = &[0x0e];

/// Table of what answers took, by epoch and node.
pub const SOBRIETY: &[u8] = &[0x0f];

/// Table of consent contracts, by node.
pub const CONSENTS: &[u8] = &[0x10];

/// What a node stated of its machine.
pub fn consent(node: &NodeId) -> Vec<u8> {
    [CONSENTS, node.as_bytes()].concat()
}

/// What the answers of a node took in an epoch.
pub fn sobriety(epoch: Epoch, node: &NodeId) -> Vec<u8> {
    [SOBRIETY, &epoch.get().to_be_bytes(), node.as_bytes()].concat()
}

/// What a node attested of an epoch.
pub fn attested(epoch: Epoch, node: &NodeId) -> Vec<u8> {
    [&[0x14], epoch.get().to_be_bytes().as_slice(), node.as_bytes()].concat()
}

/// Measured energy of an epoch.
pub fn measured_in(epoch: Epoch) -> Vec<u8> {
    [&[0x15], epoch.get().to_be_bytes().as_slice()].concat()
}

/// Measured energy of a node's answers by a model.
pub fn measured(epoch: Epoch, model: &ModelId, node: &NodeId) -> Vec<u8> {
    [measured_in(epoch).as_slice(), model.as_bytes(), node.as_bytes()].concat()
}

/// The ids inside a key of the one above.
pub fn ids_of_measured(key: &[u8]) -> Option<(ModelId, NodeId)> {
    let (model, node) = key.last_chunk::<64>()?.split_at_checked(32)?;
    Some((ModelId::new(model.try_into().ok()?), NodeId::new(node.try_into().ok()?)))
}

/// Table of who is vouched for, and who is an outlier.
pub const STANDINGS: &[u8] = &[0x16];

/// How a node stands with all models.
pub fn standings_of(node: &NodeId) -> Vec<u8> {
    [STANDINGS, node.as_bytes()].concat()
}

/// How a node stands with a model.
pub fn standing(node: &NodeId, model: &ModelId) -> Vec<u8> {
    [STANDINGS, node.as_bytes(), model.as_bytes()].concat()
}

/// The reputation of a node.
pub fn reputation(node: &NodeId) -> Vec<u8> {
    [REPUTATIONS, node.as_bytes()].concat()
}

/// Audits of the records of a block.
pub fn audits_of(height: Height) -> Vec<u8> {
    [AUDITS, &height.get().to_be_bytes()].concat()
}

/// The audit of a record.
pub fn audit(height: Height, index: u32) -> Vec<u8> {
    [AUDITS, &height.get().to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The place inside a key of [`AUDITS`].
pub fn place_of_audit(key: &[u8]) -> Option<(Height, u32)> {
    let height = height_behind(AUDITS, key)?;
    Some((height, u32::from_be_bytes(*key.last_chunk::<4>()?)))
}

/// Table of roots that may be doubted, by the place of their record.
pub const OPENED: &[u8] = &[0x12];
/// Table of doubts, by the place of their record.
pub const DOUBTS: &[u8] = &[0x13];

/// Roots of the records of a block.
pub fn opened_of(height: Height) -> Vec<u8> {
    [OPENED, &height.get().to_be_bytes()].concat()
}

/// Roots of a record's auditors.
pub fn opened(height: Height, index: u32) -> Vec<u8> {
    [OPENED, &height.get().to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The doubt about one of them.
pub fn doubt(height: Height, index: u32) -> Vec<u8> {
    [DOUBTS, &height.get().to_be_bytes(), &index.to_be_bytes()].concat()
}

/// Table of challenges, by the place of their record.
pub const CHALLENGES: &[u8] = &[0x17];

/// The challenge of a record's provider.
pub fn challenge(height: Height, index: u32) -> Vec<u8> {
    [CHALLENGES, &height.get().to_be_bytes(), &index.to_be_bytes()].concat()
}

/// A part that was posted.
pub fn delivered(height: Height, index: u32, part: u8) -> Vec<u8> {
    [&[0x18], height.get().to_be_bytes().as_slice(), &index.to_be_bytes(), &[part]].concat()
}

/// Table of open challenges, by the last block that takes parts.
pub const CHALLENGES_DUE: &[u8] = &[0x19];

/// Those of a block.
pub fn challenges_due(until: Height) -> Vec<u8> {
    [CHALLENGES_DUE, &until.get().to_be_bytes()].concat()
}

/// One of them.
pub fn challenge_due(until: Height, height: Height, index: u32) -> Vec<u8> {
    [challenges_due(until).as_slice(), &height.get().to_be_bytes(), &index.to_be_bytes()].concat()
}

/// The record's place inside a key of the one above.
pub fn place_of_due(key: &[u8]) -> Option<(Height, u32)> {
    let (height, index) = key.last_chunk::<12>()?.split_at_checked(8)?;
    Some((Height::new(u64::from_be_bytes(height.try_into().ok()?)), u32::from_be_bytes(index.try_into().ok()?)))
}

/// A node that may get power.
pub fn candidate(node: &NodeId) -> Vec<u8> {
    [CANDIDATES, node.as_bytes()].concat()
}

/// The account of a node.
pub fn account(node: &NodeId) -> Vec<u8> {
    [ACCOUNTS, node.as_bytes()].concat()
}

/// A registered model.
pub fn model(model: &ModelId) -> Vec<u8> {
    [MODELS, model.as_bytes()].concat()
}

/// Table of proposals to register a model.
pub const MODEL_PROPOSALS: &[u8] = &[0x11, 0x00];
/// Table of models that transactions registered, by name.
pub const MODEL_NAMES: &[u8] = &[0x11, 0x01];

/// All proposals to register a model.
pub fn model_proposals_of(model: &ModelId) -> Vec<u8> {
    [MODEL_PROPOSALS, model.as_bytes()].concat()
}

/// A proposal to register a model.
pub fn model_proposal(model: &ModelId, proposal: &Digest) -> Vec<u8> {
    [MODEL_PROPOSALS, model.as_bytes(), proposal.as_bytes()].concat()
}

/// Model and proposal inside a key of [`MODEL_PROPOSALS`].
pub fn ids_of_model_proposal(key: &[u8]) -> Option<(ModelId, Digest)> {
    let model = key.strip_prefix(MODEL_PROPOSALS)?.first_chunk::<32>()?;
    Some((ModelId::new(*model), Digest::new(last_id(key)?)))
}

/// The model that a transaction registered under a name.
pub fn model_name(name: &str) -> Vec<u8> {
    [MODEL_NAMES, name.as_bytes()].concat()
}

/// All work of an epoch.
pub fn work_of_epoch(epoch: Epoch) -> Vec<u8> {
    [WORK, &epoch.get().to_be_bytes()].concat()
}

/// The work of a node in an epoch.
pub fn work(epoch: Epoch, node: &NodeId) -> Vec<u8> {
    [WORK, &epoch.get().to_be_bytes(), node.as_bytes()].concat()
}

/// The totals of an epoch.
pub fn epoch(epoch: Epoch) -> Vec<u8> {
    [EPOCHS, &epoch.get().to_be_bytes()].concat()
}

/// A counted request. The expiry is part of the request, hence of its id: the key follows from either.
pub fn request(expiry: Height, request: &RequestId) -> Vec<u8> {
    [REQUESTS, &expiry.get().to_be_bytes(), request.as_bytes()].concat()
}

/// The expiry height inside a key of [`REQUESTS`].
pub fn expiry_of_request(key: &[u8]) -> Option<Height> {
    height_behind(REQUESTS, key)
}

fn height_behind(table: &[u8], key: &[u8]) -> Option<Height> {
    let bytes = key.strip_prefix(table)?.first_chunk::<8>()?;
    Some(Height::new(u64::from_be_bytes(*bytes)))
}

/// The id inside a key that ends in one.
pub fn last_id(key: &[u8]) -> Option<[u8; 32]> {
    key.last_chunk::<32>().copied()
}
