//! A string of bytes that is cheap to clone, compares byte by byte and is written as `0x` and hex digits.

use std::borrow::Borrow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(bytes::Bytes);

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(bytes.into())
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Bytes {
        bytes.to_vec().into()
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("0x{}", hex::encode(self)))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| de::Error::custom("bytes start with 0x"))?;
        hex::decode(digits).map(Bytes::from).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{Token, encode};
    use crate::types::{Address, U256};
    use crate::utils::keccak256;

    #[test]
    fn keccak_is_ethereums() {
        let empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(hex::encode(keccak256("")), empty);
        assert_eq!(hex::encode(keccak256(Bytes::default())), empty);
    }

    #[test]
    fn encoding_is_soliditys() {
        let number = U256::from_dec_str("258").unwrap();
        let encoded = encode(&[Token::Uint(number), Token::String("ab".into())]);
        let words: Vec<String> = encoded.chunks(32).map(hex::encode).collect();
        let word = |tail: &str| format!("{tail:0>64}");
        assert_eq!(words, [word("102"), word("40"), word("2"), format!("{:0<64}", "6162")]);
        assert!("0x1111111111111111111111111111111111111111".parse::<Address>().is_ok());
    }

    #[test]
    fn bytes_are_written_as_hex() {
        let bytes = Bytes::from([1, 255]);
        assert_eq!(serde_json::to_string(&bytes).unwrap(), "\"0x01ff\"");
        assert_eq!(serde_json::from_str::<Bytes>("\"0x01ff\"").unwrap(), bytes);
        assert!(serde_json::from_str::<Bytes>("\"01ff\"").is_err());
        assert!(serde_json::from_str::<Bytes>("\"0x1\"").is_err());
        assert!(Bytes::from([1]) < bytes);
        assert_eq!([bytes.clone(), bytes].concat(), [1, 255, 1, 255]);
    }
}
