//! A stand-in for `ethers` 1.0, for the sake of `merkle-tree-rs` alone: exactly the names that it imports, on top of
//! `ethabi` and `tiny-keccak`. The real one would bring some 325 packages, an old TLS stack among them.
//!
//! It knows nothing of ARIA, and no file of ours names it. Modules: [`abi`] encodes, [`types`] holds addresses, 256-bit
//! integers and the byte strings of `bytes`, [`utils`] hashes.

#![forbid(unsafe_code)]

/// Solidity's encoding.
pub mod abi {
    pub use ethabi::{Token, encode};
}

/// What is encoded and hashed.
pub mod types {
    pub use ethabi::ethereum_types::{H160 as Address, U256};

    pub use crate::bytes::Bytes;
}

/// Hashing and hex.
pub mod utils {
    use tiny_keccak::{Hasher, Keccak};

    pub use hex;

    /// Keccak-256, as Ethereum uses it (not SHA3-256).
    pub fn keccak256<T: AsRef<[u8]>>(bytes: T) -> [u8; 32] {
        let mut keccak = Keccak::v256();
        keccak.update(bytes.as_ref());
        let mut digest = [0; 32];
        keccak.finalize(&mut digest);
        digest
    }
}

mod bytes;
