//! BLAKE3 in domains: one constant each, so that a hash made for one purpose never counts for another.

use borsh::BorshSerialize;

use crate::codec;
use crate::ids::Digest;

/// What a hash is for. The text is BLAKE3's key derivation context; changing one is a consensus change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain(&'static str);

impl Domain {
    /// Id of a request.
    pub const REQUEST: Domain = Domain("aria/request/v1");
    /// Id of a record.
    pub const RECORD: Domain = Domain("aria/record/v1");
    /// Hash of a block's header.
    pub const BLOCK: Domain = Domain("aria/block/v1");
    /// Digest of a signed proof.
    pub const PROOFS: Domain = Domain("aria/proofs/v1");
    /// Digest of all that a block carries.
    pub const BODY: Domain = Domain("aria/body/v3");
    /// Id of a transaction.
    pub const TRANSACTION: Domain = Domain("aria/transaction/v1");
    /// Id of a proposal to register a model.
    pub const MODEL_PROPOSAL: Domain = Domain("aria/model-proposal/v1");
    /// Digest of a signed transaction.
    pub const TRANSACTIONS: Domain = Domain("aria/transactions/v1");
    /// Digest of a piece of evidence.
    pub const EVIDENCE: Domain = Domain("aria/evidence/v1");
    /// Records root of a block without records.
    pub const NO_RECORDS: Domain = Domain("aria/no-records/v1");
    /// Hash of a validator set.
    pub const VALIDATORS: Domain = Domain("aria/validators/v1");
    /// Commitment to the token ids of a prompt.
    pub const COMMIT_PROMPT: Domain = Domain("aria/commit/prompt/v1");
    /// Commitment to the token ids of all choices of an answer.
    pub const COMMIT_OUTPUT: Domain = Domain("aria/commit/output/v1");
    /// Commitment to the stop strings of a request.
    pub const COMMIT_STOP: Domain = Domain("aria/commit/stop/v1");
    /// Commitment to the logit bias of a request.
    pub const COMMIT_LOGIT_BIAS: Domain = Domain("aria/commit/logit-bias/v1");
    /// A requester's signature over its request.
    pub const SIGN_REQUEST: Domain = Domain("aria/sign/request/v1");
    /// A stage node's signature over a record.
    pub const SIGN_STAGE: Domain = Domain("aria/sign/stage/v1");
    /// A requester's signature over the record it received.
    pub const SIGN_RECEIPT: Domain = Domain("aria/sign/receipt/v1");
    /// A sender's signature over its transaction.
    pub const SIGN_TRANSACTION: Domain = Domain("aria/sign/transaction/v1");
    /// Digest of a consent contract.
    pub const CONSENT: Domain = Domain("aria/consent/v1");
    /// Id of an attestation.
    pub const ATTESTATION: Domain = Domain("aria/attestation/v1");
    /// Digest of a signed attestation.
    pub const ATTESTATIONS: Domain = Domain("aria/attestations/v1");
    /// An auditor's commitment to its opening.
    pub const AUDIT: Domain = Domain("aria/audit/v1");
    /// An auditor's secret for one record, from its key.
    pub const AUDIT_SECRET: Domain = Domain("aria/audit-secret/v1");
    /// Keys that seal what is behind a record, from the key of who seals it.
    pub const SEAL_SECRET: Domain = Domain("aria/seal-secret/v1");
    /// Key that seals the key of a sealed payload to one of its readers.
    pub const SEAL: Domain = Domain("aria/seal/v1");
    /// Who is drawn to audit a record.
    pub const DRAW: Domain = Domain("aria/draw/v1");
    /// Salt of a transcript, from that of the output's commitment.
    pub const TRANSCRIPT_SALT: Domain = Domain("aria/transcript-salt/v1");
    /// The chain's random number after a block.
    pub const BEACON: Domain = Domain("aria/beacon/v1");
    /// An auditor's signature over its attestation.
    pub const SIGN_ATTESTATION: Domain = Domain("aria/sign/attestation/v1");
    /// A validator's precommit.
    pub const SIGN_PRECOMMIT: Domain = Domain("aria/sign/precommit/v1");
    /// A validator's precommit for no block.
    pub const SIGN_NIL_PRECOMMIT: Domain = Domain("aria/sign/nil-precommit/v1");
    /// A validator's prevote.
    pub const SIGN_PREVOTE: Domain = Domain("aria/sign/prevote/v1");
    /// A proposer's proposal.
    pub const SIGN_PROPOSAL: Domain = Domain("aria/sign/proposal/v1");
    /// What a node remembers having seen: never sent and never kept.
    pub const SEEN: Domain = Domain("aria/seen/v1");
    /// Checksum of a value in the store.
    pub const STORE_VALUE: Domain = Domain("aria/store-value/v1");
    /// A chunk of a snapshot.
    pub const SNAPSHOT_CHUNK: Domain = Domain("aria/snapshot-chunk/v1");

