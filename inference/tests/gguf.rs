//! Model files: every container gives the same model, and no file, however broken, does more than an error.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "fixtures/packing.rs"]
mod packing;

use std::fs;
use std::path::Path;

use aria_inference::catalog::{catalog, describe};
use aria_inference::digest::model_digest;
use aria_inference::gguf::writer::Writer;
use aria_inference::gguf::{Gguf, GgufError};
use aria_inference::hyper::{Architecture, Gate, Hyper, MATRICES, NORMS};
use aria_inference::tokenizer::Tokenizer;
use packing::{Packing, half};
use proptest::prelude::*;

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn model(name: &str) -> Gguf {
    Gguf::from_vec(data(name)).unwrap()
}

fn embedded() -> Gguf {
    Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../genesis/aria-tiny.gguf")).unwrap()
}

/// Values and scale of a ternary tensor.
fn decode(gguf: &Gguf, name: &str) -> Result<(Vec<i8>, f32), GgufError> {
    let rows = gguf.tensor(name)?.ternary()?;
    let mut values = vec![9; rows.rows() * rows.cols()];
    for (r, row) in values.chunks_mut(rows.cols()).enumerate() {
        rows.row(r, row);
    }
    Ok((values, rows.scale()))
}

/// Every number of a tensor.
fn numbers(gguf: &Gguf, name: &str) -> Result<Vec<f32>, GgufError> {
    let rows = gguf.tensor(name)?.floats()?;
    let mut values = vec![f32::NAN; rows.rows() * rows.cols()];
    for (r, row) in values.chunks_mut(rows.cols()).enumerate() {
        rows.row(r, row);
    }
    Ok(values)
}

/// Scales and values of all matrices, in order: what numpy computed from the F16 files of the same models.
fn weights_hash(gguf: &Gguf) -> String {
    let mut hasher = blake3::Hasher::new();
    for layer in 0..Hyper::from_gguf(gguf).unwrap().layers {
        for matrix in MATRICES {
            let (values, scale) = decode(gguf, &format!("blk.{layer}.{matrix}.weight")).unwrap();
            hasher.update(&scale.to_le_bytes());
            hasher.update(&values.iter().map(|value| value.cast_unsigned()).collect::<Vec<_>>());
        }
    }
    hasher.finalize().to_string()
}

/// A copy of a model with its ternary matrices packed otherwise, its scales unchanged.
fn repack(gguf: &Gguf, packing: Packing) -> Gguf {
    let keys = gguf.metadata();
    let prefix = keys.str("general.architecture").unwrap();
    let mut writer = Writer::new().text("general.architecture", prefix);
    for key in keys.keys() {
        writer = if let Ok(value) = keys.u32(key) {
            writer.u32(key, value)
        } else if let Ok(value) = keys.f32(key) {
            writer.f32(key, value)
        } else if let Ok(value) = keys.bool(key) {
            writer.bool(key, value)
        } else if let Ok(values) = keys.strings(key) {
            writer.texts(key, values)
        } else if let Ok(values) = keys.i32s(key) {
            writer.i32s(key, &values)
        } else if key == "general.architecture" {
            writer
        } else {
            writer.text(key, keys.str(key).unwrap())
        };
    }
    for name in gguf.tensor_names() {
        let tensor = gguf.tensor(name).unwrap();
        let dims = [tensor.cols as u64, tensor.rows as u64];
        writer = match decode(gguf, name) {
            Ok((values, scale)) if MATRICES.iter().any(|matrix| name.contains(matrix)) => {
                let bits = (0x0400..0x7c00).find(|bits| half(*bits) == scale).expect("a scale that binary16 holds");
                writer.tensor(name, &dims, packing.number(), &packing.pack(&values, tensor.cols, bits))
            }
            _ => {
                let kind = if tensor.kind.to_string() == "F16" { 1 } else { 0 };
                writer.tensor(name, &dims, kind, tensor.bytes)
            }
        };
    }
    writer.open().unwrap()
}

#[test]
fn a_safetensors_file_is_refused_with_the_conversion_to_run() {
    let json = br#"{"model.embed_tokens.weight":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}"#;
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json);
    file.extend([0; 8]);
    let error = Gguf::from_vec(file).unwrap_err();
    assert!(matches!(error, GgufError::Safetensors) && error.to_string().contains("convert_hf_to_gguf.py"), "{error}");
}

