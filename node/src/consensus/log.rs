//! The write-ahead log of one height: what this node heard and said, before it says more.
//!
//! A record that was not flushed may be lost; nothing that follows from it has left the node. A damaged last record is such
//! a one and is cut off. Damage further in stops the node.

use std::io;
use std::path::{Path, PathBuf};

use aria_chain::block::{Body, Header};
use aria_chain::units::Height;
use borsh::io::{Error, ErrorKind, Read, Write};
use borsh::{BorshDeserialize, BorshSerialize};
use malachite_core::{Input, ProposedValue};
use malachite_types::{Round, Timeout, TimeoutKind, ValueOrigin};

use super::context::Pouw;

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// What the core was told. Boxed, because most are small.
    Input(Box<Input<Pouw>>),
    /// A valid block, and the round for which this node made it, if it did.
    Block(Box<(Header, Body)>, Option<u32>),
}

/// Where records of a height are kept.
pub trait Log {
    /// Forgets everything and begins a height.
    fn begin(&mut self, height: Height) -> io::Result<()>;
    /// Adds a record, perhaps only in memory.
    fn append(&mut self, record: &Record) -> io::Result<()>;
    /// Makes all records durable.
    fn flush(&mut self) -> io::Result<()>;
}

/// The log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the consensus log {} is damaged at record {record}: {reason}. Restore it, or remove it if this key signs nowhere else; the file beside it keeps the node from voting twice", path.display())]
pub struct LogError {
    path: PathBuf,
    record: usize,
    reason: String,
}

/// A log in a file.
pub struct FileLog {
    inner: malachite_wal::Log,
    height: Height,
}

impl FileLog {
    /// Opens or makes the log; returns what it holds for `height`, and nothing if it was written for an older one.
    pub fn open(path: &Path, height: Height) -> Result<(FileLog, Vec<Record>), LogError> {
        let fault = |record, reason: String| LogError { path: path.to_owned(), record, reason };
        let inner = malachite_wal::Log::open(path).map_err(|error| fault(0, error.to_string()))?;
        if inner.sequence() > height.get() {
            let reason = format!("it is of height {}, the next block has height {height}", inner.sequence());
            return Err(fault(0, reason));
        }
        let mut log = FileLog { height, inner };
        if log.inner.sequence() < height.get() {
            log.begin(height).map_err(|error| fault(0, error.to_string()))?;
            return Ok((log, Vec::new()));
        }
        let entries: Vec<io::Result<Vec<u8>>> =
            log.inner.iter().map_err(|error| fault(0, error.to_string()))?.collect();
        // Where reading ended before the last entry, what is damaged is not the tail.
        let are_all_read = entries.len() == log.inner.len();
        let mut records = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            match entry.as_ref().map_err(io::Error::to_string).and_then(|bytes| decode(bytes)) {
                Ok((of, record)) if of == height => records.push(record),
                // Left over from a height that was being replaced when the node died.
                Ok(_) => {}
                // The tail was being written when the node died.
                Err(_)
                    if are_all_read
                        && entries[index + 1..].iter().all(|later| later.as_ref().is_ok_and(Vec::is_empty)) =>
                {
                    log.inner.truncate(index as u64).map_err(|error| fault(index, error.to_string()))?;
                    break;
                }
                Err(reason) => return Err(fault(index, reason)),
            }
        }
        Ok((log, records))
    }
}

