//! Bytes to text, as they come, without ever splitting a character.

/// Bytes in, complete characters out. What it returns piece by piece is what decoding everything at once would return.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// The beginning of a character. Invariant: at most three bytes between calls.
    held: Vec<u8>,
}

impl Decoder {
    /// Takes the bytes of one token and returns the characters that are complete now. Bytes that can never become part of
    /// one are returned as U+FFFD, one for each broken beginning.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut taken = 0;
        for chunk in self.held.utf8_chunks() {
            text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let broken = chunk.invalid();
            let is_last = taken + broken.len() == self.held.len();
            if is_last && is_beginning(broken) {
                break;
            }
            if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
                taken += broken.len();
            }
        }
        self.held.drain(..taken);
        text
    }

    /// Ends the text: a character that was never completed becomes U+FFFD.
    pub fn flush(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        rest
    }
}

/// Whether more bytes could complete this to a character.
fn is_beginning(bytes: &[u8]) -> bool {
    !bytes.is_empty() && std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Decoder;

    fn decode(pieces: &[&[u8]]) -> (Vec<String>, String) {
        let mut decoder = Decoder::default();
        let texts = pieces.iter().map(|piece| decoder.push(piece)).collect();
        (texts, decoder.flush())
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let (texts, rest) = decode(&[b"a\xf0", b"\x9f", b"\x98", b"\x80b"]);
        assert_eq!((texts.as_slice(), rest.as_str()), (["a", "", "", "😀b"].map(str::to_owned).as_slice(), ""));
    }

    #[test]
    fn only_what_stays_broken_is_replaced() {
        let (texts, rest) = decode(&[b"\xf0\x9f", b"x", b"\xff", b"\xe2\x82"]);
        assert_eq!(
            (texts.as_slice(), rest.as_str()),
            (["", "\u{fffd}x", "\u{fffd}", ""].map(str::to_owned).as_slice(), "\u{fffd}")
        );
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x7f..=0x91_u8, 0xe0..=0xf5_u8], 0..40), cuts in proptest::collection::vec(0..5_usize, 40)) {
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let mut decoder = Decoder::default();
            let mut text = String::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                text += &decoder.push(piece);
                rest = after;
            }
            text += &decoder.push(rest);
            text += &decoder.flush();
            prop_assert_eq!(text, whole);
        }
    }
}