#[test]
fn foreign_packings_hold_the_weights_of_the_f16_files() {
    let silu = "7d8ab96e4b2c52ab944175fea2713b6debd6988a34495ac278ed7c0135b9c608";
    let relu2 = "3ca6d579c8089bb4eb2eecb1362556f1af1978261e23034cc48057486b0d8372";
    let tiny = "5f7966b58d067d650c5a79f4848fca59751ae0dee43d6c5dbb115ed33a6350ab";
    assert_eq!(weights_hash(&model("mini-silu-tq1_0.gguf")), silu);
    assert_eq!(weights_hash(&model("mini-silu-tq2_0.gguf")), silu);
    assert_eq!(weights_hash(&model("mini-relu2-iq2_bn.gguf")), relu2);
    assert_eq!(weights_hash(&embedded()), tiny);
}

/// Made by bitnet.cpp's quantiser: 64 rows of 256 values and the scale behind them.
#[test]
fn foreign_i2_s_bytes_hold_the_same_rows() {
    let bytes = data("i2_s-first-64-rows.bin");
    let file = Writer::new().text("general.architecture", "bitnet").tensor("x", &[256, 64], 36, &bytes).open().unwrap();
    let (values, scale) = decode(&file, "x").unwrap();
    let (expected, expected_scale) = decode(&model("mini-silu-tq2_0.gguf"), "blk.0.attn_q.weight").unwrap();
    assert_eq!((values.as_slice(), scale), (&expected[..64 * 256], expected_scale));
}

/// Made by ik_llama.cpp's quantiser: the scale of a row is rounded to binary16, which holds this one exactly.
#[test]
fn foreign_iq1_bn_bytes_hold_the_same_rows() {
    let reference = model("mini-relu2-iq2_bn.gguf");
    for (matrix, dims) in [("attn_k", [256, 128]), ("ffn_down", [768, 256])] {
        let bytes = data(&format!("iq1_bn-{matrix}.bin"));
        let file = Writer::new().tensor("x", &dims, 134, &bytes).open().unwrap();
        assert_eq!(
            decode(&file, "x").unwrap(),
            decode(&reference, &format!("blk.0.{matrix}.weight")).unwrap(),
            "{matrix}"
        );
    }
}

/// Expected hashes are of the numbers that ggml's own Python package makes of the same bytes.
#[test]
fn foreign_embeddings_widen_to_the_same_numbers() {
    for (name, kind, expected) in [
        ("embedding-q6_k.bin", 14, "1fb4df7395d052741ea1ea6b4322d305946d02c00483c5f93c75301770db0e7f"),
        ("embedding-q8_0.bin", 8, "bf62f909a41dd87f694ec868b766d37dd31c200139fb90e580cf52d0b2398213"),
    ] {
        let file = Writer::new().tensor("x", &[256, 128], kind, &data(name)).open().unwrap();
        let bytes: Vec<u8> = numbers(&file, "x").unwrap().iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(blake3::hash(&bytes).to_string(), expected, "{name}");
    }
}

#[test]
fn the_digest_does_not_see_the_container() {
    let silu = model_digest(&model("mini-silu-tq2_0.gguf")).unwrap();
    assert_eq!(model_digest(&model("mini-silu-tq1_0.gguf")).unwrap(), silu);
    // bfloat16 cannot hold these scales; the other six can.
    for packing in Packing::ALL.into_iter().filter(|packing| *packing != Packing::Bf16) {
        assert_eq!(model_digest(&repack(&model("mini-silu-tq2_0.gguf"), packing)).unwrap(), silu, "{packing:?}");
    }
    assert_ne!(model_digest(&model("mini-relu2-iq2_bn.gguf")).unwrap(), silu);
}

/// A copy with the only occurrence of some bytes replaced.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, b)| *b == old).map(|(at, _)| at).collect();
    let [at] = places[..] else { panic!("{old:?} occurs at {places:?}") };
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

