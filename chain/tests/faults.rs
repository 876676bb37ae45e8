//! Damage, strangers and full disks. Whatever happens to the files, the store comes back whole, or says what is wrong:
//! it never opens with less than was committed, and never deletes anything.

#![allow(clippy::unwrap_used, reason = "where a test cannot go on, it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aria_chain::block::GenesisBlock;
use aria_chain::store::{FaultKind, Health, OpenOptions, OpenReport, SledStore, Store, StoreError};
use aria_chain::units::{Height, Timestamp};

#[allow(dead_code, reason = "each test target uses a part of it")]
mod support;
use support::{Chain, chain_id, open, proof, state_root, validators, verify};

/// Set for a child: the folder of its store.
const FOLDER: &str = "ARIA_TEST_FAULTS_FOLDER";

/// Blocks of the stores that get damaged.
const BLOCKS: u64 = 40;

/// Proofs of each block: the database gets several segments of its log.
const PROOFS: u64 = 16;

/// A store of some blocks, closed twice, so that it has a snapshot.
fn filled(path: &Path) {
    let mut chain = Chain::new(1);
    let (store, _) = open(path, &chain).unwrap();
    for height in 1..=BLOCKS {
        store.put_pending(&proof(height * 20 + 19)).unwrap();
        let (block, changes) = chain.next((0..PROOFS).map(|index| proof(height * 20 + index)).collect());
        store.commit(&block, &changes).unwrap();
    }
    drop(store);
    drop(open(path, &chain).unwrap());
}

/// Opens, and checks that all is there.
fn whole(path: &Path) -> OpenReport {
    let (store, report) = open(path, &Chain::new(1)).unwrap();
    assert_eq!(verify(&store), Ok(BLOCKS + 1));
    assert_eq!(store.pending().unwrap().len(), usize::try_from(BLOCKS).unwrap());
    assert_eq!(store.state_scan(b"height/", None, 100).unwrap().len(), usize::try_from(BLOCKS).unwrap());
    report
}

/// Files of the database whose name begins so.
fn files(path: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("db")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).collect()
}

#[track_caller]
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A fresh copy of a filled store for each damage.
struct Copies {
    folder: tempfile::TempDir,
    count: u32,
}

impl Copies {
    fn new() -> Copies {
        let folder = tempfile::tempdir().unwrap();
        filled(&folder.path().join("original"));
        Copies { folder, count: 0 }
    }

    fn next(&mut self) -> PathBuf {
        self.count += 1;
        let path = self.folder.path().join(self.count.to_string());
        copy(&self.folder.path().join("original"), &path);
        path
    }
}

#[test]
fn a_half_written_snapshot_is_removed() {
    let mut copies = Copies::new();
    let path = copies.next();
    let stray = path.join("db").join("snap.00000000000000FF.generating");
    fs::write(&stray, "half").unwrap();
    assert_eq!(whole(&path).half_written_removed, std::slice::from_ref(&stray));
    assert!(!stray.exists());
}

#[test]
fn damaged_snapshots_cost_nothing() {
    let mut copies = Copies::new();
    let damages: [fn(&Path); 4] = [
        |snap| fs::remove_file(snap).unwrap(),
        |snap| fs::write(snap, "").unwrap(),
        |snap| fs::write(snap, &fs::read(snap).unwrap()[..20]).unwrap(),
        |snap| flip(snap, 15),
    ];
    for damage in damages {
        let path = copies.next();
        let snapshots = files(&path, "snap.");
        assert!(!snapshots.is_empty(), "the store has a snapshot");
        snapshots.iter().for_each(|snap| damage(snap));
        whole(&path);
    }
}

#[test]
fn damaged_settings_are_made_again() {
    let mut copies = Copies::new();
    let damages: [fn(&Path); 3] =
        [|conf| fs::write(conf, "").unwrap(), |conf| flip(conf, 3), |conf| fs::remove_file(conf).unwrap()];
    for damage in damages {
        let path = copies.next();
        damage(&path.join("db").join("conf"));
        whole(&path);
    }
}

/// Opens a damaged store. Either all is there; or a reader finds what is wrong; or opening says so.
fn never_less_in_silence(path: &Path, damage: &str) -> &'static str {
    let opened = open(path, &Chain::new(1));
    match opened {
        Ok((store, _)) => {
            assert_eq!(store.tip().unwrap().height, Height::new(BLOCKS), "{damage}: the chain is shorter");
            match (verify(&store), store.pending()) {
                (Ok(checked), Ok(pending)) => {
                    assert_eq!(checked, BLOCKS + 1, "{damage}");
                    assert_eq!(pending.len(), usize::try_from(BLOCKS).unwrap(), "{damage}: waiting proofs are gone");
                    "whole"
                }
                (Err(fault), _) => {
                    assert!(fault.height <= Height::new(BLOCKS), "{damage}: {fault}");
                    "found by verify"
                }
                (_, Err(_)) => "found by reading",
            }
        }
        Err(StoreError::RolledBack { committed, .. }) => {
            assert_eq!(committed, Height::new(BLOCKS));
            "rolled back, and said so"
        }
        Err(StoreError::MovedAside { moved_to, committed, .. }) => {
            assert_eq!(committed, Height::new(BLOCKS));
            assert!(moved_to.join("db").join("db").exists() && moved_to.join("tip").exists());
            "moved aside"
        }
        Err(StoreError::TipDamaged { .. } | StoreError::Damaged { .. } | StoreError::Database { .. }) => "refused",
        Err(other) => panic!("{damage}: {other}"),
    }
}

