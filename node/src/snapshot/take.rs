//! Making snapshots without stopping the chain: a thread reads the state page by page, and what a commit changes ahead of it is
//! kept aside as it was.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aria_chain::block::FinalBlock;
use aria_chain::codec::Versioned;
use aria_chain::ids::Digest;
use aria_chain::light::FinalHeader;
use aria_chain::store::{StateChanges, StateEntry, Store, StoreError};
use aria_chain::units::Height;
use aria_runtime::state::key;
use aria_runtime::state::lattice::Lattice;

use super::{CHUNK_BYTES, CHUNKS_MAX, Chunk, Manifest, Offer, chunk_digest};

/// Entries read at once; commits wait so long at most.
const PAGE: usize = 256;
/// Snapshots kept. Who is fetching the last but one can end.
const KEPT: usize = 2;
/// Name of the file that lists the chunks; they are named by number.
const MANIFEST: &str = "manifest";

/// The snapshots of a node.
pub struct Snapshots {
    folder: PathBuf,
    /// One every so many blocks; zero for none.
    every_blocks: u64,
    scan: Mutex<Option<Scan>>,
}

/// A walk through the state as it was when the walk began.
#[derive(Debug, Default)]
struct Scan {
    /// The last key read.
    after: Option<Vec<u8>>,
    /// What commits changed since, behind that key: the values from before.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write {path}: {cause}")]
    Write { path: PathBuf, cause: io::Error },
    #[error("the entries have root {got}, the block left {expected}")]
    Root { got: Digest, expected: Digest },
    #[error("the state has more than {CHUNKS_MAX} chunks")]
    TooLarge,
}

impl Snapshots {
    /// Snapshots in a folder. What an ended process left half written goes.
    pub fn new(folder: PathBuf, every_blocks: u64) -> Snapshots {
        for (_, path) in listed(&folder, |name| name.ends_with(".new")) {
            // What is left over costs only room.
            let _ = fs::remove_dir_all(path);
        }
        Snapshots { folder, every_blocks, scan: Mutex::default() }
    }

    fn scan(&self) -> MutexGuard<'_, Option<Scan>> {
        // A walk is checked by its root in the end, whatever happened to it.
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits a block to the store, keeps aside what a walk has yet to see, and begins one where a snapshot is due.
    pub fn commit(
        self: &Arc<Self>,
        store: &Arc<dyn Store>,
        block: &FinalBlock,
        changes: &StateChanges,
    ) -> Result<(), StoreError> {
        let mut scan = self.scan();
        if let Some(scan) = &mut *scan {
            scan.keep(changes.entries.iter().map(|(key, _)| key), |key| store.state(key))?;
        }
        store.commit(block, changes)?;
        let height = block.header().height;
        if scan.is_none() && self.is_due(height) {
            *scan = Some(Scan::default());
            drop(scan);
            let (snapshots, store, root) = (Arc::clone(self), Arc::clone(store), changes.state_root);
            let begun = std::thread::Builder::new().name("aria-snapshot".into()).spawn(move || {
                let taken = snapshots.take(&*store, height, root);
                *snapshots.scan() = None;
                match taken {
                    Ok(chunks) => tracing::info!(%height, chunks, "snapshot taken"),
                    Err(error) => tracing::warn!(%height, %error, "no snapshot"),
                }
            });
            if let Err(error) = begun {
                *self.scan() = None;
                tracing::warn!(%height, %error, "no snapshot");
            }
        }
        Ok(())
    }

    /// Whether a walk is under way. A snapshot that is due meanwhile is left out.
    pub fn is_taking(&self) -> bool {
        self.scan().is_some()
    }

    /// The state at the end of an epoch is the one that the next epoch's first header names.
    fn is_due(&self, height: Height) -> bool {
        self.every_blocks > 0 && height.get().saturating_add(1).is_multiple_of(self.every_blocks)
    }

    /// Walks through the state and writes it; returns the number of chunks.
    fn take(&self, store: &dyn Store, height: Height, expected: Digest) -> Result<usize, TakeError> {
        let (ready, fresh) = (self.folder.join(height.to_string()), self.folder.join(format!("{height}.new")));
        let fault = |cause| TakeError::Write { path: fresh.clone(), cause };
        fs::create_dir_all(&fresh).map_err(fault)?;
        let written = self.write(store, height, &fresh).and_then(|(got, chunks)| match got == expected {
            true => Ok(chunks),
            false => Err(TakeError::Root { got, expected }),
        });
        let placed = written.and_then(|chunks| fs::rename(&fresh, &ready).map(|()| chunks).map_err(fault));
        if placed.is_err() {
            // What is left over costs only room, until the next start.
            let _ = fs::remove_dir_all(&fresh);
        }
        for (_, old) in self.ready().into_iter().rev().skip(KEPT) {
            let _ = fs::remove_dir_all(old);
        }
        placed
    }

