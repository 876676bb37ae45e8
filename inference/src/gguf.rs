//! GGUF files, versions 2 and 3: the container that ternary models are published in.
//!
//! Everything in a file is a claim of a stranger. Opening checks the whole header (counts, lengths, names, offsets,
//! overlaps) against the size of the file and against limits with a reason, allocates only what was checked, and never
//! panics; whatever is wrong becomes a [`GgufError`] that names the key or the tensor. Arrays and weights stay where they
//! are, as spans of the file, until somebody asks for them.
//!
//! Reading order: [`Gguf`], [`metadata`], [`tensor`], [`ternary`] and [`float`] (how rows are decoded), [`reader`]
//! (the header), [`writer`] (for tests, benches and synthetic models).

mod error;
pub mod float;
pub mod metadata;
mod mmap;
pub mod reader;
pub mod tensor;
pub mod ternary;
pub mod writer;

use std::path::Path;

pub use error::GgufError;
pub use float::FloatRows;
pub use metadata::Metadata;
pub use tensor::{Tensor, TensorType};
pub use ternary::TernaryRows;

use mmap::Source;
use reader::Header;

/// An opened model file whose header was checked in full. Weights are looked at when they are asked for.
#[derive(Debug)]
pub struct Gguf {
    source: Source,
    header: Header,
}

impl Gguf {
    /// Maps a file read-only and checks its header. The file must not change while it is open: replace models by renaming.
    ///
    /// # Errors
    /// The file cannot be read, or its header breaks a rule of [`GgufError`].
    pub fn open(path: &Path) -> Result<Gguf, GgufError> {
        Gguf::new(Source::map(path)?)
    }

    /// A model that is part of the program, such as the embedded one.
    ///
    /// # Errors
    /// The header breaks a rule of [`GgufError`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Gguf, GgufError> {
        Gguf::new(Source::Static(bytes))
    }

    /// A model in memory: plain reading instead of a map, tests, synthetic models.
    ///
    /// # Errors
    /// The header breaks a rule of [`GgufError`].
    pub fn from_vec(bytes: Vec<u8>) -> Result<Gguf, GgufError> {
        Gguf::new(Source::Owned(bytes))
    }

    fn new(source: Source) -> Result<Gguf, GgufError> {
        let header = Header::read(source.bytes())?;
        Ok(Gguf { source, header })
    }

    /// The keys of the file and their values.
    #[must_use]
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(self.source.bytes(), &self.header.values)
    }

    /// One tensor by its name.
    ///
    /// # Errors
    /// [`GgufError::TensorMissing`].
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>, GgufError> {
        self.opt_tensor(name).ok_or_else(|| GgufError::TensorMissing { tensor: name.to_owned() })
    }

    /// One tensor by its name, if the file has it.
    #[must_use]
    pub fn opt_tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let (name, info) = self.header.tensors.get_key_value(name)?;
        Some(Tensor::new(self, name, info))
    }

    /// Names of all tensors, sorted.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Size of the file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.source.bytes().len() as u64
    }

    /// Version of the container: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.header.version
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.source.bytes()
    }
}
