//! Every way a model file can be wrong. The list of variants is the list of rules.

use std::path::PathBuf;

/// What is wrong with a model file, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The operating system does not give us the file.
    #[error("cannot read the model {path}: {source}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The first four bytes are "GGUF".
    #[error("this is no GGUF file: it begins with {found:02x?} instead of \"GGUF\"; give a .gguf model file")]
    Magic {
        /// The first bytes of the file.
        found: [u8; 4],
    },
    /// The layout of Hugging Face's files: a length, then JSON.
    #[error(
        "this is a safetensors file, which is not read: convert its folder with llama.cpp's `convert_hf_to_gguf.py --outtype f16` (the bf16 variant of BitNet-b1.58-2B-4T, not the packed one), or take the published GGUF of the model"
    )]
    Safetensors,
    /// Versions 2 and 3 are read. Version 1 had other lengths; a swapped number is a big-endian file.
    #[error(
        "GGUF version {found} is not supported, only 2 and 3 (little endian): convert the model again with a current tool"
    )]
    Version {
        /// The version the file claims.
        found: u32,
    },
    /// A length leads past the end of the file.
    #[error(
        "the file ends inside {what}: {needed} more bytes needed at offset {offset}, {left} left; download it again"
    )]
    Truncated {
        /// Which part was being read.
        what: String,
        /// Where it begins.
        offset: u64,
        /// Its length.
        needed: u64,
        /// What the file still has.
        left: u64,
    },
    /// A count is above its limit.
    #[error("{what}: {count} is above the limit of {max}; the file is damaged or hostile")]
    TooMany {
        /// What is counted.
        what: String,
        /// The claim.
        count: u64,
        /// The limit.
        max: u64,
    },
    /// Text in a model file is UTF-8.
    #[error("{what} is not UTF-8; convert the model again")]
    NotUtf8 {
        /// Which text.
        what: String,
    },
    /// A key occurs once.
    #[error("the key {key:?} occurs twice; convert the model again")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor occurs once.
    #[error("the tensor {tensor:?} occurs twice; convert the model again")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// Value types are 0 to 12.
    #[error("the key {key:?} has the unknown value type {found}; the file is damaged or newer than this program")]
    ValueType {
        /// The key.
        key: String,
        /// The type number.
        found: u32,
    },
    /// Arrays of arrays end somewhere.
    #[error("the key {key:?} nests arrays deeper than {max}; the file is damaged or hostile")]
    Nesting {
        /// The key.
        key: String,
        /// The limit.
        max: u32,
    },
    /// `general.alignment` is a power of two.
    #[error("general.alignment is {found}; it must be a power of two from 8 to {max}")]
    Alignment {
        /// The claim.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// A key that is needed.
    #[error("the key {key:?} is missing; convert the model again with a tool that writes it")]
    KeyMissing {
        /// The key.
        key: String,
    },
    /// A key has another type than its meaning needs.
    #[error("the key {key:?} holds {found}, not {wanted}; convert the model again")]
    KeyType {
        /// The key.
        key: String,
        /// What it has to be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A key has a value that cannot be.
    #[error("the key {key:?} is {value}, but {rule}")]
    KeyValue {
        /// The key.
        key: String,
        /// The claim.
        value: String,
        /// What has to hold.
        rule: String,
    },
    /// A tensor has one to four dimensions, none zero, and a size that fits 63 bits.
    #[error("the tensor {tensor:?} has impossible dimensions {dims:?}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// The claim.
        dims: Vec<u64>,
    },
    /// A row is a whole number of the type's blocks.
    #[error(
        "the tensor {tensor:?} has rows of {cols} values, which is no multiple of {block} as its type {kind} needs"
    )]
    Block {
        /// The tensor.
        tensor: String,
        /// Its row length.
        cols: u64,
        /// Values in one block.
        block: u64,
        /// The type.
        kind: String,
    },
    /// Offsets are multiples of the alignment.
    #[error("the tensor {tensor:?} begins at {offset}, which is no multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Offset in the data section.
        offset: u64,
        /// The alignment of the file.
        alignment: u64,
    },
    /// Tensors lie inside of the file.
    #[error(
        "the tensor {tensor:?} needs {needed} bytes at {offset}, but the file's data section has only {left}; download it again"
    )]
    OutOfFile {
        /// The tensor.
        tensor: String,
        /// Offset in the data section.
        offset: u64,
        /// Size of the tensor.
        needed: u64,
        /// Size of the data section.
        left: u64,
    },
    /// Tensors do not share bytes.
    #[error("the tensors {first:?} and {second:?} overlap; the file is damaged or hostile")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The tensor that begins inside of it.
        second: String,
    },
    /// A tensor that is needed.
    #[error("the tensor {tensor:?} is missing; this is no complete BitNet model")]
    TensorMissing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the forward pass would silently ignore.
    #[error(
        "the tensor {tensor:?} has no place in the architecture {architecture:?}: its effect would be lost, so the model is refused"
    )]
    TensorUnexpected {
        /// The tensor.
        tensor: String,
        /// What the file says it is.
        architecture: String,
    },
    /// A matrix has the shape that the hyper-parameters say.
    #[error("the tensor {tensor:?} is {cols} x {rows}, expected {wanted_cols} x {wanted_rows}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Length of a row.
        cols: u64,
        /// Number of rows.
        rows: u64,
        /// Length of a row by the hyper-parameters.
        wanted_cols: u64,
        /// Number of rows by the hyper-parameters.
        wanted_rows: u64,
    },
    /// Only some tensor types are decoded.
    #[error("the tensor {tensor:?} has the type {kind}, which is not read as {wanted}: {remedy}")]
    TensorType {
        /// The tensor.
        tensor: String,
        /// The type.
        kind: String,
        /// What it was asked to be.
        wanted: &'static str,
        /// Which conversion helps.
        remedy: &'static str,
    },
    /// A ternary matrix holds -1, 0 and +1 times one scale.
    #[error("the tensor {tensor:?} is not ternary: {found} in row {row}; convert a BitNet b1.58 model")]
    NotTernary {
        /// The tensor.
        tensor: String,
        /// The first bad row.
        row: u64,
        /// What is there.
        found: String,
    },
    /// The scale of a ternary matrix is finite and above zero.
    #[error("the tensor {tensor:?} has the scale {scale:e}; it must be finite and above zero: convert the model again")]
    Scale {
        /// The tensor.
        tensor: String,
        /// The scale.
        scale: f32,
    },
    /// A known fault of one quantiser: several threads write the pieces of an I2_S tensor to wrong places.
    #[error(
        "the tensor {tensor:?} takes {found} bytes where I2_S takes {wanted}: bitnet.cpp packed it with several threads and lost rows; run llama-quantize with one thread"
    )]
    Scattered {
        /// The tensor.
        tensor: String,
        /// Bytes up to the next tensor.
        found: u64,
        /// Bytes of a sound one.
        wanted: u64,
    },
    /// Embeddings and norms are finite.
    #[error("the tensor {tensor:?} holds {found} in row {row}; convert the model again")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The first bad row.
        row: u64,
        /// The value.
        found: f32,
    },
}
