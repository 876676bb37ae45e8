//! The byte alphabet of byte-level BPE: each byte is written as one printable character.
//!
//! Printable ASCII and most of Latin-1 stand for themselves; the other 68 bytes are written, in order, as the characters
//! from U+0100 on.

/// Whether a byte is written as the character of the same number.
fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// The character that stands for a byte.
pub(super) fn char_of(byte: u8) -> char {
    if is_itself(byte) {
        return char::from(byte);
    }
    let others_before = (0..byte).filter(|&other| !is_itself(other)).count();
    let number = 0x100 + u32::try_from(others_before).expect("fewer than 256");
    char::from_u32(number).expect("U+0100 to U+0143 are characters")
}

/// The bytes of a token written in this alphabet; none if it is not.
pub(super) fn bytes_of(token: &str, table: &ByteTable) -> Option<Vec<u8>> {
    token.chars().map(|c| table.byte(c)).collect()
}

/// From character to byte.
pub(super) struct ByteTable([Option<u8>; 0x144]);

impl ByteTable {
    pub(super) fn new() -> ByteTable {
        let mut table = [None; 0x144];
        for byte in 0..=u8::MAX {
            table[char_of(byte) as usize] = Some(byte);
        }
        ByteTable(table)
    }

    fn byte(&self, c: char) -> Option<u8> {
        self.0.get(c as usize).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteTable, bytes_of, char_of};

    #[test]
    fn every_byte_has_its_own_character() {
        let table = ByteTable::new();
        for byte in 0..=u8::MAX {
            assert_eq!(bytes_of(&char_of(byte).to_string(), &table), Some(vec![byte]));
        }
        assert_eq!((char_of(b' '), char_of(b'\n'), char_of(0), char_of(0xad)), ('Ġ', 'Ċ', 'Ā', 'Ń'));
        assert_eq!(bytes_of("<|a b|>", &table), None);
        assert_eq!(bytes_of("漢", &table), None);
    }
}
