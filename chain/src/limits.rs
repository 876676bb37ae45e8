//! Every size and count of the protocol, each with its reason. Those that a genesis may narrow are upper bounds here.

/// Longest name of a chain: room for a word and a key prefix, and short enough for a log line.
pub const CHAIN_ID_BYTES_MAX: usize = 48;

/// Stages of one pipeline. Four times the deepest network measured.
pub const STAGES_MAX: usize = 32;

/// Choices of one request: what OpenAI's door allows, with room.
pub const CHOICES_MAX: u8 = 128;

/// Longest encoding of a request: fixed fields and the longest chain id come to 330 bytes.
pub const REQUEST_BYTES_MAX: usize = 384;

/// Encoded stage: node id and two layer numbers.
pub const STAGE_BYTES: usize = 36;

/// Longest encoding of a record: 32 stages and 250 bytes of fixed fields.
pub const RECORD_BYTES_MAX: usize = 256 + STAGES_MAX * STAGE_BYTES;

/// Encoded signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Longest encoding of a signed proof: request, record, a signature per stage, two by the requester.
pub const PROOF_BYTES_MAX: usize = REQUEST_BYTES_MAX + RECORD_BYTES_MAX + (STAGES_MAX + 2) * SIGNATURE_BYTES + 8;

/// Records of one block. Building their Merkle tree takes milliseconds, verifying their signatures a tenth of a second.
pub const BLOCK_RECORDS_MAX: usize = 1_024;

/// Longest encoding of a piece of evidence: 44 bytes of place, and twice at most 38 bytes said and a signature.
pub const EVIDENCE_BYTES_MAX: usize = 256;

/// Pieces of evidence in one block. Each excludes one validator, so there are never many.
pub const BLOCK_EVIDENCE_MAX: usize = 16;

/// Longest name of a model. It is kept in the state and shown in lists.
pub const MODEL_NAME_BYTES_MAX: usize = 64;

/// A transaction takes a place in a block for each that it begins of so many bytes. All but parts of payloads take one: one that
/// registers a model under the longest name has 300 bytes.
pub const TRANSACTION_PLACE_BYTES: usize = 320;

/// Longest encoding of a signed transaction: one that delivers the longest part of a payload has 3,776 bytes.
pub const TRANSACTION_BYTES_MAX: usize = 12 * TRANSACTION_PLACE_BYTES;

/// Longest part of a sealed payload: it fits one value of the state, and its transaction one of the store.
pub const DELIVERY_PART_BYTES_MAX: usize = 3_584;

/// Parts of one sealed payload: prompt and answer of 32,768 tokens, with the longest options.
pub const DELIVERY_PARTS_MAX: u8 = 40;

/// To whom a payload can be sealed at once: the largest committee.
pub const SEAL_RECIPIENTS_MAX: usize = 16;

/// Longest part of a payload that is no token: 16 stop strings of 256 bytes, 300 biases, salts, and lengths of 128 choices.
pub const PAYLOAD_OPTIONS_BYTES_MAX: usize = 8_448;

/// Models that wait to be confirmed at once. All of them are read where one is proposed, and where an epoch begins.
pub const MODEL_PROPOSALS_MAX: usize = 256;

/// Places for transactions in one block, and so the most that it holds. Verifying their signatures takes as long as those of 340
/// records.
pub const BLOCK_TRANSACTIONS_MAX: usize = 1_024;

/// Bytes of all transactions of one block: what its places hold.
pub const BLOCK_TRANSACTION_BYTES_MAX: usize = BLOCK_TRANSACTIONS_MAX * TRANSACTION_PLACE_BYTES;

/// Records of one attestation: their openings fit one value of the store.
pub const ATTESTATION_ITEMS_MAX: usize = 48;

/// Longest encoding of a signed attestation: 69 bytes for each opening, and 170 of fixed fields.
pub const ATTESTATION_BYTES_MAX: usize = 3_584;

/// Attestations of one block: twice for each record of five auditors, forty-eight records in each.
pub const BLOCK_ATTESTATIONS_MAX: usize = 256;

/// Longest encoding of a body: a block travels in one message of at most 16 MiB and is held in memory several times.
pub const BODY_BYTES_MAX: usize = 6 * 1_024 * 1_024;

/// Longest encoding of a header; the chain id is its only part of variable length.
pub const HEADER_BYTES_MAX: usize = 512;

/// Members of a validator set: every member signs every block, and every node verifies all of it.
pub const VALIDATORS_MAX: usize = 100;

/// Encoded member of a validator set: node id and power.
pub const VALIDATOR_BYTES: usize = 40;

/// Longest name of a processor.
pub const HARDWARE_BYTES_MAX: usize = 40;