    /// Hash of bytes in this domain.
    pub fn hash(self, bytes: &[u8]) -> Digest {
        Digest::new(blake3::derive_key(self.0, bytes))
    }

    /// Hash of a value's borsh bytes in this domain.
    pub fn hash_of<T: BorshSerialize>(self, value: &T) -> Digest {
        self.hash(&codec::to_bytes(value))
    }
}

/// Salt of a commitment: 32 bytes from the system's source, known to the parties only.
pub type Salt = [u8; 32];

/// Commitment to the token ids of a prompt: what a request shows of it.
pub fn commit_prompt(salt: &Salt, tokens: &[u32]) -> Digest {
    Domain::COMMIT_PROMPT.hash_of(&(salt, tokens))
}

/// Commitment to the token ids of every choice of an answer, in the order of the choices.
pub fn commit_output(salt: &Salt, choices: &[Vec<u32>]) -> Digest {
    Domain::COMMIT_OUTPUT.hash_of(&(salt, choices))
}

/// Commitment to the stop strings of a request, in the order given.
pub fn commit_stop(salt: &Salt, stop: &[String]) -> Digest {
    Domain::COMMIT_STOP.hash_of(&(salt, stop))
}

/// Commitment to the logit bias of a request: token ids, ascending, with their bias in parts per million.
pub fn commit_logit_bias(salt: &Salt, bias_ppm: &[(u32, i64)]) -> Digest {
    Domain::COMMIT_LOGIT_BIAS.hash_of(&(salt, bias_ppm))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Domain; 36] = [
        Domain::REQUEST,
        Domain::RECORD,
        Domain::BLOCK,
        Domain::PROOFS,
        Domain::BODY,
        Domain::TRANSACTION,
        Domain::MODEL_PROPOSAL,
        Domain::TRANSACTIONS,
        Domain::SIGN_TRANSACTION,
        Domain::ATTESTATION,
        Domain::ATTESTATIONS,
        Domain::AUDIT,
        Domain::AUDIT_SECRET,
        Domain::SEAL_SECRET,
        Domain::SEAL,
        Domain::DRAW,
        Domain::TRANSCRIPT_SALT,
        Domain::BEACON,
        Domain::SIGN_ATTESTATION,
        Domain::EVIDENCE,
        Domain::NO_RECORDS,
        Domain::VALIDATORS,
        Domain::COMMIT_PROMPT,
        Domain::COMMIT_OUTPUT,
        Domain::COMMIT_STOP,
        Domain::COMMIT_LOGIT_BIAS,
        Domain::SIGN_REQUEST,
        Domain::SIGN_STAGE,
        Domain::SIGN_RECEIPT,
        Domain::SIGN_PRECOMMIT,
        Domain::SIGN_NIL_PRECOMMIT,
        Domain::SIGN_PREVOTE,
        Domain::SIGN_PROPOSAL,
        Domain::SEEN,
        Domain::STORE_VALUE,
        Domain::SNAPSHOT_CHUNK,
    ];

    #[test]
    fn one_text_in_two_domains_gives_two_hashes() {
        let hashes: std::collections::BTreeSet<Digest> = ALL.iter().map(|domain| domain.hash(b"same")).collect();
        assert_eq!(hashes.len(), ALL.len());
    }

    #[test]
    fn a_hash_of_a_value_is_the_hash_of_its_bytes() {
        assert_eq!(Domain::BLOCK.hash_of(&7u16), Domain::BLOCK.hash(&[7, 0]));
        assert_eq!(Domain::BLOCK.hash(b"x"), Digest::new(blake3::derive_key("aria/block/v1", b"x")));
    }

    #[test]
    fn commitments_hide_behind_their_salt_and_bind_every_token() {
        let prompt = commit_prompt(&[1; 32], &[1, 2, 3]);
        assert_ne!(prompt, commit_prompt(&[2; 32], &[1, 2, 3]));
        assert_ne!(prompt, commit_prompt(&[1; 32], &[1, 2, 4]));
        assert_ne!(prompt, commit_prompt(&[1; 32], &[1, 2]));
        assert_eq!(prompt, commit_prompt(&[1; 32], &[1, 2, 3]));
        // Tokens cannot move from one choice to the next.
        assert_ne!(commit_output(&[1; 32], &[vec![1], vec![2]]), commit_output(&[1; 32], &[vec![1, 2], vec![]]));
        assert_ne!(commit_stop(&[1; 32], &["ab".into()]), commit_stop(&[1; 32], &["a".into(), "b".into()]));
        assert_ne!(commit_logit_bias(&[1; 32], &[(1, -1)]), commit_logit_bias(&[1; 32], &[(1, 1)]));
    }
}
