//! Bytes: borsh, bounded, exact and versioned. Everything signed, hashed or stored goes through here.
//!
//! An outermost value is one version byte and then the borsh bytes of that version, which is what a borsh enum with
//! explicit discriminants writes. Lengths are checked before anything is allocated.

use borsh::io::{Error, ErrorKind, Read};
use borsh::{BorshDeserialize, BorshSerialize};

use crate::error::CodecError;

/// A type that stands alone on the wire, in a hash or in the store.
pub trait Versioned: BorshSerialize + BorshDeserialize {
    /// Its name in errors.
    const NAME: &'static str;
    /// First byte of its encoding.
    const VERSION: u8;
    /// Longest encoding, version byte included.
    const BYTES_MAX: usize;

    /// Version byte and borsh bytes.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![Self::VERSION];
        self.serialize(&mut bytes).expect("writing to a vector does not fail");
        bytes
    }

    /// Exactly one value of the known version, no longer than allowed and with nothing behind it.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(CodecError::TooLong { name: Self::NAME, got: bytes.len(), max: Self::BYTES_MAX });
        }
        let Some((version, body)) = bytes.split_first() else {
            return Err(CodecError::Empty { name: Self::NAME });
        };
        if *version != Self::VERSION {
            return Err(CodecError::Version { name: Self::NAME, got: *version, known: Self::VERSION });
        }
        borsh::from_slice(body).map_err(|fault| CodecError::Malformed { name: Self::NAME, reason: fault.to_string() })
    }
}

/// Borsh bytes of a value that is part of something else.
pub fn to_bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to a vector does not fail")
}

/// Reads a list of at most `max` items; the bound is checked before memory is taken.
pub fn read_list<T: BorshDeserialize, R: Read>(reader: &mut R, max: usize, field: &str) -> Result<Vec<T>, Error> {
    let length = read_length(reader, max, field)?;
    (0..length).map(|_| T::deserialize_reader(reader)).collect()
}

/// Reads a text of at most `max` bytes; the bound is checked before memory is taken.
pub fn read_text<R: Read>(reader: &mut R, max: usize, field: &str) -> Result<String, Error> {
    let bytes = read_bytes(reader, max, field)?;
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::InvalidData, format!("{field} is not UTF-8")))
}

/// Reads at most `max` bytes; the bound is checked before memory is taken.
pub fn read_bytes<R: Read>(reader: &mut R, max: usize, field: &str) -> Result<Vec<u8>, Error> {
    let length = read_length(reader, max, field)?;
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_length<R: Read>(reader: &mut R, max: usize, field: &str) -> Result<usize, Error> {
    let length = u32::deserialize_reader(reader)?;
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(length),
        _ => Err(Error::new(ErrorKind::InvalidData, format!("{field} has {length} items, at most {max} are allowed"))),
    }
}

/// Readers of bounded lists, for `#[borsh(deserialize_with = ...)]`.
pub(crate) mod bounded {
    use super::{BorshDeserialize, Error, Read, read_bytes, read_list};
    use crate::limits::{
        ATTESTATION_ITEMS_MAX, BLOCK_ATTESTATIONS_MAX, BLOCK_EVIDENCE_MAX, BLOCK_RECORDS_MAX, BLOCK_TRANSACTIONS_MAX,
        DELIVERY_PART_BYTES_MAX, STAGES_MAX, VALIDATORS_MAX,
    };

    pub(crate) fn sealed<R: Read>(reader: &mut R) -> Result<Vec<u8>, Error> {
        read_bytes(reader, DELIVERY_PART_BYTES_MAX, "sealed")
    }

    pub(crate) fn stages<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, STAGES_MAX, "stages")
    }

    pub(crate) fn proofs<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, BLOCK_RECORDS_MAX, "proofs")
    }

    pub(crate) fn transactions<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, BLOCK_TRANSACTIONS_MAX, "transactions")
    }

    pub(crate) fn attestations<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, BLOCK_ATTESTATIONS_MAX, "attestations")
    }

    pub(crate) fn attested<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, ATTESTATION_ITEMS_MAX, "attested records")
    }

    pub(crate) fn evidence<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, BLOCK_EVIDENCE_MAX, "evidence")
    }

    pub(crate) fn validators<T: BorshDeserialize, R: Read>(reader: &mut R) -> Result<Vec<T>, Error> {
        read_list(reader, VALIDATORS_MAX, "validators")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(BorshSerialize, BorshDeserialize, Debug, PartialEq)]
    struct Pair(u8, u16);

    impl Versioned for Pair {
        const NAME: &'static str = "pair";
        const VERSION: u8 = 3;
        const BYTES_MAX: usize = 4;
    }

    #[test]
    fn a_value_has_exactly_one_encoding() {
        assert_eq!(Pair(1, 2).encode(), [3, 1, 2, 0]);
        assert_eq!(Pair::decode(&[3, 1, 2, 0]), Ok(Pair(1, 2)));
        assert_eq!(Pair::decode(&[]), Err(CodecError::Empty { name: "pair" }));
        assert_eq!(Pair::decode(&[4, 1, 2, 0]), Err(CodecError::Version { name: "pair", got: 4, known: 3 }));
        assert_eq!(Pair::decode(&[3, 1, 2, 0, 0]), Err(CodecError::TooLong { name: "pair", got: 5, max: 4 }));
        assert!(matches!(Pair::decode(&[3, 1, 2]), Err(CodecError::Malformed { name: "pair", .. })));
    }

    #[derive(BorshSerialize, BorshDeserialize, Debug, PartialEq)]
    struct Byte(u8);

    impl Versioned for Byte {
        const NAME: &'static str = "byte";
        const VERSION: u8 = 1;
        const BYTES_MAX: usize = 9;
    }

    #[test]
    fn nothing_may_follow() {
        assert!(matches!(Byte::decode(&[1, 7, 7]), Err(CodecError::Malformed { .. })));
    }

    #[test]
    fn lists_are_bounded_before_memory_is_taken() {
        let list = |bytes: &[u8]| read_list::<u8, _>(&mut &*bytes, 2, "list");
        assert_eq!(list(&[2, 0, 0, 0, 7, 8]).unwrap(), [7, 8]);
        assert_eq!(list(&[0, 0, 0, 0]).unwrap(), [] as [u8; 0]);
        let fault = list(&[3, 0, 0, 0, 7, 8, 9]).unwrap_err().to_string();
        assert_eq!(fault, "list has 3 items, at most 2 are allowed");
        assert!(list(&[255, 255, 255, 255]).is_err());
        assert!(list(&[2, 0, 0, 0, 7]).is_err());
    }

    #[test]
    fn texts_are_bounded_and_utf8() {
        let text = |bytes: &[u8]| read_text(&mut &*bytes, 2, "text");
        assert_eq!(text(&[2, 0, 0, 0, b'a', b'b']).unwrap(), "ab");
        assert!(text(&[3, 0, 0, 0, b'a', b'b', b'c']).is_err());
        assert_eq!(text(&[1, 0, 0, 0, 0xff]).unwrap_err().to_string(), "text is not UTF-8");
        assert!(text(&[2, 0, 0, 0, b'a']).is_err());
    }
}
