//! Every decoder that reads from a peer or from the log: no bytes make it panic, and what it accepts it writes again as it was.

use aria_chain::codec::Versioned;
use aria_node::consensus::log::Record;
use aria_node::consensus::message::Message;
use aria_node::consensus::talk::{Gossip, Sync};
use aria_node::network::discover::Acquaintance;
use aria_node::network::handshake::Hello;
use proptest::prelude::*;

fn versioned<T: Versioned>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        assert_eq!(value.encode(), bytes, "{}: one value has one spelling", T::NAME);
    }
}

fn all(bytes: &[u8]) {
    versioned::<Message>(bytes);
    versioned::<Gossip>(bytes);
    versioned::<Sync>(bytes);
    versioned::<Hello>(bytes);
    versioned::<Acquaintance>(bytes);
    if let Ok(record) = borsh::from_slice::<Record>(bytes) {
        assert_eq!(borsh::to_vec(&record).ok().as_deref(), Some(bytes));
    }
}

/// Bytes that get past the first checks more often than random ones: small numbers where kinds and lengths stand.
fn structured() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        proptest::collection::vec(0_u8..6, 1..9),
        proptest::collection::vec(any::<u8>(), 32),
        proptest::collection::vec(any::<u8>(), 64),
        Just(vec![255; 4]),
        Just(vec![0; 8]),
    ];
    (1_u8..=2, 0_u8..6, proptest::collection::vec(piece, 0..12))
        .prop_map(|(version, kind, pieces)| [vec![version, kind], pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn random_bytes_harm_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        all(&bytes);
    }

    #[test]
    fn nearly_right_bytes_harm_nobody(bytes in structured()) {
        all(&bytes);
        all(bytes.get(1..).unwrap_or_default());
    }
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // A vote list, a block list and a version list that claim four billion entries.
    for kind in 0..6 {
        let mut bytes = vec![1, kind];
        bytes.extend([0; 140]);
        bytes.extend([255; 4]);
        all(&bytes);
    }
    assert!(Message::decode(&vec![1; Message::BYTES_MAX + 1]).is_err(), "longer than any message");
}