/// A copy of the small model with the byte at so many from its end replaced: weights, scales, norms, embedding.
fn with_byte_from_end(back: usize, byte: u8) -> Vec<u8> {
    let mut bytes = small(|writer| writer);
    let at = bytes.len() - back;
    assert_ne!(bytes[at], byte);
    bytes[at] = byte;
    bytes
}

#[test]
fn the_digest_sees_all_that_matters_and_nothing_else() {
    let digest = |bytes: Vec<u8>| model_digest(&Gguf::from_vec(bytes).unwrap()).unwrap();
    let plain = small(|writer| writer);
    let key = |name: &str| format!("bitnet-b1.58.{name}");
    let u32_key = |name: &str, value: u32| [key(name).as_bytes(), &4_u32.to_le_bytes(), &value.to_le_bytes()].concat();
    let matrix = 64 * 20;
    let different = [
        small_with("bitnet", 2, 259, |w| w),
        small_with("bitnet-b1.58", 1, 259, |w| w.u32(&key("attention.head_count_kv"), 1)),
        small_with("bitnet-b1.58", 2, 300, |w| w),
        small(|w| w.f32(&key("rope.freq_base"), 20_000.0)),
        replaced(&plain, &u32_key("context_length", 16), &u32_key("context_length", 17)),
        replaced(&plain, &1e-5_f32.to_le_bytes(), &1e-6_f32.to_le_bytes()),
        small(|w| w.text("tokenizer.chat_template", "")),
        small(|w| w.text("tokenizer.chat_template", "x")),
        small(|w| w.text("tokenizer.ggml.pre", "gpt-2")),
        small(|w| w.bool("tokenizer.ggml.add_bos_token", false)),
        small(|w| w.u32("tokenizer.ggml.eot_token_id", 258)),
        small(|w| w.u32("tokenizer.ggml.padding_token_id", 65)),
        replaced(&plain, b"<|user|>", b"<|uses|>"),
        small(|w| w.floats("blk.0.attn_q.scale", &[1], &[2.0])),
        with_byte_from_end(1, 0b0101_0101),          // a weight of the last matrix
        with_byte_from_end(matrix + 1, 0b0101_0101), // of the one before
        with_byte_from_end(7 * matrix + 1, 0x40),    // a norm
        with_byte_from_end(7 * matrix + 5 * 256 + 1, 0x3d), // the embedding
    ];
    let mut digests: Vec<_> = different.into_iter().map(digest).collect();
    digests.push(digest(plain.clone()));
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count, "each change gives another digest");

    let same = [
        replaced(&plain, b"small", b"large"),
        small(|w| w.text("general.license", "mit")),
        small(|w| w.floats("blk.0.attn_q.scale", &[1], &[1.0])),
        small(|w| w.text("tokenizer.ggml.pre", "llama-bpe").bool("tokenizer.ggml.add_bos_token", true)),
        small(|w| w.u32(&key("attention.head_count_kv"), 2).f32(&key("rope.freq_base"), 10_000.0)),
    ];
    for bytes in same {
        assert_eq!(digest(bytes), digest(plain.clone()));
    }
}

/// Changing this value means that every registered model gets another name.
#[test]
fn the_digest_of_the_embedded_model_is_golden() {
    let digest = model_digest(&embedded()).unwrap();
    assert_eq!(digest.to_string(), "56fc921370e640c07d286b1c51a234c26166af582fdc86936b584bee64b2d4d7");
}

#[test]
fn hyper_parameters_are_read_and_derived() {
    let hyper = Hyper::from_gguf(&embedded()).unwrap();
    assert_eq!(
        hyper,
        Hyper {
            name: "aria-tiny".to_owned(),
            architecture: Architecture::BitnetB158,
            gate: Gate::SquaredRelu,
            layers: 6,
            dim: 256,
            ffn: 768,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            vocab: 4096,
            context: 2048,
            rope_theta: 10_000.0,
            norm_eps: 1e-5,
        }
    );
    assert_eq!(hyper.ops_per_token(), 2 * (6 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 768) + 4096 * 256));
    let hyper = Hyper::from_gguf(&model("mini-silu-tq1_0.gguf")).unwrap();
    assert_eq!((hyper.architecture, hyper.gate, hyper.kv_heads), (Architecture::Bitnet, Gate::Silu, 4));
}

