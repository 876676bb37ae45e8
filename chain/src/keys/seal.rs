//! Bytes for some nodes and nobody else, sealed to the keys that are their ids.
//!
//! A fresh key seals the payload (ChaCha20-Poly1305, RFC 8439), and is itself sealed to each reader under what X25519 (RFC 7748)
//! agrees on between a fresh pair of keys and the reader's: the Montgomery form of its ed25519 key, as is usual. All fresh keys follow
//! from the sealer's secret and from all that is sealed, to whom, and about what. So no key seals two different things, which is why
//! no nonce is needed, and a node that begins again in the middle makes the same bytes again. Chain and record are in every derivation:
//! what was sealed about one record is nothing about another.
//!
//! Form: version 1 · number of readers u8 · fresh public key 32 · for each reader a sealed key 48 · the sealed payload, 16 bytes longer
//! than the payload. It does not say who the readers are; each tries all places.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use curve25519_dalek::montgomery::MontgomeryPoint;
use zeroize::Zeroizing;

use super::{NodeKey, verifying_key};
use crate::hash::Domain;
use crate::ids::{ChainId, NodeId, RecordId};
use crate::limits::SEAL_RECIPIENTS_MAX;

/// Version of the form.
const VERSION: u8 = 1;
/// A key, public or secret.
const KEY_BYTES: usize = 32;
/// What sealing adds to anything.
const TAG_BYTES: usize = 16;
/// A key, sealed.
const PLACE_BYTES: usize = KEY_BYTES + TAG_BYTES;
/// Version, number of readers and fresh key.
const HEAD_BYTES: usize = 2 + KEY_BYTES;

/// Most bytes by which something sealed is longer than what is in it.
pub const SEAL_BYTES_MAX: usize = HEAD_BYTES + SEAL_RECIPIENTS_MAX * PLACE_BYTES + TAG_BYTES;

/// Why something is not sealed, or stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Somebody must be able to read it, and the form has so many places.
    #[error("there are {got} readers, there must be 1 to {SEAL_RECIPIENTS_MAX}")]
    Readers {
        /// As given.
        got: usize,
    },
    /// An id that is no key, or one that everybody has the secret of, has no reader.
    #[error("nothing can be sealed to {reader}, which is no key; leave it out")]
    NoKey {
        /// Whose id it is.
        reader: NodeId,
    },
    /// Bytes that have another form.
    #[error("these bytes were not sealed in a form that this program knows")]
    Form,
    /// Sealed to others, about something else, or altered.
    #[error("these bytes were sealed to others, or about another record, or were altered")]
    Closed,
}

/// What is sealed is about one record of one chain.
type About<'a> = (&'a ChainId, &'a RecordId);

impl NodeKey {
    /// Seals a payload to these readers. The same each time.
    pub fn seal(&self, about: About<'_>, readers: &[NodeId], payload: &[u8]) -> Result<Vec<u8>, SealError> {
        let count =
            u8::try_from(readers.len()).ok().filter(|count| (1..=SEAL_RECIPIENTS_MAX).contains(&usize::from(*count)));
        let count = count.ok_or(SealError::Readers { got: readers.len() })?;
        let fresh = |which: u8| {
            let from = (self.signing.as_bytes(), about, readers, payload, which);
            Zeroizing::new(*Domain::SEAL_SECRET.hash_of(&from).as_bytes())
        };
        let (secret, key) = (fresh(0), fresh(1));
        let public = MontgomeryPoint::mul_base_clamped(*secret).to_bytes();
        let mut sealed = vec![VERSION, count];
        sealed.extend(public);
        for reader in readers {
            let point = verifying_key(reader).filter(|point| !point.is_weak());
            let point = point.ok_or(SealError::NoKey { reader: *reader })?;
            let shared = Zeroizing::new(point.to_montgomery().mul_clamped(*secret).to_bytes());
            sealed.extend(encrypt(&place_key(about, &public, reader, &shared), &[], key.as_ref()));
        }
        // Head and places are bound to the payload: nobody adds or takes away a reader.
        let body = encrypt(&key, &sealed, payload);
        sealed.extend(body);
        Ok(sealed)
    }

    /// Opens what was sealed to this key, among others.
    pub fn open(&self, about: About<'_>, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(SealError::Form)?;
        let [VERSION, count, public @ ..] = head else { return Err(SealError::Form) };
        let public: &[u8; KEY_BYTES] = public.try_into().map_err(|_| SealError::Form)?;
        let (count, known) = (usize::from(*count), 1..=SEAL_RECIPIENTS_MAX);
        let (places, body) = rest.split_at_checked(count * PLACE_BYTES).ok_or(SealError::Form)?;
        if !known.contains(&count) {
            return Err(SealError::Form);
        }
        let secret = Zeroizing::new(self.signing.to_scalar_bytes());
        let shared = Zeroizing::new(MontgomeryPoint(*public).mul_clamped(*secret).to_bytes());
        let own = place_key(about, public, &self.node_id(), &shared);
        let key = places.chunks(PLACE_BYTES).find_map(|place| decrypt(&own, &[], place)).map(Zeroizing::new);
        let key: Zeroizing<[u8; KEY_BYTES]> =
            Zeroizing::new(key.and_then(|key| key.as_slice().try_into().ok()).ok_or(SealError::Closed)?);
        let bound = sealed.get(..HEAD_BYTES + places.len()).ok_or(SealError::Form)?;
        decrypt(&key, bound, body).ok_or(SealError::Closed)
    }
}

