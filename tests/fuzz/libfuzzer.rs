//! The fuzzer of every decoder that reads from a peer: libFuzzer, which is led by the code that an input reaches.
//!
//! `ARIA_FUZZ` names the decoder. `.ci/fuzz` builds this with instrumentation and runs all of them.

#![no_main]

use std::sync::OnceLock;

use aria_tests::decoders::{DECODERS, Decoder};

fn chosen() -> Decoder {
    static CHOSEN: OnceLock<Decoder> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let name = std::env::var("ARIA_FUZZ").expect("ARIA_FUZZ names a decoder");
        DECODERS.iter().find(|(other, _)| *other == name).unwrap_or_else(|| panic!("there is no decoder {name}")).1
    })
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    chosen()(bytes);
});