    /// Writes chunks and manifest; returns the root over the entries and the number of chunks.
    fn write(&self, store: &dyn Store, height: Height, folder: &Path) -> Result<(Digest, usize), TakeError> {
        let mut sum = Lattice::empty();
        let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Chunk::default(), 0);
        loop {
            let page = {
                let mut scan = self.scan();
                scan.get_or_insert_default().page(|after| store.state_scan(&[], after, PAGE))?
            };
            let is_last = page.is_none();
            for (key, value) in page.into_iter().flatten().filter(|(key, _)| key != key::LATTICE) {
                sum.add(&key, &value);
                bytes += key.len() + value.len() + 8;
                chunk.entries.push((key, value));
                if bytes >= CHUNK_BYTES {
                    chunks.push(write_chunk(folder, chunks.len(), &std::mem::take(&mut chunk))?);
                    bytes = 0;
                }
            }
            if chunks.len() >= CHUNKS_MAX {
                return Err(TakeError::TooLarge);
            }
            if is_last {
                break;
            }
        }
        if !chunk.entries.is_empty() {
            chunks.push(write_chunk(folder, chunks.len(), &chunk)?);
        }
        let manifest = Manifest { height, chunks };
        write_file(&folder.join(MANIFEST), &manifest.encode())?;
        Ok((sum.root(), manifest.chunks.len()))
    }

    /// Finished snapshots, the lowest first.
    fn ready(&self) -> Vec<(u64, PathBuf)> {
        listed(&self.folder, |name| name.parse::<u64>().is_ok())
    }

    /// The newest snapshot that can be shown to be one: the block above it is final.
    pub fn offer(&self, store: &dyn Store) -> Result<Option<Offer>, StoreError> {
        for (_, folder) in self.ready().into_iter().rev() {
            // A file that is gone or damaged is a snapshot less.
            let Some(manifest) = fs::read(folder.join(MANIFEST)).ok().and_then(|bytes| Manifest::decode(&bytes).ok())
            else {
                continue;
            };
            let Ok(above) = manifest.height.next() else { continue };
            if let (Some(last), Some(next)) = (FinalHeader::of(store, manifest.height)?, FinalHeader::of(store, above)?)
            {
                return Ok(Some(Offer { manifest, last, next }));
            }
        }
        Ok(None)
    }

    /// A chunk of the snapshot of a height, as it travels.
    pub fn chunk(&self, height: Height, index: u32) -> Option<Vec<u8>> {
        let bytes = fs::read(self.folder.join(height.to_string()).join(index.to_string())).ok()?;
        (bytes.len() <= Chunk::BYTES_MAX).then_some(bytes)
    }
}

impl Scan {
    /// Keeps what is about to change where this walk has not been yet.
    fn keep<'k>(
        &mut self,
        changed: impl Iterator<Item = &'k Vec<u8>>,
        value_of: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<(), StoreError> {
        for key in changed.filter(|key| self.after.as_ref().is_none_or(|after| *key > after)) {
            if !self.before.contains_key(key) {
                self.before.insert(key.clone(), value_of(key)?);
            }
        }
        Ok(())
    }

    /// The next entries as they were when the walk began; none at its end. `entries_after` gives up to [`PAGE`] as they are.
    fn page(
        &mut self,
        entries_after: impl Fn(Option<&[u8]>) -> Result<Vec<StateEntry>, StoreError>,
    ) -> Result<Option<Vec<StateEntry>>, StoreError> {
        let mut entries: BTreeMap<Vec<u8>, Vec<u8>> = entries_after(self.after.as_deref())?.into_iter().collect();
        let last = entries.keys().next_back().filter(|_| entries.len() == PAGE).cloned();
        let kept = match &last {
            Some(last) => {
                let later = self.before.split_off(last);
                std::mem::replace(&mut self.before, later)
            }
            None => std::mem::take(&mut self.before),
        };
        // `split_off` leaves the key itself with what is later.
        let of_last = last.as_ref().and_then(|last| self.before.remove_entry(last));
        if entries.is_empty() && kept.is_empty() {
            return Ok(None);
        }
        self.after = last.or_else(|| entries.keys().chain(kept.keys()).max().cloned());
        for (key, value) in kept.into_iter().chain(of_last) {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(Some(entries.into_iter().collect()))
    }
}

fn write_chunk(folder: &Path, index: usize, chunk: &Chunk) -> Result<Digest, TakeError> {
    let bytes = chunk.encode();
    write_file(&folder.join(index.to_string()), &bytes)?;
    Ok(chunk_digest(&bytes))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), TakeError> {
    fs::write(path, bytes).map_err(|cause| TakeError::Write { path: path.to_path_buf(), cause })
}

/// Entries of a folder by name, in order of the number that the name begins with. A folder that is not there has none.
fn listed(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.split('.').next()?.parse().ok()?;
            is_wanted(&name).then(|| (number, entry.path()))
        })
        .collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

    fn read(state: &Entries, after: Option<&[u8]>) -> Vec<StateEntry> {
        let later = state.iter().filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after));
        later.take(PAGE).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn entry_key() -> impl Strategy<Value = Vec<u8>> {
        (0_u16..1_500).prop_map(|number| number.to_be_bytes().to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_walk_sees_the_state_as_it_was_whatever_changes_meanwhile(
            begun in btree_map(entry_key(), vec(any::<u8>(), 0..3), 0..1_200),
            commits in vec(vec((entry_key(), proptest::option::of(vec(any::<u8>(), 0..3))), 0..200), 0..12),
        ) {
            let (mut state, mut scan, mut seen) = (begun.clone(), Scan::default(), Entries::new());
            let mut commits = commits.into_iter();
            loop {
                for (key, value) in commits.next().into_iter().flatten() {
                    scan.keep([&key].into_iter(), |key| Ok(state.get(key).cloned())).unwrap();
                    match value {
                        Some(value) => state.insert(key, value),
                        None => state.remove(&key),
                    };
                }
                let Some(page) = scan.page(|after| Ok(read(&state, after))).unwrap() else { break };
                for (key, value) in page {
                    prop_assert!(seen.last_key_value().is_none_or(|(last, _)| *last < key), "in order");
                    seen.insert(key, value);
                }
            }
            prop_assert_eq!(seen, begun);
        }
    }
}