// --- one small sound model, and what becomes of it when it is not ---

const DIM: u64 = 64;

/// One layer of 64 columns, two heads, 256 byte tokens and three control tokens. `change` may add or spoil.
fn small(change: impl FnOnce(Writer) -> Writer) -> Vec<u8> {
    small_with("bitnet-b1.58", 2, 259, change)
}

fn small_with(architecture: &str, heads: u32, rows: u64, change: impl FnOnce(Writer) -> Writer) -> Vec<u8> {
    let key = |name: &str| format!("{architecture}.{name}");
    let dim = u32::try_from(DIM).unwrap();
    let tokens = byte_tokens();
    let mut writer = Writer::new()
        .text("general.architecture", architecture)
        .text("general.name", "small")
        .u32(&key("context_length"), 16)
        .u32(&key("embedding_length"), dim)
        .u32(&key("block_count"), 1)
        .u32(&key("feed_forward_length"), dim)
        .u32(&key("attention.head_count"), heads)
        .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
        .text("tokenizer.ggml.model", "gpt2")
        .texts("tokenizer.ggml.tokens", tokens.iter().map(String::as_str))
        .texts("tokenizer.ggml.merges", ["Ġ t"].into_iter().take(0))
        .u32("tokenizer.ggml.bos_token_id", 256)
        .u32("tokenizer.ggml.eos_token_id", 257)
        .tensor("token_embd.weight", &[DIM, rows], 1, &vec![0x3c; usize::try_from(2 * DIM * rows).unwrap()])
        .floats("output_norm.weight", &[DIM], &[1.0; 64]);
    for norm in NORMS {
        writer = writer.floats(&format!("blk.0.{norm}.weight"), &[DIM], &[1.0; 64]);
    }
    let values: Vec<i8> = (0..64 * 64).map(|index| i8::try_from(index * 7 % 3).unwrap() - 1).collect();
    for matrix in MATRICES {
        let bytes = Packing::Iq2Bn.pack(&values, 64, 0x3000);
        writer = writer.tensor(&format!("blk.0.{matrix}.weight"), &[DIM, DIM], 135, &bytes);
    }
    change(writer).finish()
}

fn byte_tokens() -> Vec<String> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100_u32..;
    let token = |byte: u8| {
        let number = if printable(byte) { u32::from(byte) } else { others.next().unwrap() };
        char::from_u32(number).unwrap().to_string()
    };
    let mut tokens: Vec<String> = (0..=u8::MAX).map(token).collect();
    tokens.extend(["<|begin|>", "<|end|>", "<|user|>"].map(str::to_owned));
    tokens
}

/// Everything that can be asked of a file, without a panic.
fn exercise(bytes: Vec<u8>, is_deep: bool) -> Result<(), GgufError> {
    let gguf = Gguf::from_vec(bytes)?;
    let names: Vec<String> = gguf.tensor_names().map(str::to_owned).collect();
    for name in names {
        let _ = decode(&gguf, &name);
        let _ = numbers(&gguf, &name);
    }
    let _ = describe(&gguf);
    let _ = Hyper::from_gguf(&gguf);
    if is_deep {
        let _ = model_digest(&gguf);
        let _ = Tokenizer::from_gguf(&gguf);
    }
    Ok(())
}

#[test]
fn the_small_model_is_sound() {
    let gguf = Gguf::from_vec(small(|writer| writer)).unwrap();
    let model = describe(&gguf).unwrap();
    assert_eq!((model.parameters, model.quantisation.as_str()), (259 * 64 + 5 * 64 + 7 * 64 * 64, "IQ2_BN"));
    model_digest(&gguf).unwrap();
    Tokenizer::from_gguf(&gguf).unwrap();
}

#[test]
fn a_cut_file_is_an_error_at_every_length() {
    let bytes = small(|writer| writer);
    // The last tensor ends without padding: 64 rows of 4 + 16 bytes.
    for length in 0..bytes.len() {
        let error = exercise(bytes[..length].to_vec(), false).unwrap_err();
        let is_named = matches!(error, GgufError::Truncated { .. } | GgufError::OutOfFile { .. });
        assert!(is_named, "cut at {length}: {error}");
    }
    exercise(bytes, true).unwrap();
}

