//! The sign guard: the highest place in which this key signed, durable before the signature is used.
//!
//! A second barrier behind the log, against a log that was lost, a backup that was restored and two processes with one key.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aria_chain::hash::Domain;
use aria_chain::ids::{BlockHash, Digest};
use aria_chain::units::Height;
use borsh::{BorshDeserialize, BorshSerialize};

/// What is signed in a round, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = false)]
pub enum Step {
    /// A proposal.
    Propose,
    /// A prevote.
    Prevote,
    /// A precommit.
    Precommit,
}

/// A place in which a key signs once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Mark {
    /// Height.
    pub height: Height,
    /// Round.
    pub round: u32,
    /// What.
    pub step: Step,
    /// For which block; none for a vote against all.
    pub block: Option<BlockHash>,
}

impl Mark {
    fn place(&self) -> (Height, u32, Step) {
        (self.height, self.round, self.step)
    }
}

/// Why a signature is refused.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// This key has signed something else there, or further on.
    #[error(
        "this key has already signed {last:?} and may not sign {asked:?}: the log was lost, a backup was restored, or two processes use one key. Wait until the chain is past height {}",
        last.height
    )]
    Signed {
        /// The last mark.
        last: Box<Mark>,
        /// The refused one.
        asked: Box<Mark>,
    },
    /// The mark cannot be kept.
    #[error("the sign guard {}: {cause}", path.display())]
    Io {
        /// Its file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Lets a key sign in each place once.
pub trait Guard {
    /// Notes the mark durably, or refuses. The same mark again is no new signature.
    fn admit(&mut self, mark: Mark) -> Result<(), GuardError>;
}

/// Whether `mark` may follow `last`.
pub fn check(last: Option<Mark>, mark: Mark) -> Result<(), GuardError> {
    match last {
        Some(last) if last != mark && last.place() >= mark.place() => {
            Err(GuardError::Signed { last: Box::new(last), asked: Box::new(mark) })
        }
        _ => Ok(()),
    }
}

/// Bytes of a slot: a mark and its checksum, padded.
const SLOT_BYTES: usize = 128;

/// A guard in a file of two slots that are written in turn, so that a torn write leaves the other.
#[derive(Debug)]
pub struct FileGuard {
    file: File,
    path: PathBuf,
    last: Option<Mark>,
    next_slot: u64,
}

impl FileGuard {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<FileGuard, GuardError> {
        let fault = |cause| GuardError::Io { path: path.to_owned(), cause };
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(fault)?;
        let mut bytes = Vec::new();
        (&mut file).take(2 * SLOT_BYTES as u64).read_to_end(&mut bytes).map_err(fault)?;
        let marks: Vec<(u64, Mark)> =
            (0..).zip(bytes.chunks(SLOT_BYTES)).filter_map(|(slot, bytes)| Some((slot, read(bytes)?))).collect();
        if marks.is_empty() && bytes.iter().any(|&byte| byte != 0) {
            return Err(fault(io::Error::new(io::ErrorKind::InvalidData, "both of its slots are damaged")));
        }
        let newest = marks.into_iter().max_by_key(|(_, mark)| mark.place());
        let next_slot = newest.map_or(0, |(slot, _)| 1 - slot);
        Ok(FileGuard { file, path: path.to_owned(), last: newest.map(|(_, mark)| mark), next_slot })
    }

    fn write(&mut self, mark: Mark) -> io::Result<()> {
        let body = borsh::to_vec(&mark)?;
        let mut bytes = borsh::to_vec(&(Domain::STORE_VALUE.hash(&body), mark))?;
        bytes.resize(SLOT_BYTES, 0);
        self.file.seek(SeekFrom::Start(self.next_slot * SLOT_BYTES as u64))?;
        self.file.write_all(&bytes)?;
        self.file.sync_all()
    }
}

fn read(mut bytes: &[u8]) -> Option<Mark> {
    let sum = Digest::deserialize(&mut bytes).ok()?;
    let mark = Mark::deserialize(&mut bytes).ok()?;
    (Domain::STORE_VALUE.hash_of(&mark) == sum).then_some(mark)
}

impl Guard for FileGuard {
    fn admit(&mut self, mark: Mark) -> Result<(), GuardError> {
        check(self.last, mark)?;
        if self.last == Some(mark) {
            return Ok(());
        }
        self.write(mark).map_err(|cause| GuardError::Io { path: self.path.clone(), cause })?;
        self.last = Some(mark);
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(height: u64, round: u32, step: Step, block: u8) -> Mark {
        Mark { height: Height::new(height), round, step, block: Some(BlockHash::new([block; 32])) }
    }

    #[test]
    fn a_place_is_signed_once_across_restarts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        let mut last = None;
        for (mark, is_admitted) in [
            (mark(5, 0, Step::Prevote, 1), true),
            (mark(5, 0, Step::Prevote, 1), true),
            (mark(5, 0, Step::Prevote, 2), false),
            (mark(5, 0, Step::Propose, 1), false),
            (mark(5, 0, Step::Precommit, 1), true),
            (mark(4, 9, Step::Precommit, 1), false),
            (mark(5, 1, Step::Propose, 2), true),
            (mark(6, 0, Step::Propose, 2), true),
        ] {
            let mut guard = FileGuard::open(&path).expect("opens");
            assert_eq!(guard.last, last);
            assert_eq!(guard.admit(mark).is_ok(), is_admitted, "{mark:?}");
            last = guard.last;
        }
    }

    #[test]
    fn a_torn_write_leaves_the_mark_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("guard");
        let mut guard = FileGuard::open(&path).expect("opens");
        guard.admit(mark(1, 0, Step::Prevote, 1)).expect("admitted");
        guard.admit(mark(2, 0, Step::Prevote, 1)).expect("admitted");
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[SLOT_BYTES + 40] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        assert_eq!(FileGuard::open(&path).expect("opens").last, Some(mark(1, 0, Step::Prevote, 1)));
        bytes[40] ^= 1;
        std::fs::write(&path, &bytes).expect("writes");
        assert!(FileGuard::open(&path).is_err());
    }
}
