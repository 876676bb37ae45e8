//! What the fuzzer found worth keeping goes through every decoder in each ordinary run too, and so do cuts and changes of it.
//!
//! The fuzzer itself is `tests/fuzz/libfuzzer.rs`: `.ci/fuzz 60` runs it for a minute.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::collections::BTreeSet;
use std::path::Path;

use aria_tests::decoders::DECODERS;

/// Inputs of a decoder: files of its folder of the corpus.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn every_decoder_has_inputs_that_it_accepts_and_none_that_it_dies_of() {
    for (name, decoder) in DECODERS {
        let inputs = corpus(name);
        let accepted = inputs.iter().filter(|bytes| decoder(bytes)).count();
        assert!(accepted > 0, "{name}: none of {} inputs is a sound one", inputs.len());
    }
}

#[test]
fn no_cut_or_change_of_an_input_is_dangerous() {
    for (name, decoder) in DECODERS {
        for bytes in corpus(name).iter().filter(|bytes| bytes.len() < 4_096).take(40) {
            let step = (bytes.len() / 64).max(1);
            for at in (0..bytes.len()).step_by(step) {
                decoder(&bytes[..at]);
                for value in [0, 1, 0x7f, 0xff, bytes[at] ^ 1] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    decoder(&changed);
                }
                decoder(&[&bytes[..at], bytes].concat());
            }
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_decoder() {
    let folders = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")).unwrap();
    let folders: BTreeSet<String> = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, DECODERS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