#[test]
fn a_cut_database_is_never_shorter_in_silence() {
    let mut copies = Copies::new();
    let mut outcomes = Vec::new();
    let length = fs::metadata(copies.folder.path().join("original/db/db")).unwrap().len();
    for part in [0, 1, 2, 4, 7, 8, 9] {
        let path = copies.next();
        let file = fs::File::options().write(true).open(path.join("db").join("db")).unwrap();
        file.set_len(length * part / 10).unwrap();
        drop(file);
        outcomes.push(never_less_in_silence(&path, &format!("{part} tenths")));
    }
    assert!(outcomes.iter().any(|outcome| *outcome != "whole"), "{outcomes:?}");
}

#[test]
fn a_flipped_bit_is_never_silent() {
    let mut copies = Copies::new();
    let length = fs::read(copies.folder.path().join("original/db/db")).unwrap().len();
    // Only a part of the file is in use; these places are spread over it.
    for step in 0..24 {
        let path = copies.next();
        let at = (length / 24) * step + 977 * step % 400;
        flip(&path.join("db").join("db"), at);
        never_less_in_silence(&path, &format!("bit at {at} of {length}"));
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn altered_bytes_of_a_record_are_found_and_named() {
    let mut copies = Copies::new();
    let path = copies.next();
    let wanted = proof(83).record().output_hash;
    let receipt = proof(83).proof().receipt_signature;
    assert_ne!(wanted.as_bytes(), &[0; 32]);
    let file = path.join("db").join("db");
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> = (0..bytes.len() - 64).filter(|at| bytes[*at..at + 64] == receipt.as_bytes()[..]).collect();
    assert!(!places.is_empty(), "the signature is on disk as it is");
    places.iter().for_each(|at| bytes[*at] ^= 1);
    fs::write(&file, bytes).unwrap();
    let options = OpenOptions { repair: false, ..OpenOptions::default() };
    let fault = match SledStore::open_existing(&path, options) {
        Ok((store, _)) => verify(&store).unwrap_err().to_string(),
        Err(fault) => fault.to_string(),
    };
    assert!(fault.contains("height"), "{fault}");
}

/// Places in a database that are damaged, one after the other.
const PLACES: usize = 200;

#[test]
fn a_database_beyond_repair_is_moved_not_deleted() {
    let mut copies = Copies::new();
    let look = OpenOptions { repair: false, ..OpenOptions::default() };
    let length = fs::read(copies.folder.path().join("original/db/db")).unwrap().len();
    let mut unreadable = 0;
    for step in 0..PLACES {
        // Without its snapshots the database reads all of its log, and gives up at some damages.
        let path = copies.next();
        files(&path, "snap.").iter().for_each(|snap| fs::remove_file(snap).unwrap());
        flip(&path.join("db").join("db"), length / PLACES * step + 131 * step % (length / PLACES));
        let Err(StoreError::Unreadable { committed, .. }) = SledStore::open_existing(&path, look).map(|_| ()) else {
            fs::remove_dir_all(path).unwrap();
            continue;
        };
        unreadable += 1;
        assert_eq!(committed, Height::new(BLOCKS));
        assert!(path.join("db").exists() && !path.join("bad-1").exists(), "who only looks moves nothing");
        let refused = open(&path, &Chain::new(1)).map(|_| ()).unwrap_err();
        let StoreError::MovedAside { moved_to, committed, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*committed, Height::new(BLOCKS));
        assert!(refused.to_string().contains("height 40"), "{refused}");
        assert!(moved_to.join("db").join("db").exists() && moved_to.join("tip").exists());
        // The next start begins anew, beside what was kept.
        let (store, report) = open(&path, &Chain::new(1)).unwrap();
        assert!(report.is_new && store.tip().unwrap().height == Height::ZERO);
        assert!(moved_to.exists());
        break;
    }
    assert_eq!(unreadable, 1, "some damage is beyond repair");
}

#[test]
fn a_forgotten_chain_is_noticed() {
    let mut copies = Copies::new();
    let path = copies.next();
    fs::remove_dir_all(path.join("db")).unwrap();
    let refused = open(&path, &Chain::new(1)).map(|_| ()).unwrap_err();
    assert_eq!(
        refused,
        StoreError::RolledBack { path: path.clone(), found: Height::ZERO, committed: Height::new(BLOCKS) }
    );
    assert!(refused.to_string().contains("height 40 was committed"), "{refused}");
}

#[test]
fn a_store_of_another_chain_or_a_newer_program_is_refused() {
    let mut copies = Copies::new();
    let path = copies.next();
    let mut other = Chain::new(1);
    other.genesis = GenesisBlock::new(chain_id(), Timestamp::new(1_001), validators(1), state_root(0));
    let refused = open(&path, &other).map(|_| ()).unwrap_err();
    assert!(
        matches!(&refused, StoreError::OtherChain { found, .. } if found.genesis_hash == Chain::new(1).genesis.hash())
    );
    assert!(refused.to_string().contains("use its own genesis file"), "{refused}");
    fs::write(path.join("format"), "5\n").unwrap();
    let refused = open(&path, &Chain::new(1)).map(|_| ()).unwrap_err();
    assert_eq!(refused, StoreError::NewerFormat { path: path.clone(), found: 5, known: 4 });
    fs::write(path.join("format"), "4\n").unwrap();
    whole(&path);
}

#[test]
fn a_folder_without_a_chain_is_not_begun_by_looking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent");
    let refused = SledStore::open_existing(&path, OpenOptions::default()).map(|_| ()).unwrap_err();
    assert_eq!(refused, StoreError::Empty { path: path.clone() });
    assert!(!path.exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_the_remedy() {
    let refuses = |path: &Path| open(path, &Chain::new(1)).map(|_| ()).unwrap_err().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    assert!(refuses(&file).contains("cannot create"), "{}", refuses(&file));
    assert!(refuses(Path::new("/proc/aria-cannot-be-here")).contains("/proc/aria-cannot-be-here"));
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    let mut mode = fs::metadata(&locked).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(&locked, mode).unwrap();
    // The superuser writes everywhere, so this can only be seen as somebody else.
    if fs::write(locked.join("probe"), "").is_err() {
        assert!(refuses(&locked).contains("make it writable"), "{}", refuses(&locked));
    }
}

/// Runs one of the children below on a folder, in a shell that first runs `setup`.
fn child(name: &str, folder: &Path, setup: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{setup} exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

#[test]
fn child_that_fills_its_disk() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let mut chain = Chain::new(1);
    let (store, _) = open(Path::new(&folder), &chain).unwrap();
    chain.resume(&store.tip().unwrap());
    for height in store.tip().unwrap().height.get() + 1.. {
        let proofs = (0..8).map(|index| proof(height * 20 + index)).collect();
        let (block, changes) = chain.next(proofs);
        let Err(fault) = store.commit(&block, &changes) else {
            println!("\nblock {height}");
            continue;
        };
        println!("\nfault {fault}");
        // Nothing is written any more, and all that was final is still read.
        let again = store.commit(&block, &changes).unwrap_err();
        assert!(matches!(again, StoreError::Stopped { .. }), "{again}");
        assert!(matches!(store.put_pending(&proof(7)), Err(StoreError::Stopped { .. })));
        assert!(matches!(store.health(), Health::ReadOnly { .. }));
        assert_eq!(store.tip().unwrap().height, Height::new(height - 1));
        assert_eq!(store.header(Height::new(height)), Ok(None), "what is not on disk is not shown");
        match verify(&store).map_err(|fault| fault.kind) {
            Ok(checked) => assert_eq!(checked, height),
            // The database may need room even to open, but it never tells anything wrong.
            Err(kind) => assert!(matches!(kind, FaultKind::Unreadable(StoreError::DiskFull { .. })), "{kind}"),
        }
        println!("\nstopped well");
        return;
    }
}

#[test]
fn a_full_disk_stops_writing_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on file size stands in for a full disk: 1.5 MiB, and an error instead of a signal.
    let output = child("child_that_fills_its_disk", folder.path(), "trap '' XFSZ; ulimit -f 3072;").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("fault no room left to write"), "{text}");
    assert!(text.contains("stopped well"), "{text}");
    let committed = text.lines().filter(|line| line.starts_with("block ")).count();
    assert!(committed > 3, "{text}");
    let (store, _) = open(folder.path(), &Chain::new(1)).unwrap();
    let tip = store.tip().unwrap().height.get();
    assert!(tip >= u64::try_from(committed).unwrap(), "{tip} of {committed}");
    assert_eq!(verify(&store), Ok(tip + 1));
    let mut chain = Chain::new(1);
    chain.resume(&store.tip().unwrap());
    let (block, changes) = chain.next(vec![proof(3)]);
    store.commit(&block, &changes).unwrap();
}

#[test]
fn child_that_holds_its_folder() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let _store = open(Path::new(&folder), &Chain::new(1)).unwrap();
    println!("\nholding");
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn one_folder_one_process() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let mut holder = child("child_that_holds_its_folder", folder.path(), "").spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "holding"));
    let refused = open(folder.path(), &Chain::new(1)).map(|_| ()).unwrap_err();
    let looked = SledStore::open_existing(folder.path(), OpenOptions::default()).map(|_| ()).unwrap_err();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(refused, StoreError::Locked { path: folder.path().to_owned(), pid: Some(holder.id()) });
    assert_eq!(looked, refused);
    // A killed holder leaves the folder free.
    open(folder.path(), &Chain::new(1)).unwrap();
}