#[test]
fn a_flipped_bit_is_an_error_or_another_model_but_never_a_panic() {
    let bytes = small(|writer| writer);
    let header = bytes.len() - 7 * 64 * 20 - 5 * 256 - 259 * 128;
    for bit in 0..8 * header {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = exercise(bytes, bit % 101 == 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), is_headed in any::<bool>(), counts in any::<[u8; 2]>()) {
        if is_headed && bytes.len() >= 24 {
            bytes[..8].copy_from_slice(b"GGUF\x03\0\0\0");
            bytes[8..24].fill(0);
            bytes[8] = counts[0] % 4;
            bytes[16] = counts[1] % 4;
        }
        let _ = exercise(bytes, true);
    }

    #[test]
    fn damaged_weights_never_panic(at in 0..24_000_usize, damage in proptest::collection::vec(any::<u8>(), 1..64)) {
        let mut bytes = small(|writer| writer);
        let end = bytes.len();
        let at = end - 1 - at % (end - damage.len());
        let length = damage.len().min(end - at);
        bytes[at..at + length].copy_from_slice(&damage[..length]);
        let _ = exercise(bytes, false);
    }

    #[test]
    fn every_packing_decodes_to_what_was_packed(
        values in proptest::collection::vec(-1..=1_i8, 512),
        exponent in 1..30_u16,
        fraction in 0..8_u16,
        rows in prop_oneof![Just(1_usize), Just(2)],
    ) {
        // Eight bits of precision, so that bfloat16 holds the scale as well.
        let scale = exponent << 10 | fraction << 7;
        let cols = 512 / rows;
        for packing in Packing::ALL {
            let bytes = packing.pack(&values, cols, scale);
            let writer = Writer::new().text("general.architecture", "bitnet");
            let file = writer.tensor("x", &[cols as u64, rows as u64], packing.number(), &bytes).open().unwrap();
            let expected_scale = if values.iter().any(|value| *value != 0) { half(scale) } else { 0.0 };
            prop_assert_eq!(decode(&file, "x").unwrap(), (values.clone(), expected_scale), "{:?}", packing);
        }
    }
}

/// Opens, reads keys, matrices and embedding: the first error.
fn first_error(bytes: Vec<u8>) -> String {
    let first = || -> Result<(), Box<dyn std::error::Error>> {
        let gguf = Gguf::from_vec(bytes)?;
        Hyper::from_gguf(&gguf)?;
        Tokenizer::from_gguf(&gguf)?;
        model_digest(&gguf)?;
        Ok(())
    };
    first().expect_err("a broken file").to_string()
}

