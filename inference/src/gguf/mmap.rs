//! Where the bytes of a model lie: mapped, part of the program, or in memory. The only unsafe code of the reader.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::GgufError;

/// The bytes of one model file.
#[derive(Debug)]
pub(crate) enum Source {
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl Source {
    /// Maps a regular file read-only.
    pub(crate) fn map(path: &Path) -> Result<Source, GgufError> {
        let unreadable = |source| GgufError::Unreadable { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let facts = file.metadata().map_err(unreadable)?;
        if !facts.is_file() {
            return Err(unreadable(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
        }
        if facts.len() == 0 {
            // An empty file cannot be mapped; an empty slice gets the same error as any other cut file.
            return Ok(Source::Static(&[]));
        }
        map_read_only(&file).map(Source::Mapped).map_err(unreadable)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Source::Mapped(map) => map,
            Source::Static(bytes) => bytes,
            Source::Owned(bytes) => bytes,
        }
    }
}

#[expect(unsafe_code, reason = "mapping a file has no safe form; this is the reader's island")]
fn map_read_only(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is private and read-only, and is only ever seen as a shared slice. The operating system could still
    // change the bytes if another process writes the file; the documentation of `Gguf::open` forbids that, models are
    // replaced by renaming, and every decoder of this module yields some value, never an access out of bounds, for any bytes.
    unsafe { Mmap::map(file) }
}
