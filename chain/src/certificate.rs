//! Who may vote, votes, and the certificate that makes a block final: more than two thirds of all power.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::codec::Versioned;
use crate::error::CertificateError;
use crate::hash::Domain;
use crate::ids::{BlockHash, ChainId, Digest, NodeId};
use crate::keys::{self, NodeKey, Signature};
use crate::limits::{CERTIFICATE_BYTES_MAX, POWER_TOTAL_MAX, VALIDATOR_SET_BYTES_MAX, VALIDATORS_MAX};
use crate::units::{Height, Round};

/// A member of a validator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Validator {
    /// The node.
    pub node_id: NodeId,
    /// Its voting weight, above zero.
    pub power: u64,
}

/// The nodes that vote on a block. Invariant: ascending by id, each once, with power, and not too many.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct ValidatorSet {
    members: Vec<Validator>,
}

impl ValidatorSet {
    /// A set of these members, in any order.
    pub fn new(mut members: Vec<Validator>) -> Result<ValidatorSet, CertificateError> {
        members.sort_by_key(|member| member.node_id);
        ValidatorSet::sorted(members)
    }

    fn sorted(members: Vec<Validator>) -> Result<ValidatorSet, CertificateError> {
        if !(1..=VALIDATORS_MAX).contains(&members.len()) {
            return Err(CertificateError::SetSize { got: members.len() });
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node_id >= pair[1].node_id) {
            return Err(CertificateError::SetOrder { node: pair[1].node_id });
        }
        if let Some(member) = members.iter().find(|member| member.power == 0) {
            return Err(CertificateError::NoPower { node: member.node_id });
        }
        let total = members.iter().try_fold(0u64, |sum, member| sum.checked_add(member.power));
        if total.is_none_or(|total| total > POWER_TOTAL_MAX) {
            return Err(CertificateError::PowerTotal);
        }
        Ok(ValidatorSet { members })
    }

    /// Its members, ascending by id.
    pub fn members(&self) -> &[Validator] {
        &self.members
    }

    /// Power of a node; zero for one that is no member.
    pub fn power_of(&self, node: &NodeId) -> u64 {
        let place = self.members.binary_search_by_key(node, |member| member.node_id);
        place.map_or(0, |place| self.members[place].power)
    }

    /// Power of all members.
    pub fn total_power(&self) -> u64 {
        self.members.iter().map(|member| member.power).sum()
    }

    /// Whether this much power decides: more than two thirds.
    pub fn is_quorum(&self, power: u64) -> bool {
        u128::from(power) * 3 > u128::from(self.total_power()) * 2
    }

    /// Its hash, which headers carry.
    pub fn hash(&self) -> Digest {
        Domain::VALIDATORS.hash(&self.encode())
    }
}

impl BorshDeserialize for ValidatorSet {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<ValidatorSet> {
        let members = crate::codec::bounded::validators(reader)?;
        ValidatorSet::sorted(members)
            .map_err(|fault| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, fault.to_string()))
    }
}

impl Versioned for ValidatorSet {
    const NAME: &'static str = "validator set";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = VALIDATOR_SET_BYTES_MAX;
}

/// A validator's precommit: this block, at this height, in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Height voted on.
    pub height: Height,
    /// Attempt at that height.
    pub round: Round,
    /// The block.
    pub block_hash: BlockHash,
    /// Who votes.
    pub node_id: NodeId,
    /// The voter's signature.
    pub signature: Signature,
}

impl Vote {
    /// Signs a precommit.
    pub fn sign(key: &NodeKey, chain_id: &ChainId, height: Height, round: Round, block_hash: BlockHash) -> Vote {
        let signature = key.sign_precommit(chain_id, height, round, &block_hash);
        Vote { height, round, block_hash, node_id: key.node_id(), signature }
    }

    /// Checks that a member of the set signed it.
    pub fn verify(&self, chain_id: &ChainId, set: &ValidatorSet) -> Result<(), CertificateError> {
        if set.power_of(&self.node_id) == 0 {
            return Err(CertificateError::Stranger { node: self.node_id });
        }
        let Vote { height, round, block_hash, node_id, signature } = self;
        if !keys::verify_precommit(node_id, chain_id, *height, *round, block_hash, signature) {
            return Err(CertificateError::Signature { node: *node_id });
        }
        Ok(())
    }
}

/// A signature inside a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommitSignature {
    /// Who signed.
    pub node_id: NodeId,
    /// The precommit's signature.
    pub signature: Signature,
}

/// Precommits for one block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommitCertificate {
    /// Height of the block.
    pub height: Height,
    /// Attempt in which it was decided.
    pub round: Round,
    /// The block.
    pub block_hash: BlockHash,
    /// Signatures, ascending by signer, each signer once.
    #[borsh(deserialize_with = "crate::codec::bounded::validators")]
    pub signatures: Vec<CommitSignature>,
}

impl CommitCertificate {
    /// Gathers the votes for one block in one round; others are left out. Whether they suffice,
    /// [`verify`](CommitCertificate::verify) tells.
    pub fn gather(height: Height, round: Round, block_hash: BlockHash, votes: &[Vote]) -> CommitCertificate {
        let mut signatures: Vec<CommitSignature> = votes
            .iter()
            .filter(|vote| (vote.height, vote.round, vote.block_hash) == (height, round, block_hash))
            .map(|vote| CommitSignature { node_id: vote.node_id, signature: vote.signature })
            .collect();
        signatures.sort_by_key(|signature| signature.node_id);
        signatures.dedup_by_key(|signature| signature.node_id);
        CommitCertificate { height, round, block_hash, signatures }
    }

    /// Checks every signature and the quorum; returns the power that signed.
    pub fn verify(&self, chain_id: &ChainId, set: &ValidatorSet) -> Result<u64, CertificateError> {
        let mut power = 0;
        for (place, signed) in self.signatures.iter().enumerate() {
            let node = signed.node_id;
            let in_order = place == 0 || self.signatures[place - 1].node_id < node;
            if !in_order {
                return Err(CertificateError::SignatureOrder { node });
            }
            let vote = Vote {
                height: self.height,
                round: self.round,
                block_hash: self.block_hash,
                node_id: node,
                signature: signed.signature,
            };
            vote.verify(chain_id, set)?;
            power += set.power_of(&node);
        }
        if !set.is_quorum(power) {
            return Err(CertificateError::NoQuorum { power, total: set.total_power() });
        }
        Ok(power)
    }
}

impl Versioned for CommitCertificate {
    const NAME: &'static str = "certificate";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = CERTIFICATE_BYTES_MAX;
}
