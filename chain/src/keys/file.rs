//! The key file: PKCS#8 PEM, readable by its owner only, created exclusively, and on disk before it is used.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use zeroize::Zeroizing;

use super::NodeKey;
use crate::limits::KEY_FILE_BYTES_MAX;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system gave no random bytes.
    #[error("the system's source of randomness failed: {reason}")]
    Randomness {
        /// What it said.
        reason: String,
    },
    /// A key is created once and never written over.
    #[error("key file {path} exists already; keep it, or name another file")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is not there.
    #[error("key file {path} does not exist; check the data directory")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others could read the secret.
    #[error("key file {path} can be used by others (mode {mode:04o}); run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("key file {path} is not an ed25519 key in PKCS#8 PEM: {reason}; restore it from a copy")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot {action} key file {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl NodeKey {
    /// Reads a key file. Refuses one that others can read or write.
    pub fn load(path: &Path) -> Result<NodeKey, KeyError> {
        let file = File::open(path).map_err(|source| match source.kind() {
            ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
            _ => io("open", path)(source),
        })?;
        check_mode(&file, path)?;
        let malformed = |reason: String| KeyError::Malformed { path: path.to_owned(), reason };
        let mut text = Zeroizing::new(Vec::new());
        file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(io("read", path))?;
        if u64::try_from(text.len()).is_ok_and(|length| length > KEY_FILE_BYTES_MAX) {
            return Err(malformed(format!("it is longer than {KEY_FILE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&text).map_err(|fault| malformed(fault.to_string()))?;
        let signing = SigningKey::from_pkcs8_pem(text).map_err(|fault| malformed(fault.to_string()))?;
        Ok(NodeKey { signing })
    }

    /// Creates a key file with a fresh key. Refuses to write over anything.
    pub fn create(path: &Path) -> Result<NodeKey, KeyError> {
        let key = NodeKey::generate()?;
        key.save(path)?;
        Ok(key)
    }

    /// Reads the key file, or creates it where there is none.
    pub fn load_or_create(path: &Path) -> Result<NodeKey, KeyError> {
        match NodeKey::load(path) {
            Err(KeyError::Missing { .. }) => NodeKey::create(path),
            other => other,
        }
    }

    /// Writes the key to a file of its own. The key is on disk, and the file in its directory, when this returns.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let text = self.signing.to_pkcs8_pem(LineEnding::LF).expect("an ed25519 key has a PKCS#8 form");
        let mut file = create_private(path)?;
        file.write_all(text.as_bytes()).map_err(io("write", path))?;
        file.sync_all().map_err(io("write", path))?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of", path))
    }
}

fn create_private(path: &Path) -> Result<File, KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => KeyError::Exists { path: path.to_owned() },
        _ => io("create", path)(source),
    })
}

#[cfg(unix)]
fn check_mode(file: &File, path: &Path) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_err(io("read", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_file: &File, _path: &Path) -> Result<(), KeyError> {
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> KeyError {
    move |source| KeyError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_created_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let created = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(NodeKey::load(&path).unwrap().node_id(), created.node_id());
        assert_eq!(NodeKey::load_or_create(&path).unwrap().node_id(), created.node_id());
        assert!(matches!(NodeKey::create(&path), Err(KeyError::Exists { .. })));
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    }

    #[test]
    fn a_file_that_others_can_use_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        NodeKey::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            set_mode(&path, mode);
            let fault = NodeKey::load(&path).unwrap_err().to_string();
            assert!(fault.contains(&format!("mode 0{mode:o}")) && fault.contains("chmod 600"), "{fault}");
            assert!(matches!(NodeKey::load_or_create(&path), Err(KeyError::Mode { .. })));
        }
        for mode in [0o600, 0o400] {
            set_mode(&path, mode);
            NodeKey::load(&path).unwrap();
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        assert!(matches!(NodeKey::load(&path), Err(KeyError::Missing { .. })));
        NodeKey::create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let longer = text.clone() + &" ".repeat(5_000);
        let certificate = text.replace("PRIVATE", "PUBLIC");
        for bad in ["", "not a key", &text[..text.len() / 2], &longer, &certificate] {
            std::fs::write(&path, bad).unwrap();
            let fault = NodeKey::load(&path).unwrap_err();
            assert!(matches!(fault, KeyError::Malformed { .. }), "{fault}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(NodeKey::load(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("node.key");
        let fault = NodeKey::create(&path).unwrap_err().to_string();
        assert!(fault.contains("cannot create key file") && fault.contains("absent"), "{fault}");
    }
}