/// Key of one reader's place.
fn place_key(about: About<'_>, public: &[u8; 32], reader: &NodeId, shared: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(*Domain::SEAL.hash_of(&(about, public, reader, shared)).as_bytes())
}

fn encrypt(key: &[u8; 32], aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let sealed = ChaCha20Poly1305::new(key.into()).encrypt(&Nonce::default(), Payload { msg, aad });
    sealed.expect("a payload is far below the cipher's 256 GiB")
}

fn decrypt(key: &[u8; 32], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    ChaCha20Poly1305::new(key.into()).decrypt(&Nonce::default(), Payload { msg, aad }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> NodeKey {
        NodeKey::from_seed(&[n; 32])
    }

    fn chain(name: &str) -> ChainId {
        name.parse().expect("a name")
    }

    const RECORD: RecordId = RecordId::new([9; 32]);
    const PAYLOAD: &[u8] = b"token ids and salts";

    fn readers() -> Vec<NodeId> {
        [2, 3, 4].map(|n| key(n).node_id()).to_vec()
    }

    fn sealed() -> Vec<u8> {
        key(1).seal((&chain("aria-test"), &RECORD), &readers(), PAYLOAD).expect("they are keys")
    }

    #[test]
    fn each_reader_opens_it_and_nobody_else() {
        let (chain, sealed) = (chain("aria-test"), sealed());
        for n in [2, 3, 4] {
            assert_eq!(key(n).open((&chain, &RECORD), &sealed), Ok(PAYLOAD.to_vec()));
        }
        for n in [1, 5] {
            assert_eq!(key(n).open((&chain, &RECORD), &sealed), Err(SealError::Closed), "nor who sealed it");
        }
        let overhead = sealed.len() - PAYLOAD.len();
        assert_eq!((overhead, SEAL_BYTES_MAX), (34 + 3 * 48 + 16, 34 + 16 * 48 + 16));
    }

    #[test]
    fn what_is_sealed_about_one_record_is_nothing_about_another() {
        let sealed = sealed();
        let elsewhere = key(2).open((&chain("aria-other"), &RECORD), &sealed);
        let other = key(2).open((&chain("aria-test"), &RecordId::new([8; 32])), &sealed);
        assert_eq!((elsewhere, other), (Err(SealError::Closed), Err(SealError::Closed)));
    }

    #[test]
    fn whatever_is_altered_does_not_open() {
        let (chain, good) = (chain("aria-test"), sealed());
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(key(2).open((&chain, &RECORD), &bad).is_err(), "byte {place}");
            assert!(key(2).open((&chain, &RECORD), &good[..place]).is_err(), "cut at {place}");
        }
        assert!(key(2).open((&chain, &RECORD), &[&good[..], &[0]].concat()).is_err());
        assert_eq!(key(2).open((&chain, &RECORD), &[0; 200]), Err(SealError::Form));
    }

    #[test]
    fn it_is_the_same_each_time_and_another_for_whatever_else() {
        let (chain, again) = (chain("aria-test"), sealed());
        assert_eq!(again, sealed());
        let others = [
            key(5).seal((&chain, &RECORD), &readers(), PAYLOAD),
            key(1).seal((&chain, &RECORD), &readers()[1..], PAYLOAD),
            key(1).seal((&chain, &RecordId::new([8; 32])), &readers(), PAYLOAD),
            key(1).seal((&chain, &RECORD), &readers(), b"token ids and salt!"),
        ];
        for other in others {
            assert_ne!(other.expect("they are keys")[2..34], again[2..34], "its keys are fresh");
        }
    }

    #[test]
    fn there_are_some_readers_and_not_too_many_and_each_is_a_key() {
        let seal = |readers: &[NodeId]| key(1).seal((&chain("aria-test"), &RECORD), readers, PAYLOAD).map(drop);
        assert_eq!(seal(&[]), Err(SealError::Readers { got: 0 }));
        assert_eq!(seal(&[key(2).node_id(); 16]), Ok(()));
        assert_eq!(seal(&[key(2).node_id(); 17]), Err(SealError::Readers { got: 17 }));
        // The neutral point: whatever is agreed on with it, everybody knows.
        let mut weak = [0; 32];
        weak[0] = 1;
        for id in [NodeId::new(weak), NodeId::new([2; 32])] {
            assert_eq!(seal(&[id]), Err(SealError::NoKey { reader: id }));
        }
    }
}
