//! Names of things: 32-byte ids and hashes, shown as 64 lower-case hex digits without prefix, and the chain's name.

use std::fmt;
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::CHAIN_ID_BYTES_MAX;

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Hardware is named by what a terminal can show.
    #[error("hardware must be 1 to 40 visible ASCII characters, with spaces only between them")]
    Hardware,
    /// Ids have exactly 64 hex digits.
    #[error("an id has 64 hex digits, this has {got} characters")]
    Length {
        /// Characters given.
        got: usize,
    },
    /// Upper case, a prefix or anything else is refused: one id has one spelling.
    #[error("an id has only the characters 0-9 and a-f, without a prefix")]
    Characters,
    /// A chain id is a short word.
    #[error("a chain id has 1 to {CHAIN_ID_BYTES_MAX} of the characters a-z, 0-9 and -")]
    ChainId,
}

/// Declares a type of 32 bytes.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            /// All zeros: the absent one.
            pub const ZERO: $name = $name([0; 32]);

            /// From its bytes.
            pub const fn new(bytes: [u8; 32]) -> $name {
                $name(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "("))?;
                write_hex(&self.0, f)?;
                f.write_str(")")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<$name, IdError> {
                read_hex(text).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                let text = <String as Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

id! {
    /// Hash of a block's header.
    BlockHash
}
id! {
    /// Hash of an [`InferenceRecord`](crate::record::InferenceRecord).
    RecordId
}
id! {
    /// Hash of an [`InferenceRequest`](crate::request::InferenceRequest).
    RequestId
}
id! {
    /// Hash of a [`Transaction`](crate::transaction::Transaction), without its signature.
    TransactionId
}
id! {
    /// Hash of an [`Attestation`](crate::attestation::Attestation), without its signature.
    AttestationId
}
id! {
    /// Digest of a model: its weights, shape, tokenizer and chat template.
    ModelId
}
id! {
    /// A node: its ed25519 public key.
    NodeId
}
id! {
    /// Any other digest: a root, or a salted commitment.
    Digest
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

fn read_hex(text: &str) -> Result<[u8; 32], IdError> {
    if text.len() != 64 {
        return Err(IdError::Length { got: text.chars().count() });
    }
    if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(IdError::Characters);
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::Characters)?;
    Ok(bytes)
}

/// Name of a chain. Part of everything signed, so that nothing replays on another chain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct ChainId(String);

impl ChainId {
    /// The chain of this name: 1 to 48 characters of `a-z`, `0-9` and `-`.
    pub fn new(name: impl Into<String>) -> Result<ChainId, IdError> {
        let name = name.into();
        let fits = (1..=CHAIN_ID_BYTES_MAX).contains(&name.len());
        let readable = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits && readable { Ok(ChainId(name)) } else { Err(IdError::ChainId) }
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl BorshDeserialize for ChainId {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<ChainId> {
        let name = crate::codec::read_text(reader, CHAIN_ID_BYTES_MAX, "chain_id")?;
        ChainId::new(name).map_err(|fault| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, fault.to_string()))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainId({})", self.0)
    }
}

impl FromStr for ChainId {
    type Err = IdError;

    fn from_str(name: &str) -> Result<ChainId, IdError> {
        ChainId::new(name)
    }
}

impl Serialize for ChainId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChainId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ChainId, D::Error> {
        ChainId::new(<String as Deserialize>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e";

    #[test]
    fn an_id_has_one_spelling() {
        let id: RecordId = TEXT.parse().unwrap();
        assert_eq!(id.to_string(), TEXT);
        assert_eq!(id.as_bytes()[..3], [0, 255, 1]);
        assert_eq!(format!("{id:?}"), format!("RecordId({TEXT})"));
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{TEXT}\""));
        assert_eq!(serde_json::from_str::<RecordId>(&format!("\"{TEXT}\"")).unwrap(), id);
        assert_eq!(borsh::from_slice::<RecordId>(&borsh::to_vec(&id).unwrap()).unwrap(), id);
    }

    #[test]
    fn other_spellings_are_refused() {
        let read = |text: &str| text.parse::<NodeId>();
        assert_eq!(read(""), Err(IdError::Length { got: 0 }));
        assert_eq!(read(&TEXT[1..]), Err(IdError::Length { got: 63 }));
        assert_eq!(read(&format!("0x{TEXT}")), Err(IdError::Length { got: 66 }));
        assert_eq!(read(&TEXT.to_uppercase()), Err(IdError::Characters));
        assert_eq!(read(&format!("0x{}", &TEXT[2..])), Err(IdError::Characters));
        assert_eq!(read(&"é".repeat(32)), Err(IdError::Characters));
        assert!(serde_json::from_str::<NodeId>("\"ab\"").unwrap_err().to_string().contains("64 hex digits"));
    }

    #[test]
    fn a_chain_id_is_a_short_word() {
        for good in ["a", "aria-devnet-0f", &"a".repeat(48)] {
            let chain = ChainId::new(good).unwrap();
            assert_eq!(chain.to_string(), good);
            assert_eq!(borsh::from_slice::<ChainId>(&borsh::to_vec(&chain).unwrap()).unwrap(), chain);
            let json = serde_json::to_string(&chain).unwrap();
            assert_eq!(serde_json::from_str::<ChainId>(&json).unwrap(), chain);
        }
        for bad in ["", "Aria", "a b", "a_b", "é", &"a".repeat(49)] {
            assert_eq!(bad.parse::<ChainId>(), Err(IdError::ChainId), "{bad}");
            let bytes = borsh::to_vec(&bad.to_string()).unwrap();
            assert!(borsh::from_slice::<ChainId>(&bytes).is_err(), "{bad}");
            assert!(serde_json::from_str::<ChainId>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
    }
}
