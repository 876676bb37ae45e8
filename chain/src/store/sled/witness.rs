//! A note of the last committed block, outside of the database.
//!
//! A damaged log makes sled forget what comes behind the damage, and it says nothing. This file says what had been
//! committed: two slots of 64 bytes, written in turn after the database is on disk. It is not synced itself, so after a
//! power cut it may be late, never early.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::io_error;
use crate::hash::Domain;
use crate::ids::BlockHash;
use crate::store::{StoreError, Tip};
use crate::units::Height;

/// Name of the file in the store's folder.
pub(super) const FILE: &str = "tip";

const SLOT_BYTES: usize = 64;

/// The open note.
pub(super) struct Witness {
    file: File,
    path: PathBuf,
}

impl Witness {
    /// Opens the note, or makes an empty one; returns also what it says.
    pub(super) fn open(folder: &Path) -> Result<(Witness, Option<(Height, BlockHash)>), StoreError> {
        let path = folder.join(FILE);
        let fault = |fault| io_error("open", &path, &fault);
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        let mut slots = Vec::new();
        file.read_to_end(&mut slots).map_err(fault)?;
        let said = slots.chunks(SLOT_BYTES).filter_map(read_slot).max();
        if slots.len() < 2 * SLOT_BYTES {
            // Takes its room now, so that a full disk does not hit it later.
            slots.resize(2 * SLOT_BYTES, 0);
            file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&slots)).map_err(fault)?;
            file.sync_all().map_err(fault)?;
        }
        Ok((Witness { file, path }, said))
    }

    /// Notes a block that is on disk.
    pub(super) fn note(&mut self, tip: &Tip) -> Result<(), StoreError> {
        let slot = if tip.height.get().is_multiple_of(2) { 0 } else { SLOT_BYTES as u64 };
        let written = self.file.seek(SeekFrom::Start(slot)).and_then(|_| self.file.write_all(&slot_of(tip)));
        written.map_err(|fault| io_error("write", &self.path, &fault))
    }

    /// What a folder's note says, without making one.
    pub(super) fn peek(folder: &Path) -> Result<Option<(Height, BlockHash)>, StoreError> {
        let path = folder.join(FILE);
        match std::fs::read(&path) {
            Ok(slots) => Ok(slots.chunks(SLOT_BYTES).filter_map(read_slot).max()),
            Err(fault) if fault.kind() == ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(io_error("read", &path, &fault)),
        }
    }
}

/// Height, hash, and eight bytes of checksum; the rest is zero.
fn slot_of(tip: &Tip) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&tip.height.get().to_be_bytes());
    slot[8..40].copy_from_slice(tip.hash.as_bytes());
    let checksum = Domain::STORE_VALUE.hash(&slot[..40]);
    slot[40..48].copy_from_slice(&checksum.as_bytes()[..8]);
    slot
}

fn read_slot(slot: &[u8]) -> Option<(Height, BlockHash)> {
    let (height, rest) = slot.split_first_chunk::<8>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let checksum = Domain::STORE_VALUE.hash(&slot[..40]);
    let is_sound = rest.get(..8)? == &checksum.as_bytes()[..8];
    is_sound.then(|| (Height::new(u64::from_be_bytes(*height)), BlockHash::new(*hash)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;
    use crate::units::Timestamp;

    fn tip(height: u64) -> Tip {
        let hash = BlockHash::new([u8::try_from(height).unwrap(); 32]);
        Tip { height: Height::new(height), hash, timestamp_ms: Timestamp::ZERO, state_root: Digest::ZERO }
    }

    #[test]
    fn the_last_note_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Witness::peek(folder.path()), Ok(None));
        let (mut witness, said) = Witness::open(folder.path()).unwrap();
        assert_eq!(said, None);
        for height in 0..5 {
            witness.note(&tip(height)).unwrap();
            assert_eq!(Witness::peek(folder.path()), Ok(Some((Height::new(height), tip(height).hash))));
        }
        let (_, said) = Witness::open(folder.path()).unwrap();
        assert_eq!(said, Some((Height::new(4), tip(4).hash)));
        assert_eq!(std::fs::metadata(folder.path().join(FILE)).unwrap().len(), 128);
    }

    #[test]
    fn a_torn_note_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (mut witness, _) = Witness::open(folder.path()).unwrap();
        witness.note(&tip(4)).unwrap();
        witness.note(&tip(5)).unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[SLOT_BYTES + 20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Witness::peek(folder.path()), Ok(Some((Height::new(4), tip(4).hash))));
        for cut in [0, 7, 39, 47] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(Witness::peek(folder.path()), Ok(None));
            Witness::open(folder.path()).unwrap();
        }
    }
}
