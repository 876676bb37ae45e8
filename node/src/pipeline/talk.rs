//! What gateway and stages say to each other. Each question has a number, which its answer repeats.

use aria_chain::codec::{Versioned, read_list, read_text};
use aria_chain::keys::Signature;
use aria_chain::limits::{RECORD_BYTES_MAX, REQUEST_BYTES_MAX};
use aria_chain::record::InferenceRecord;
use aria_chain::request::InferenceRequest;
use borsh::io::{Error, ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};

/// Bytes of the states in one message: what one step of a prompt takes at most, see [`rows_of`].
pub const STATES_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Roots of one choice: boundaries of the deepest model there can be a record of.
const ROOTS_MAX: usize = 1_024;
/// Longest reason why a stage does not do what it is asked.
pub const REASON_BYTES_MAX: usize = 256;

/// Positions of one step for a model of this width: a quarter of what a message holds, so that neither side waits long for the other.
pub fn rows_of(dim: usize) -> usize {
    (STATES_BYTES_MAX / 4 / (dim.max(1) * size_of::<f32>())).clamp(1, aria_inference::stage::STAGE_ROWS_MAX)
}

/// A message on the channel of stages.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub enum Talk {
    /// A question of a gateway, and its number.
    Ask(u64, Ask),
    /// The answer to the question of this number.
    Answer(u64, Answer),
}

impl Versioned for Talk {
    const NAME: &'static str = "stage message";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = STATES_BYTES_MAX + 64 * 1_024;
}

const _: () =
    assert!(RECORD_BYTES_MAX + REQUEST_BYTES_MAX + 32 * ROOTS_MAX < 60 * 1_024, "everything else fits beside");

/// What a gateway asks of a stage, which it numbers as it likes.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub enum Ask {
    /// To begin.
    Open(u64, Box<ToRun>),
    /// To run its layers over the next positions.
    Run(u64, States),
    /// To end.
    Close(u64),
    /// To sign a record that binds what it computed.
    Sign(u64, Box<ToSign>),
}

/// What a stage is to compute, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ToRun {
    /// The request that is answered.
    pub request: InferenceRequest,
    /// Its requester's.
    pub signature: Signature,
    /// First layer.
    pub layer_start: u16,
    /// Behind the last.
    pub layer_end: u16,
    /// Positions at most.
    pub positions: u32,
    /// Key of the transcript's leaves.
    pub leaf_key: [u8; 32],
}

/// A record, and what shows its stages that it binds what they computed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ToSign {
    /// The record.
    pub record: InferenceRecord,
    /// Roots of all boundaries of its one choice.
    pub roots: Roots,
    /// Hash of its text.
    pub text: [u8; 32],
}

/// What a stage answers.
#[derive(Clone, Debug, PartialEq, BorshSerialize, BorshDeserialize)]
pub enum Answer {
    /// It can begin.
    Open,
    /// What its layers give.
    States(States),
    /// It ended.
    Closed(Closed),
    /// It signed.
    Signed(Signature),
    /// It does not, and why.
    Refused(Reason),
}

/// What a stage says at its end.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Closed {
    /// Roots of what it took over and of what each of its layers gave.
    pub roots: Roots,
    /// What it took, in microjoules.
    pub energy_uj: u64,
    /// Whether that was measured.
    pub is_measured: bool,
}

/// States, `[positions][dim]`, as the bits of binary32.
#[derive(Clone, Debug, PartialEq)]
pub struct States(pub Vec<f32>);

impl BorshSerialize for States {
    fn serialize<W: borsh::io::Write>(&self, writer: &mut W) -> Result<(), Error> {
        let length = u32::try_from(self.0.len()).map_err(|_| Error::from(ErrorKind::InvalidData))?;
        length.serialize(writer)?;
        let bytes: Vec<u8> = self.0.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect();
        writer.write_all(&bytes)
    }
}

impl BorshDeserialize for States {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<States, Error> {
        let length = u32::deserialize_reader(reader)? as usize;
        if length > STATES_BYTES_MAX / size_of::<f32>() {
            return Err(Error::new(ErrorKind::InvalidData, format!("states: {length} numbers are too many")));
        }
        let mut bytes = vec![0; length * size_of::<f32>()];
        reader.read_exact(&mut bytes)?;
        let bits = bytes.as_chunks::<4>().0.iter();
        Ok(States(bits.map(|bits| f32::from_bits(u32::from_le_bytes(*bits))).collect()))
    }
}

/// At most 1,024 roots.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Roots(pub Vec<[u8; 32]>);

impl BorshDeserialize for Roots {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Roots, Error> {
        read_list(reader, ROOTS_MAX, "roots").map(Roots)
    }
}

/// Why something is not done, for people.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct Reason(pub String);

impl Reason {
    /// The beginning of `text`, as much as a message takes.
    pub fn new(text: &str) -> Reason {
        let end = (0..=REASON_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        Reason(text[..end.unwrap_or(0)].to_owned())
    }
}

impl BorshDeserialize for Reason {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Reason, Error> {
        read_text(reader, REASON_BYTES_MAX, "reason").map(Reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_keep_every_bit_and_have_an_end() {
        let states = States(vec![0.0, -0.0, 1.5, f32::from_bits(0x7fc0_1234)]);
        let message = Talk::Ask(3, Ask::Run(7, states.clone()));
        let Ok(Talk::Ask(3, Ask::Run(7, States(again)))) = Talk::decode(&message.encode()) else { panic!("the same") };
        let bits = |states: &[f32]| states.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&again), bits(&states.0));
        // A length that claims more than follows, or more than is allowed, takes no memory.
        for length in [u32::MAX, 2_000_000, 5] {
            let mut bytes = Talk::Ask(3, Ask::Run(7, States(Vec::new()))).encode();
            let at = bytes.len() - 4;
            bytes[at..].copy_from_slice(&length.to_le_bytes());
            assert!(Talk::decode(&bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let long = "é".repeat(REASON_BYTES_MAX);
        let answer = Talk::Answer(1, Answer::Refused(Reason::new(&long)));
        let Ok(Talk::Answer(1, Answer::Refused(Reason(text)))) = Talk::decode(&answer.encode()) else {
            panic!("it fits")
        };
        assert_eq!(text.len(), REASON_BYTES_MAX);
        assert_eq!(Reason::new("short").0, "short");
    }

    #[test]
    fn a_step_fits_a_message_whatever_the_model() {
        assert_eq!(rows_of(64), 512);
        assert_eq!(rows_of(2_560), 102);
        assert_eq!(rows_of(1 << 30), 1);
    }
}
