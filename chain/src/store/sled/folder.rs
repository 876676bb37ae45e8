//! The folder of a store: who uses it, which format it has, and what is moved aside. Nothing in it is ever deleted but
//! what a killed process left half written and that holds no data.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::io_error;
use crate::store::StoreError;
use crate::store::schema::FORMAT;

/// Folder of the database inside the store's folder.
pub(super) fn database(path: &Path) -> PathBuf {
    path.join("db")
}

/// Holds a folder for this process; given back when dropped, also by a kill.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the folder, or names who has it.
    pub(super) fn take(path: &Path) -> Result<FolderLock, StoreError> {
        let name = path.join("lock");
        let fault = |fault| io_error("lock", &name, &fault);
        let options = File::options().read(true).write(true).create(true).truncate(false).open(&name);
        let mut file = options.map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::Locked { path: path.to_owned(), pid: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        file.set_len(0).map_err(fault)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(fault)?;
        Ok(FolderLock { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes the folder, if it is not there.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|fault| io_error("create", path, &fault))
}

/// Checks the format beside the data, or notes it in a folder without data.
pub(super) fn check_format(path: &Path) -> Result<(), StoreError> {
    let name = path.join("format");
    let text = match fs::read_to_string(&name) {
        Ok(text) => text,
        Err(fault) if fault.kind() == ErrorKind::NotFound && !database(path).exists() => {
            return write_format(path, &name).map_err(|fault| io_error("write", &name, &fault));
        }
        Err(fault) if fault.kind() == ErrorKind::InvalidData => String::new(),
        Err(fault) => return Err(io_error("read", &name, &fault)),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > FORMAT => Err(StoreError::NewerFormat { path: path.to_owned(), found, known: FORMAT }),
        Ok(FORMAT) => Ok(()),
        Ok(found @ 1..FORMAT) => Err(StoreError::OlderFormat { path: path.to_owned(), found, known: FORMAT }),
        _ => Err(StoreError::Damaged {
            place: name.display().to_string(),
            reason: format!("it says {:?}, not a format; write the line {FORMAT} into it", text.trim()),
        }),
    }
}

/// Written beside and renamed, so that it is there whole or not at all.
fn write_format(path: &Path, name: &Path) -> std::io::Result<()> {
    let draft = path.join("format.new");
    let mut file = File::create(&draft)?;
    file.write_all(format!("{FORMAT}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, name)?;
    sync(path)
}

/// Makes names in a folder survive a power cut.
pub(super) fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Files in the database's folder whose name passes.
fn files(path: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
    let folder = database(path);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(fault) if fault.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(fault) => return Err(io_error("read", &folder, &fault)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(|fault| io_error("read", &folder, &fault))?.file_name();
        if name.to_str().is_some_and(&is_wanted) {
            found.push(folder.join(name));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what a killed process left half written and the database refuses to open beside: snapshots, which hold nothing
/// that its log does not, and settings without a log, because they are written, not atomically, before there is one.
pub(super) fn remove_half_written(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let has_log = database(path).join("db").exists();
    let is_half_written = |name: &str| name.starts_with("snap.") && name.ends_with(".generating");
    let found = files(path, |name| is_half_written(name) || (name == "conf" && !has_log))?;
    for file in &found {
        fs::remove_file(file).map_err(|fault| io_error("remove", file, &fault))?;
    }
    Ok(found)
}

/// Moves the database's index snapshots and its settings to a `bad-N` folder: it makes both again from its log and our
/// defaults.
pub(super) fn move_caches_aside(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let found = files(path, |name| name.starts_with("snap.") || name == "conf")?;
    if found.is_empty() {
        return Ok(found);
    }
    let aside = new_aside(path)?;
    found.iter().map(|file| move_into(file, &aside)).collect()
}

/// Moves the whole database and the note of its tip to a `bad-N` folder; returns that folder.
pub(super) fn move_database_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = new_aside(path)?;
    move_into(&database(path), &aside)?;
    let witness = path.join(super::witness::FILE);
    if witness.exists() {
        move_into(&witness, &aside)?;
    }
    Ok(aside)
}

fn new_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = (1u32..).map(|number| path.join(format!("bad-{number}"))).find(|folder| !folder.exists());
    let aside = aside.expect("a folder does not hold four billion others");
    fs::create_dir(&aside).map_err(|fault| io_error("create", &aside, &fault))?;
    Ok(aside)
}

fn move_into(from: &Path, folder: &Path) -> Result<PathBuf, StoreError> {
    let to = folder.join(from.file_name().expect("only named files are moved"));
    fs::rename(from, &to).map_err(|fault| io_error("move", from, &fault))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_who_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let fault = FolderLock::take(folder.path()).unwrap_err();
        assert_eq!(fault, StoreError::Locked { path: folder.path().to_owned(), pid: Some(std::process::id()) });
        assert!(fault.to_string().contains(&format!("another process (process {})", std::process::id())));
        fs::write(folder.path().join("lock"), "soon").unwrap();
        let fault = FolderLock::take(folder.path()).unwrap_err();
        assert!(fault.to_string().contains("another process; stop it"), "{fault}");
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        check_format(path).unwrap();
        assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "4\n");
        check_format(path).unwrap();
        fs::write(path.join("format"), "5\n").unwrap();
        let fault = check_format(path).unwrap_err();
        assert_eq!(fault, StoreError::NewerFormat { path: path.to_owned(), found: 5, known: 4 });
        fs::write(path.join("format"), "2\n").unwrap();
        let fault = check_format(path).unwrap_err();
        assert_eq!(fault, StoreError::OlderFormat { path: path.to_owned(), found: 2, known: 4 });
        for bad in ["", "0", "x", "-1"] {
            fs::write(path.join("format"), bad).unwrap();
            assert!(matches!(check_format(path), Err(StoreError::Damaged { .. })), "{bad}");
        }
        fs::write(path.join("format"), [0xff]).unwrap();
        assert!(matches!(check_format(path), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn data_without_a_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(database(folder.path())).unwrap();
        assert!(check_format(folder.path()).is_err());
    }

    #[test]
    fn settings_without_a_log_are_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let inside = database(folder.path());
        fs::create_dir(&inside).unwrap();
        let settings = inside.join("conf");
        fs::write(&settings, "").unwrap();
        assert_eq!(remove_half_written(folder.path()).unwrap(), [settings]);
        assert_eq!(remove_half_written(folder.path()).unwrap(), [] as [PathBuf; 0]);
    }

    #[test]
    fn things_are_moved_never_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(remove_half_written(path).unwrap(), [] as [PathBuf; 0]);
        let inside = database(path);
        fs::create_dir(&inside).unwrap();
        assert_eq!(move_caches_aside(path).unwrap(), [] as [PathBuf; 0]);
        for name in ["db", "conf", "snap.0A", "snap.0B.generating"] {
            fs::write(inside.join(name), name).unwrap();
        }
        assert_eq!(remove_half_written(path).unwrap(), [inside.join("snap.0B.generating")]);
        let moved = move_caches_aside(path).unwrap();
        assert_eq!(moved, [path.join("bad-1").join("conf"), path.join("bad-1").join("snap.0A")]);
        fs::write(path.join(super::super::witness::FILE), "tip").unwrap();
        assert_eq!(move_database_aside(path).unwrap(), path.join("bad-2"));
        assert_eq!(fs::read_to_string(path.join("bad-2").join("db").join("db")).unwrap(), "db");
        assert!(path.join("bad-2").join(super::super::witness::FILE).exists());
        assert!(!inside.exists());
    }
}