fn check(bytes: Vec<u8>, expected: &[&str]) {
    let error = first_error(bytes);
    for part in expected {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn each_rule_of_the_container_has_its_error() {
    let sound = small(|writer| writer);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = sound.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    check(with(0, b"GGML"), &["no GGUF file"]);
    check(with(4, &1_u32.to_le_bytes()), &["version 1", "2 and 3"]);
    check(with(4, &3_u32.to_be_bytes()), &["version 50331648", "little endian"]);
    check(with(8, &u64::MAX.to_le_bytes()), &["number of tensors", "limit"]);
    check(with(16, &u64::MAX.to_le_bytes()), &["number of keys", "limit"]);
    check(with(24, &u64::MAX.to_le_bytes()), &["bytes of key 0", "limit"]);
    check(with(32, &[0xff]), &["key 0 is not UTF-8"]);

    let array = |element: u32, count: u64| [element.to_le_bytes().as_slice(), &count.to_le_bytes()].concat();
    let nested = [array(9, 1), array(9, 1), array(9, 1), array(9, 1), array(0, 0)].concat();
    check(small(|w| w.raw_key("x", 77, &[])), &["\"x\"", "unknown value type 77"]);
    check(small(|w| w.raw_key("x", 9, &array(77, 1))), &["\"x\"", "unknown value type 77"]);
    check(small(|w| w.raw_key("x", 9, &nested)), &["\"x\"", "nests arrays deeper than 4"]);
    check(small(|w| w.raw_key("x", 9, &array(0, 10_000_001))), &["elements of \"x\"", "limit of 10000000"]);
    check(small(|w| w.raw_key("x", 9, &array(12, 10_000_000))), &["ends inside the array \"x\""]);
    check(small(|w| w.raw_key("x", 9, &array(8, 10_000_000))), &["element", "of the array \"x\""]);
    check(
        small(|w| w.raw_key("x", 8, &((1_u64 << 20) + 1).to_le_bytes())),
        &["bytes of the key \"x\"", "limit of 1048576"],
    );
    check(small(|w| w.raw_key("x", 7, &[2])), &["\"x\" is 2", "0 or 1"]);
    check(small(|w| w.u32("x", 1).u32("x", 2)), &["key \"x\" occurs twice"]);
    for alignment in [0, 4, 33, 1 << 17] {
        check(small(|w| w.u32("general.alignment", alignment)), &["general.alignment", "power of two"]);
    }
    check(
        small(|w| w.raw_key("general.alignment", 11, &(-8_i64).to_le_bytes())),
        &["general.alignment", "not be negative"],
    );
}

#[test]
fn each_rule_of_the_tensor_table_has_its_error() {
    let at = |dims: &[u64], kind: u32, offset: u64| small(|w| w.tensor_at("x", dims, kind, offset));
    let far = 1 << 40;
    check(small(|w| w.tensor_at("output_norm.weight", &[64], 0, far)), &["\"output_norm.weight\" occurs twice"]);
    check(at(&[], 0, far), &["dimensions of \"x\"", "limit"]);
    check(at(&[1; 5], 0, far), &["dimensions of \"x\"", "5"]);
    check(at(&[0, 4], 0, far), &["\"x\"", "impossible dimensions [0, 4]"]);
    check(at(&[1 << 32, 1 << 32], 0, far), &["\"x\"", "impossible dimensions"]);
    check(at(&[u64::MAX, 1], 0, far), &["\"x\"", "impossible dimensions"]);
    check(at(&[100], 35, far), &["\"x\"", "rows of 100", "256", "TQ2_0"]);
    check(at(&[8], 0, 33), &["\"x\" begins at 33", "alignment 32"]);
    check(at(&[8], 0, far), &["\"x\" needs 32 bytes", "data section"]);
    check(at(&[8], 0, u64::MAX - 31), &["\"x\" needs 32 bytes", "data section"]);
    check(at(&[1 << 40], 0, 0), &["overlap", "\"x\""]);
    check(at(&[8], 0, 0), &["overlap", "\"x\""]);
    check(at(&[8], 77, 0), &["overlap", "\"x\""]);
    check(small(|w| w.tensor("extra.weight", &[8], 0, &[0; 32])), &["\"extra.weight\"", "bitnet-b1.58", "refused"]);
    check(small(|w| w.tensor("blk.0.attn_q.bias", &[8], 0, &[0; 32])), &["\"blk.0.attn_q.bias\"", "refused"]);
    check(small(|w| w.tensor("blk.1.attn_q.weight", &[8], 0, &[0; 32])), &["\"blk.1.attn_q.weight\"", "refused"]);
    check(small(|w| w.tensor("blk.00.attn_q.weight", &[8], 0, &[0; 32])), &["\"blk.00.attn_q.weight\"", "refused"]);
}

#[test]
fn each_rule_of_the_hyper_parameters_has_its_error() {
    check(small_with("llama", 2, 259, |w| w), &["general.architecture", "llama", "bitnet-b1.58"]);
    check(small_with("bitnet", 0, 259, |w| w), &["bitnet.attention.head_count\"", "from 1"]);
    check(small_with("bitnet", 3, 259, |w| w), &["bitnet.attention.head_count\"", "divide", "embedding_length = 64"]);
    check(small_with("bitnet", 64, 259, |w| w), &["bitnet.attention.head_count\"", "even"]);
    check(small_with("bitnet", 2, 200, |w| w), &["tokenizer.ggml.tokens", "259", "200 rows"]);
    let key = |name: &str| format!("bitnet-b1.58.{name}");
    check(small(|w| w.u32(&key("attention.head_count_kv"), 3)), &["head_count_kv", "divide"]);
    check(small(|w| w.text(&key("attention.head_count_kv"), "2")), &["head_count_kv", "a text", "whole number"]);
    check(small(|w| w.u32(&key("rope.dimension_count"), 16)), &["rope.dimension_count", "whole head of 32"]);
    check(small(|w| w.text(&key("rope.scaling.type"), "yarn")), &["rope.scaling.type", "yarn"]);
    check(
        small(|w| w.text(&key("rope.scaling.type"), "linear").f32(&key("rope.scaling.factor"), 2.0)),
        &["rope.scaling.type"],
    );
    check(small(|w| w.f32(&key("rope.freq_base"), f32::NAN)), &["rope.freq_base", "finite"]);
    check(small(|w| w.u32(&key("vocab_size"), 300)), &["vocab_size", "259 rows"]);
    check(Writer::new().finish(), &["general.architecture", "missing"]);
    check(Writer::new().text("general.architecture", "bitnet").finish(), &["bitnet.attention.head_count", "missing"]);
    let plain = small(|w| w.text(&key("rope.scaling.type"), "linear").f32(&key("rope.scaling.factor"), 1.0));
    Hyper::from_gguf(&Gguf::from_vec(plain).unwrap()).unwrap();
}

/// A file with one tensor `x` of 256 columns.
fn tensor(kind: u32, bytes: &[u8], rows: u64) -> Gguf {
    Writer::new().text("general.architecture", "bitnet").tensor("x", &[256, rows], kind, bytes).open().unwrap()
}

fn refuses(kind: u32, bytes: &[u8], rows: u64, expected: &[&str]) {
    let error = decode(&tensor(kind, bytes, rows), "x").unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn each_rule_of_ternary_matrices_has_its_error() {
    let values = [1_i8; 512];
    let pack = |packing: Packing| packing.pack(&values, 256, 0x3400);
    let spoiled = |packing: Packing, at: usize, byte: u8| {
        let mut bytes = pack(packing);
        bytes[at] = byte;
        bytes
    };
    refuses(35, &spoiled(Packing::Tq2_0, 66, 0xff), 2, &["\"x\"", "the code 3", "row 1"]);
    refuses(36, &spoiled(Packing::I2S, 3, 0xff), 2, &["\"x\"", "the code 3", "row 0"]);
    refuses(135, &spoiled(Packing::Iq2Bn, 4, 0xff), 2, &["\"x\"", "the code 3", "row 0"]);
    refuses(35, &spoiled(Packing::Tq2_0, 131, 0x35), 2, &["\"x\"", "row 1", "beside 2.5e-1"]);
    refuses(34, &spoiled(Packing::Tq1_0, 107, 0x35), 2, &["\"x\"", "row 1", "beside 2.5e-1"]);
    refuses(134, &spoiled(Packing::Iq1Bn, 55, 0x35), 2, &["\"x\"", "row 1", "beside 2.5e-1"]);
    refuses(135, &spoiled(Packing::Iq2Bn, 71, 0x3f), 2, &["\"x\"", "row 1", "beside 2.5e-1"]);
    refuses(1, &spoiled(Packing::F16, 1, 0x35), 2, &["\"x\"", "row 0", "another magnitude"]);
    refuses(1, &spoiled(Packing::F16, 513, 0x35), 2, &["\"x\"", "row 1", "beside 2.5e-1"]);
    refuses(30, &spoiled(Packing::Bf16, 1, 0x35), 2, &["\"x\"", "row 0"]);
    refuses(0, &spoiled(Packing::F32, 3, 0x35), 2, &["\"x\"", "row 0"]);
    refuses(35, &spoiled(Packing::Tq2_0, 65, 0x7c), 1, &["\"x\"", "scale inf"]);
    refuses(35, &spoiled(Packing::Tq2_0, 65, 0xb4), 1, &["\"x\"", "scale -2.5e-1"]);
    refuses(
        36,
        &Packing::I2S.pack(&[1; 256], 256, 0x3400)[..64].iter().copied().chain([0; 32]).collect::<Vec<_>>(),
        1,
        &["scale 0e0"],
    );
    refuses(14, &[0; 210], 1, &["\"x\"", "Q6_K", "ternary", "llama-quantize"]);
    refuses(12, &[0; 144], 1, &["\"x\"", "Q4_K", "ternary", "llama-quantize"]);
    let error = numbers(&tensor(35, &pack(Packing::Tq2_0), 2), "x").unwrap_err().to_string();
    assert!(error.contains("TQ2_0") && error.contains("--token-embedding-type"), "{error}");
    // Number 36 means I2_S in BitNet files only.
    let foreign = Writer::new()
        .text("general.architecture", "llama")
        .tensor("x", &[256, 2], 36, &pack(Packing::I2S))
        .open()
        .unwrap();
    assert!(decode(&foreign, "x").unwrap_err().to_string().contains("number 36"));
}

#[test]
fn a_block_of_zeros_may_carry_any_scale() {
    let mut values = [0_i8; 512];
    values[300] = -1;
    for (packing, at) in [(Packing::Tq1_0, 52), (Packing::Tq2_0, 64), (Packing::Iq1Bn, 0), (Packing::Iq2Bn, 0)] {
        let mut bytes = packing.pack(&values, 256, 0x3400);
        bytes[at..at + 2].copy_from_slice(&[0, 0x7e]);
        let file = tensor(packing.number(), &bytes, 2);
        assert_eq!(decode(&file, "x").unwrap(), (values.to_vec(), 0.25), "{packing:?}");
    }
}

/// What bitnet.cpp's quantiser leaves behind when it runs in several threads: 32 more bytes for each piece.
#[test]
fn scattered_i2_s_is_refused() {
    let mut bytes = Packing::I2S.pack(&[1; 512], 256, 0x3400);
    bytes.extend([0; 96]);
    let writer = Writer::new().text("general.architecture", "bitnet").tensor("x", &[256, 2], 36, &bytes);
    let error = writer.open().unwrap_err().to_string();
    assert!(error.contains("\"x\"") && error.contains("one thread"), "{error}");
}

#[test]
fn a_factor_beside_the_matrix_is_multiplied_in() {
    let bytes = Packing::Tq2_0.pack(&[1; 256], 256, 0x3c00);
    let factor = |factor: f32| {
        Writer::new().tensor("x.weight", &[256, 1], 35, &bytes).floats("x.scale", &[1], &[factor]).open().unwrap()
    };
    assert_eq!(decode(&factor(0.375), "x.weight").unwrap().1, 0.375);
    assert!(decode(&factor(f32::NAN), "x.weight").unwrap_err().to_string().contains("scale NaN"));
}

#[test]
fn numbers_that_are_none_are_refused() {
    let mut bytes = small(|writer| writer);
    let embedding = bytes.len() - 7 * 64 * 20 - 5 * 256 - 259 * 128;
    bytes[embedding + 128..embedding + 130].copy_from_slice(&0x7c00_u16.to_le_bytes());
    check(bytes, &["\"token_embd.weight\"", "inf", "row 1"]);
}

#[test]
fn the_catalog_lists_sound_and_damaged_files() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, bytes: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let sound = small(|writer| writer);
    put("b.gguf", &sound);
    put("a.gguf", &sound[..500]);
    put("empty.gguf", &[]);
    put("one/ggml-model-i2_s.gguf", &sound);
    put("two/x.gguf", &sound);
    put("two/y.GGUF", &sound);
    put("two/deep/z.gguf", &sound);
    put("notes.txt", b"no model");
    put(".hidden.gguf", &sound);
    let entries = catalog(folder.path()).unwrap();
    let names: Vec<(&str, bool)> = entries.iter().map(|entry| (entry.name.as_str(), entry.model.is_ok())).collect();
    assert_eq!(names, [("a", false), ("b", true), ("empty", false), ("one", true), ("two/x", true), ("two/y", true)]);
    assert_eq!(entries[1].size_bytes, sound.len() as u64);
    assert_eq!(entries[1].model.as_ref().unwrap().title, "small");
    assert!(catalog(&folder.path().join("nowhere")).unwrap().is_empty());
}

#[test]
fn a_missing_file_says_which() {
    let error = Gguf::open(Path::new("/nowhere/model.gguf")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/model.gguf"), "{error}");
    assert!(Gguf::open(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap_err().to_string().contains("regular file"));
}
