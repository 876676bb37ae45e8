//! A verifiable random function: a number that only the owner of a key can compute, that everybody can check, and of which
//! there is one for each input. ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381, whose test vectors are below; section numbers
//! are those of the RFC.

use borsh::{BorshDeserialize, BorshSerialize};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use curve25519_dalek::traits::IsIdentity;
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use super::{NodeKey, verifying_key};
use crate::ids::NodeId;

/// The suite, the first byte of all that is hashed (5.5).
const SUITE: u8 = 3;
/// Bytes of the challenge, which is half as long as a scalar.
const CHALLENGE_BYTES: usize = 16;

/// A proof of the function's value for one input and one key: a point, a challenge, a scalar (5.1).
#[derive(Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct VrfProof([u8; 80]);

impl VrfProof {
    /// No proof of anything: what the genesis block has.
    pub const NONE: VrfProof = VrfProof([0; 80]);

    /// From its bytes. Whether it proves anything is another question.
    pub const fn new(bytes: [u8; 80]) -> VrfProof {
        VrfProof(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 80] {
        &self.0
    }

    /// The value that it proves for this key and input; none if it proves nothing (5.3).
    pub fn verify(&self, by: &NodeId, input: &[u8]) -> Option<[u8; 64]> {
        let key = verifying_key(by)?.to_edwards();
        if key.mul_by_cofactor().is_identity() {
            return None;
        }
        let (gamma, challenge, scalar) = self.parts()?;
        let hashed = encode_to_curve(by, input);
        let c = challenge_scalar(&challenge);
        let u = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-c, &key, &scalar);
        let v = hashed * scalar - gamma * c;
        (challenge_of(by, &hashed, &gamma, &u, &v) == challenge).then(|| value_of(&gamma))
    }

    fn parts(&self) -> Option<(EdwardsPoint, [u8; CHALLENGE_BYTES], Scalar)> {
        let (gamma, rest) = self.0.split_first_chunk::<32>()?;
        let (challenge, scalar) = rest.split_first_chunk::<CHALLENGE_BYTES>()?;
        let compressed = CompressedEdwardsY(*gamma);
        let gamma = compressed.decompress().filter(|point| point.compress() == compressed)?;
        let scalar = Scalar::from_canonical_bytes(*scalar.first_chunk::<32>()?).into_option()?;
        Some((gamma, *challenge, scalar))
    }
}

impl std::fmt::Debug for VrfProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VrfProof({self})")
    }
}

impl std::fmt::Display for VrfProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl NodeKey {
    /// The function's value for an input, with its proof (5.1).
    pub fn prove_vrf(&self, input: &[u8]) -> VrfProof {
        let mut expanded = Zeroizing::new([0; 64]);
        expanded.copy_from_slice(&Sha512::digest(self.signing.as_bytes()));
        let (low, prefix) = expanded.split_first_chunk::<32>().expect("64 bytes have 32");
        let secret = Zeroizing::new(Scalar::from_bytes_mod_order(clamp_integer(*low)));
        let by = self.node_id();
        let hashed = encode_to_curve(&by, input);
        let gamma = hashed * *secret;
        // 5.4.2.2: the nonce follows from key and input, so that no two inputs share one.
        let nonce = Zeroizing::new(Scalar::from_bytes_mod_order_wide(
            &Sha512::new().chain_update(prefix).chain_update(hashed.compress().as_bytes()).finalize().into(),
        ));
        let challenge = challenge_of(&by, &hashed, &gamma, &EdwardsPoint::mul_base(&nonce), &(hashed * *nonce));
        let scalar = *nonce + challenge_scalar(&challenge) * *secret;
        let mut proof = [0; 80];
        proof[..32].copy_from_slice(gamma.compress().as_bytes());
        proof[32..48].copy_from_slice(&challenge);
        proof[48..].copy_from_slice(scalar.as_bytes());
        VrfProof(proof)
    }
}

/// A point that follows from key and input, of which nobody knows the logarithm (5.4.1.1, try and increment).
fn encode_to_curve(by: &NodeId, input: &[u8]) -> EdwardsPoint {
    let head = Sha512::new().chain_update([SUITE, 1]).chain_update(by.as_bytes()).chain_update(input);
    let try_one = |attempt: u8| {
        let hash = head.clone().chain_update([attempt, 0]).finalize();
        let compressed = CompressedEdwardsY(*hash.first_chunk::<32>()?);
        let point = compressed.decompress().filter(|point| point.compress() == compressed)?.mul_by_cofactor();
        (!point.is_identity()).then_some(point)
    };
    (0..=u8::MAX).find_map(try_one).expect("each try succeeds half of the time, and there are 256")
}

/// 5.4.3.
fn challenge_of(
    by: &NodeId,
    hashed: &EdwardsPoint,
    gamma: &EdwardsPoint,
    u: &EdwardsPoint,
    v: &EdwardsPoint,
) -> [u8; CHALLENGE_BYTES] {
    let mut hasher = Sha512::new().chain_update([SUITE, 2]).chain_update(by.as_bytes());
    for point in [hashed, gamma, u, v] {
        hasher.update(point.compress().as_bytes());
    }
    *hasher.chain_update([0]).finalize().first_chunk().expect("a hash has 64 bytes")
}

fn challenge_scalar(challenge: &[u8; CHALLENGE_BYTES]) -> Scalar {
    let mut bytes = [0; 32];
    bytes[..CHALLENGE_BYTES].copy_from_slice(challenge);
    Scalar::from_bytes_mod_order(bytes)
}

/// 5.2.
fn value_of(gamma: &EdwardsPoint) -> [u8; 64] {
    let point = gamma.mul_by_cofactor().compress();
    Sha512::new().chain_update([SUITE, 3]).chain_update(point.as_bytes()).chain_update([0]).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    /// RFC 9381, appendix B.3: examples 16 to 18.
    const VECTORS: [(&str, &str, &str, &str, &str); 3] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d9727d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
            "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
            "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
            "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c452118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
        ),
    ];

    #[test]
    fn the_vectors_of_the_rfc() {
        for (seed, public, input, proof, value) in VECTORS {
            let (key, input) = (NodeKey::from_seed(&bytes(seed)), hex::decode(input).unwrap());
            assert_eq!(key.node_id().to_string(), public);
            assert_eq!(key.prove_vrf(&input).to_string(), proof);
            let found = VrfProof::new(bytes(proof)).verify(&key.node_id(), &input);
            assert_eq!(found.map(hex::encode).as_deref(), Some(value));
        }
    }

    #[test]
    fn no_other_proof_passes() {
        let (key, other) = (NodeKey::from_seed(&[1; 32]), NodeKey::from_seed(&[2; 32]));
        let proof = key.prove_vrf(b"input");
        assert!(proof.verify(&key.node_id(), b"input").is_some());
        assert_eq!(proof.verify(&key.node_id(), b"inpuu"), None);
        assert_eq!(proof.verify(&other.node_id(), b"input"), None);
        assert_eq!(VrfProof::NONE.verify(&key.node_id(), b"input"), None);
        for at in 0..80 {
            for flip in [1, 0x80] {
                let mut altered = *proof.as_bytes();
                altered[at] ^= flip;
                assert_eq!(VrfProof::new(altered).verify(&key.node_id(), b"input"), None, "byte {at}");
            }
        }
        // A key of small order would have one value for every input.
        assert_eq!(proof.verify(&NodeId::new([0; 32]), b"input"), None);
    }
}
