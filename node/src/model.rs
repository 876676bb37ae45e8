//! Which model a node serves: the built-in one, one of the models folder, or a file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use aria_chain::model::Shape;
use aria_inference::{
    backend::{Backend, builtin::Builtin, simulation::Simulation},
    catalog,
    energy::{Meter, POWERCAP_ROOT},
    engine::{Engine, EngineOptions},
    gguf::Gguf,
    hyper::Hyper,
    kv_cache::KvShape,
};

use crate::{cli::BackendChoice, error::NodeError};

/// Name of the model that is part of the program.
pub const EMBEDDED_NAME: &str = "aria-tiny";

/// Its file: see `genesis/README.md`.
static EMBEDDED: &[u8] = include_bytes!("../../genesis/aria-tiny.gguf");

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the program.
    Embedded,
    /// In a file.
    File(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Embedded => write!(f, "{EMBEDDED_NAME}, which is built in"),
            Source::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A model by name or path, found but not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// What clients ask for.
    pub name: String,
    /// Where it is.
    pub source: Source,
}

/// Finds a model: a path if it looks like one, else the built-in one, else a name in the models folder.
pub fn locate(name: &str, models: &Path) -> Result<Located, NodeError> {
    let missing = || NodeError::NoModel { name: name.to_owned() };
    if name.contains('/') || name.ends_with(".gguf") {
        let path = PathBuf::from(name);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).ok_or_else(missing)?;
        return if path.is_file() {
            Ok(Located { name: stem.to_owned(), source: Source::File(path) })
        } else {
            Err(missing())
        };
    }
    if name == EMBEDDED_NAME {
        return Ok(Located { name: name.to_owned(), source: Source::Embedded });
    }
    // A folder that is not there or cannot be read has no models.
    let entries = catalog::catalog(models).unwrap_or_default();
    let entry = entries.into_iter().find(|entry| entry.name == name).ok_or_else(missing)?;
    Ok(Located { name: entry.name, source: Source::File(entry.path) })
}

/// A model's shape as the chain registers it. None: it is larger than what can be registered.
pub fn shape_of(hyper: &Hyper) -> Option<Shape> {
    let size = |value: usize| u32::try_from(value).ok();
    let shape = Shape {
        layers: u16::try_from(hyper.layers).ok()?,
        dim: size(hyper.dim)?,
        ffn: size(hyper.ffn)?,
        heads: size(hyper.heads)?,
        kv_heads: size(hyper.kv_heads)?,
        head_dim: size(hyper.head_dim)?,
        vocab: size(hyper.vocab)?,
    };
    shape.check().ok().map(|()| shape)
}

impl Located {
    /// Reads the file's head.
    pub fn open(&self) -> Result<Gguf, NodeError> {
        let opened = match &self.source {
            Source::Embedded => Gguf::from_static(EMBEDDED),
            Source::File(path) => Gguf::open(path),
        };
        opened.map_err(|error| self.fault(error))
    }

    /// Least bytes of its weights in memory, at two bits each, and those of a position of a session: by its head alone.
    pub fn sizes(&self) -> Result<(u64, u64), NodeError> {
        let hyper = Hyper::from_gguf(&self.open()?).map_err(|error| self.fault(error))?;
        let shape = KvShape { layers: hyper.layers, kv_heads: hyper.kv_heads, head_dim: hyper.head_dim };
        Ok((hyper.multiplied_weights() / 4, shape.bytes_per_position() as u64))
    }

    /// Loads it. Takes as long as reading the whole file.
    pub fn start(&self, choice: BackendChoice, options: &EngineOptions) -> Result<Arc<dyn Backend>, NodeError> {
        let gguf = self.open()?;
        match choice {
            BackendChoice::Auto | BackendChoice::Builtin => {
                let engine = Engine::load(&gguf, options).map_err(|error| self.fault(error))?;
                let meter = Arc::new(Meter::new(Path::new(POWERCAP_ROOT)));
                Ok(Arc::new(Builtin::start(engine, meter).map_err(|error| self.fault(error))?))
            }
            BackendChoice::Simulation => Ok(Arc::new(Simulation::new(&gguf).map_err(|error| self.fault(error))?)),
        }
    }

    fn fault(&self, error: impl std::fmt::Display) -> NodeError {
        let name = match &self.source {
            Source::Embedded => self.name.clone(),
            Source::File(path) => path.display().to_string(),
        };
        NodeError::Model { name, reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("some.gguf");
        std::fs::write(&file, b"x").expect("written");
        let found = locate(file.to_str().expect("text"), folder.path()).expect("a path");
        assert_eq!((found.name.as_str(), found.source), ("some", Source::File(file)));
        assert_eq!(locate(EMBEDDED_NAME, folder.path()).expect("built in").source, Source::Embedded);
        assert!(matches!(locate("nothing", folder.path()), Err(NodeError::NoModel { .. })));
    }
}
