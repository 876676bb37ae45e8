//! Model files on disk: what `aria model list` shows. Reads headers only, looks at no weight, loads nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::gguf::{Gguf, GgufError, Tensor};
use crate::hyper::{Architecture, Hyper, MATRICES};

/// Files that are looked at. A folder with more is not a folder of models.
pub const FILES_MAX: usize = 4_096;

/// One model file, sound or not.
#[derive(Debug)]
pub struct CatalogEntry {
    /// What users call it: the folder, if it holds only this model, else the file's name without its ending.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// What is inside, or why it cannot be run.
    pub model: Result<CatalogModel, GgufError>,
}

/// What the header of a sound model file says.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogModel {
    /// The name inside of the file.
    pub title: String,
    /// Model family.
    pub architecture: Architecture,
    /// Weights of all tensors.
    pub parameters: u64,
    /// How the ternary matrices are stored, as in `TQ2_0`; several are joined by `+`.
    pub quantisation: String,
    /// How the embedding is stored.
    pub embedding: String,
    /// Positions of the context.
    pub context: usize,
}

/// All model files of a folder: `<folder>/*.gguf` and `<folder>/<name>/*.gguf`, sorted by path. A missing folder has none.
///
/// # Errors
/// The folder cannot be listed, or holds more than [`FILES_MAX`] model files. A damaged file is an entry, not an error.
pub fn catalog(folder: &Path) -> io::Result<Vec<CatalogEntry>> {
    let mut entries = Vec::new();
    let (files, folders) = list(folder)?;
    for path in files {
        let name = stem(&path);
        entries.push(entry(name, path));
    }
    for folder in folders {
        // A folder that cannot be listed is not ours to complain about.
        let (files, _) = list(&folder).unwrap_or_default();
        let is_single = files.len() == 1;
        for path in files {
            let name = if is_single { stem(&folder) } else { format!("{}/{}", stem(&folder), stem(&path)) };
            entries.push(entry(name, path));
        }
        if entries.len() > FILES_MAX {
            return Err(io::Error::other(format!("more than {FILES_MAX} model files below {}", folder.display())));
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// What one file's header says.
///
/// # Errors
/// The file is no model that can be run.
pub fn describe(gguf: &Gguf) -> Result<CatalogModel, GgufError> {
    let hyper = Hyper::from_gguf(gguf)?;
    let tensors: Vec<Tensor<'_>> = gguf.tensor_names().filter_map(|name| gguf.opt_tensor(name)).collect();
    let parameters = tensors.iter().map(|tensor| tensor.rows as u64 * tensor.cols as u64).sum();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in tensors.iter().filter(|tensor| is_matrix(tensor.name)) {
        *kinds.entry(tensor.kind.to_string()).or_default() += 1;
    }
    Ok(CatalogModel {
        title: hyper.name,
        architecture: hyper.architecture,
        parameters,
        quantisation: kinds.into_keys().collect::<Vec<_>>().join("+"),
        embedding: gguf.tensor(crate::hyper::EMBEDDING)?.kind.to_string(),
        context: hyper.context,
    })
}

fn is_matrix(tensor: &str) -> bool {
    tensor
        .strip_suffix(".weight")
        .and_then(|name| name.rsplit_once('.'))
        .is_some_and(|(_, part)| MATRICES.contains(&part))
}

fn entry(name: String, path: PathBuf) -> CatalogEntry {
    let model = Gguf::open(&path).and_then(|gguf| describe(&gguf));
    let size_bytes = fs::metadata(&path).map_or(0, |facts| facts.len());
    CatalogEntry { name, path, size_bytes, model }
}

/// Model files and folders directly below, sorted. Hidden ones are left out.
fn list(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        other => other?,
    };
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries.take(FILES_MAX) {
        let path = entry?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_model = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        if is_hidden {
            continue;
        } else if path.is_dir() {
            folders.push(path);
        } else if is_model {
            files.push(path);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

fn stem(path: &Path) -> String {
    let is_file = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
    let name = if is_file { path.file_stem() } else { path.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}