impl Log for FileLog {
    fn begin(&mut self, height: Height) -> io::Result<()> {
        self.height = height;
        self.inner.reset(height.get())
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        self.inner.append(encode(self.height, record))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A record's bytes, with the height that it belongs to.
pub fn encode(height: Height, record: &Record) -> Vec<u8> {
    borsh::to_vec(&(height, record)).expect("writing to a vector does not fail")
}

fn decode(bytes: &[u8]) -> Result<(Height, Record), String> {
    borsh::from_slice(bytes).map_err(|error| error.to_string())
}

impl BorshSerialize for Record {
    fn serialize<W: Write>(&self, writer: &mut W) -> Result<(), Error> {
        match self {
            Record::Block(block, own_round) => (0_u8, block, own_round).serialize(writer),
            Record::Input(input) => match &**input {
                Input::Vote(vote) => (1_u8, vote).serialize(writer),
                Input::Proposal(proposal) => (2_u8, proposal).serialize(writer),
                Input::ProposedValue(value, origin) => (3_u8, value, origin.is_sync()).serialize(writer),
                Input::TimeoutElapsed(timeout) => {
                    let kind = step_of(timeout.kind).ok_or_else(|| not_kept("this timeout"))?;
                    (4_u8, kind, timeout.round).serialize(writer)
                }
                Input::PolkaCertificate(certificate) => (5_u8, certificate).serialize(writer),
                _ => Err(not_kept("this input")),
            },
        }
    }
}

impl BorshDeserialize for Record {
    fn deserialize_reader<R: Read>(reader: &mut R) -> Result<Record, Error> {
        let input = match u8::deserialize_reader(reader)? {
            0 => {
                let (block, own_round) = BorshDeserialize::deserialize_reader(reader)?;
                return Ok(Record::Block(block, own_round));
            }
            1 => Input::Vote(BorshDeserialize::deserialize_reader(reader)?),
            2 => Input::Proposal(BorshDeserialize::deserialize_reader(reader)?),
            3 => {
                let (value, is_sync): (ProposedValue<Pouw>, bool) = BorshDeserialize::deserialize_reader(reader)?;
                Input::ProposedValue(value, if is_sync { ValueOrigin::Sync } else { ValueOrigin::Consensus })
            }
            4 => {
                let (kind, round): (u8, Round) = BorshDeserialize::deserialize_reader(reader)?;
                let kind = match kind {
                    0 => TimeoutKind::Propose,
                    1 => TimeoutKind::Prevote,
                    2 => TimeoutKind::Precommit,
                    _ => return Err(Error::new(ErrorKind::InvalidData, "no such timeout")),
                };
                Input::TimeoutElapsed(Timeout::new(round, kind))
            }
            5 => Input::PolkaCertificate(BorshDeserialize::deserialize_reader(reader)?),
            kind => return Err(Error::new(ErrorKind::InvalidData, format!("there is no record of kind {kind}"))),
        };
        Ok(Record::Input(Box::new(input)))
    }
}

fn step_of(kind: TimeoutKind) -> Option<u8> {
    match kind {
        TimeoutKind::Propose => Some(0),
        TimeoutKind::Prevote => Some(1),
        TimeoutKind::Precommit => Some(2),
        TimeoutKind::Rebroadcast | TimeoutKind::FinalizeHeight(_) => None,
    }
}

fn not_kept(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{what} is never asked to be kept"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(round: u32) -> Record {
        Record::Input(Box::new(Input::TimeoutElapsed(Timeout::prevote(Round::new(round)))))
    }

    fn written(path: &Path, rounds: u32) {
        let (mut log, records) = FileLog::open(path, Height::new(7)).expect("opens");
        assert!(records.is_empty());
        for round in 0..rounds {
            log.append(&record(round)).expect("appended");
        }
        log.flush().expect("flushed");
    }

    fn read(path: &Path, height: u64) -> Result<Vec<Record>, LogError> {
        FileLog::open(path, Height::new(height)).map(|(_, records)| records)
    }

    #[test]
    fn records_come_back_at_their_height_and_at_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        written(&path, 3);
        assert_eq!(read(&path, 7).expect("reads"), [record(0), record(1), record(2)]);
        assert_eq!(read(&path, 7).expect("reads again").len(), 3);
        assert_eq!(read(&path, 8).expect("begins anew"), []);
        assert!(read(&path, 7).is_err(), "a log of a later height than the chain's");
    }

    #[test]
    fn every_torn_tail_is_cut_and_no_record_before_it_is_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        written(&path, 3);
        let whole = std::fs::read(&path).expect("reads");
        let begin = 12;
        let entry = (whole.len() - begin) / 3;
        for length in begin..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("writes");
            assert_eq!(read(&path, 7).expect("opens").len(), (length - begin) / entry, "{length} bytes");
        }
        // A tail of zeros, as some file systems leave it.
        let zeros = [&whole[..], &[0; 300]].concat();
        std::fs::write(&path, zeros).expect("writes");
        assert_eq!(read(&path, 7).expect("opens").len(), 3);
        assert_eq!(read(&path, 7).expect("and stays so").len(), 3);
    }

    #[test]
    fn damage_before_the_last_record_stops_the_node() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        written(&path, 3);
        let whole = std::fs::read(&path).expect("reads");
        let entry = (whole.len() - 12) / 3;
        for at in 0..2 {
            let mut damaged = whole.clone();
            damaged[12 + at * entry + entry - 1] ^= 1;
            std::fs::write(&path, &damaged).expect("writes");
            let error = read(&path, 7).expect_err("damaged").to_string();
            assert!(error.contains(&format!("record {at}")), "{error}");
        }
    }
}