/// Longest encoding of a validator set.
pub const VALIDATOR_SET_BYTES_MAX: usize = 8 + VALIDATORS_MAX * VALIDATOR_BYTES;

/// Longest encoding of a certificate: every member's id and signature.
pub const CERTIFICATE_BYTES_MAX: usize = 64 + VALIDATORS_MAX * (32 + SIGNATURE_BYTES);

/// Sum of all power. Far below 2^63, so that the proposer's priorities fit signed 64 bits.
pub const POWER_TOTAL_MAX: u64 = 1 << 60;

/// Most hex digits of a stamp that a header can be asked for: six are 16 million hashes, seconds of work.
pub const STAMP_ZERO_DIGITS_MAX: u8 = 6;

/// Largest value in the store, header of the value included. Measured: above this the database keeps leaf pages in
/// files that it neither syncs nor removes.
pub const STORE_VALUE_BYTES_MAX: usize = 6 * 1_024;

/// Piece of a value that is split over several keys.
pub const STORE_CHUNK_BYTES: usize = 4 * 1_024;

/// Longest key of a state entry.
pub const STATE_KEY_BYTES_MAX: usize = 128;

/// Longest value of a state entry.
pub const STATE_VALUE_BYTES_MAX: usize = 5_632;

/// Records of one page of a listing.
pub const PAGE_RECORDS_MAX: usize = 100;

/// Index entries looked at for one page. A filter that matches little ends its page early and gives a cursor.
pub const PAGE_SCAN_MAX: usize = 10_000;

/// State entries of one scan.
pub const STATE_SCAN_MAX: usize = 1_000;

/// Proofs waiting for a block.
pub const MEMPOOL_PROOFS_MAX: usize = 10_000;

/// Bytes of all waiting proofs.
pub const MEMPOOL_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// Waiting proofs of one requester: nobody fills the pool alone. A local node is one requester, so this is generous.
pub const MEMPOOL_PER_REQUESTER_MAX: usize = 2_500;

/// Transactions waiting for a block.
pub const MEMPOOL_TRANSACTIONS_MAX: usize = 10_000;

/// Waiting transactions of one account: nobody fills the pool alone.
pub const MEMPOOL_PER_SENDER_MAX: usize = 100;

/// Bytes of all waiting transactions.
pub const MEMPOOL_TRANSACTION_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Bytes of one account's waiting transactions: a payload of the most parts, and some orders.
pub const MEMPOOL_SENDER_BYTES_MAX: usize = 256 * 1_024;

/// Attestations waiting for a block.
pub const MEMPOOL_ATTESTATIONS_MAX: usize = 4_096;

/// Nodes of one Merkle proof: a tree of 2^40 records, far above any block.
pub const MERKLE_PROOF_NODES_MAX: usize = 40;

/// Longest key file: a PKCS#8 key takes 250 bytes.
pub const KEY_FILE_BYTES_MAX: u64 = 4 * 1_024;

const _: () = assert!(PROOF_BYTES_MAX <= STORE_CHUNK_BYTES, "a proof fits one store value");
const _: () = assert!(
    BLOCK_RECORDS_MAX * PROOF_BYTES_MAX
        + BLOCK_TRANSACTION_BYTES_MAX
        + BLOCK_ATTESTATIONS_MAX * ATTESTATION_BYTES_MAX
        + BLOCK_EVIDENCE_MAX * EVIDENCE_BYTES_MAX
        + 16
        <= BODY_BYTES_MAX,
    "the fullest body is allowed"
);
const _: () =
    assert!(TRANSACTION_BYTES_MAX <= PROOF_BYTES_MAX, "a transaction fits one store value, and one message of gossip");
const _: () = assert!(
    DELIVERY_PARTS_MAX as usize * TRANSACTION_BYTES_MAX <= MEMPOOL_SENDER_BYTES_MAX,
    "a whole payload can wait"
);
const _: () = assert!(DELIVERY_PART_BYTES_MAX + 8 <= STATE_VALUE_BYTES_MAX, "a part fits one state value");
const _: () = assert!(VALIDATOR_SET_BYTES_MAX <= STORE_CHUNK_BYTES, "a validator set fits one store value");
const _: () = assert!(STATE_VALUE_BYTES_MAX + 64 <= STORE_VALUE_BYTES_MAX, "a state value fits one store value");
const _: () = assert!(STORE_CHUNK_BYTES + 64 <= STORE_VALUE_BYTES_MAX, "a chunk fits one store value");
const _: () = assert!(BLOCK_RECORDS_MAX <= 1 << MERKLE_PROOF_NODES_MAX, "a record of a full block can be proven");
const _: () = assert!(MEMPOOL_PER_REQUESTER_MAX <= MEMPOOL_PROOFS_MAX, "the pool is larger than one's share");
