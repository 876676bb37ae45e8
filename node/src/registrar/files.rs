//! Models at hand and their true shapes, by the digest that this node computed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use aria_chain::ids::ModelId;
use aria_chain::model::Shape;
use aria_inference::catalog::catalog;
use aria_inference::digest::model_digest;
use aria_inference::hyper::Hyper;

use crate::error::NodeError;
use crate::model::{EMBEDDED_NAME, Located, Source, shape_of};

/// A file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The model.
    pub model: ModelId,
    /// What its header says.
    pub shape: Shape,
    /// Where it is.
    pub located: Located,
}

impl Found {
    /// Reads a whole model.
    pub fn read(located: Located) -> Result<Found, NodeError> {
        let gguf = located.open()?;
        let fault = |reason: String| NodeError::Model { name: located.source.to_string(), reason };
        let hyper = Hyper::from_gguf(&gguf).map_err(|error| fault(error.to_string()))?;
        let shape = shape_of(&hyper).ok_or_else(|| fault("it is larger than a chain can register".to_owned()))?;
        let digest = model_digest(&gguf).map_err(|error| fault(error.to_string()))?;
        Ok(Found { model: ModelId::new(digest.0), shape, located })
    }
}

/// Tells one state of a file from another without reading it.
type Edition = (u64, Option<SystemTime>);

/// How often to look for new files: strangers name models, and a look reads the heads of all files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The models of a folder, and the one in the program. Each file is read once, and again when it changed.
pub struct Files {
    folder: PathBuf,
    embedded: Option<Option<Found>>,
    read: BTreeMap<PathBuf, (Edition, Option<Found>)>,
    looked: Option<Instant>,
}

impl Files {
    /// Those of a folder, which need not be there. Nothing is read yet.
    pub fn new(folder: PathBuf) -> Files {
        Files { folder, embedded: None, read: BTreeMap::new(), looked: None }
    }

    /// A file of this model. Takes as long as reading all files that are new, or until told to stop. A file that came a moment
    /// ago is found a moment later.
    pub fn find(&mut self, model: &ModelId, is_over: &dyn Fn() -> bool) -> Option<Found> {
        let embedded = self.embedded.get_or_insert_with(|| {
            Found::read(Located { name: EMBEDDED_NAME.to_owned(), source: Source::Embedded }).ok()
        });
        if let Some(found) = embedded.as_ref().filter(|found| found.model == *model) {
            return Some(found.clone());
        }
        if let Some(found) = self.known(model) {
            return Some(found);
        }
        if self.looked.is_none_or(|since| since.elapsed() >= LOOK_EVERY) {
            self.look(is_over);
        }
        self.known(model)
    }

    /// A file that was read and is still as it was.
    fn known(&self, model: &ModelId) -> Option<Found> {
        let still = self.read.iter().filter(|(path, (known, _))| edition(path) == *known);
        still.filter_map(|(_, (_, found))| found.as_ref()).find(|found| found.model == *model).cloned()
    }

    /// Reads what is new in the folder.
    fn look(&mut self, is_over: &dyn Fn() -> bool) {
        // A folder that cannot be read has no models; `aria model list` says why.
        let entries = catalog(&self.folder).unwrap_or_default();
        let sound: Vec<(PathBuf, String)> =
            entries.into_iter().filter(|entry| entry.model.is_ok()).map(|entry| (entry.path, entry.name)).collect();
        self.read.retain(|path, _| sound.iter().any(|(other, _)| other == path));
        for (path, name) in sound {
            if is_over() {
                return;
            }
            let edition = edition(&path);
            let is_known = self.read.get(&path).is_some_and(|(known, _)| *known == edition);
            if !is_known {
                let read = Found::read(Located { name, source: Source::File(path.clone()) });
                let read =
                    read.inspect_err(|error| tracing::warn!(%error, "a file of the models folder is left aside"));
                self.read.insert(path, (edition, read.ok()));
            }
        }
        self.looked = Some(Instant::now());
    }
}

fn edition(path: &Path) -> Edition {
    let facts = std::fs::metadata(path);
    facts.map_or((0, None), |facts| (facts.len(), facts.modified().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_what_it_is_and_not_by_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut files = Files::new(folder.path().to_path_buf());
        let own = Found::read(Located { name: EMBEDDED_NAME.to_owned(), source: Source::Embedded }).expect("sound");
        let found = files.find(&own.model, &|| false).expect("it is part of the program");
        assert_eq!((found.shape, found.shape.check()), (own.shape, Ok(())));

        // Another model under the same name, and something that is none.
        let bytes = aria_inference::synthetic::Shape::named("tiny").expect("known").file(1);
        let path = folder.path().join("aria-tiny.gguf");
        std::fs::write(&path, &bytes).expect("written");
        std::fs::write(folder.path().join("broken.gguf"), b"GGUF").expect("written");
        let source = Source::File(path.clone());
        let other = Found::read(Located { name: "aria-tiny".to_owned(), source: source.clone() }).expect("sound");
        assert_ne!(other.model, own.model);
        assert_eq!(files.find(&other.model, &|| true), None, "it was told to stop");
        let found = files.find(&other.model, &|| false).expect("it is in the folder");
        assert_eq!((found.shape, found.located.source), (other.shape, source));
        // What a file was is forgotten with the file.
        std::fs::write(&path, b"GGUF").expect("written");
        assert_eq!(files.find(&other.model, &|| false), None);
    }
}
