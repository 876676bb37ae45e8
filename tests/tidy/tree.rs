//! The tree as it lies on disk, and its dependency graph as `cargo metadata` prints it. Read once per run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::source::SourceFile;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("this package lies one folder below the root").to_owned()
}

/// The text of a file of the tree.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file of the tree, in order of path.
pub(crate) fn sources() -> &'static [SourceFile] {
    static FILES: OnceLock<Vec<SourceFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        walk(&root(), &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(files.len() > 20, "the walk found {} files: it does not see the tree", files.len());
        files
    })
}

fn walk(folder: &Path, files: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).expect("folders of the tree can be read") {
        let path = entry.expect("folders of the tree can be listed").path();
        let name = name_of(&path);
        if path.is_dir() && !name.starts_with('.') && !is_build_output(&name) {
            walk(&path, files);
        } else if path.is_file() && name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push(SourceFile::new(&relative(&path), &text));
        }
    }
}

/// What lies at the top of the tree; a folder's name ends in `/`. Build output is left out, as git leaves it out.
pub(crate) fn root_entries() -> Vec<String> {
    let entries = std::fs::read_dir(root()).expect("the root can be read");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("the root can be listed").path())
        .map(|path| if path.is_dir() { format!("{}/", name_of(&path)) } else { name_of(&path) })
        .filter(|name| !is_build_output(name.trim_end_matches('/')))
        .collect();
    names.sort();
    names
}

/// Manifests of the workspace's packages: path and text.
pub(crate) fn manifests() -> Vec<(String, String)> {
    members(metadata())
        .map(|package| relative(Path::new(text_of(package, "manifest_path"))))
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// Root files of every target of the workspace (libraries, binaries, tests, benches), from the root of the tree.
pub(crate) fn target_roots() -> Vec<String> {
    members(metadata())
        .flat_map(|package| package["targets"].as_array().expect("a package has targets"))
        .map(|target| relative(Path::new(text_of(target, "src_path"))))
        .collect()
}

/// The dependency graph. Asked offline first, so that the test needs no network where one build has run.
pub(crate) fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let answer = cargo_metadata(&["--locked", "--offline"]).or_else(|_| cargo_metadata(&["--locked"]));
        let text =
            answer.unwrap_or_else(|error| panic!("cargo metadata failed; run `cargo fetch --locked` first: {error}"));
        serde_json::from_str(&text).expect("cargo metadata prints JSON")
    })
}

fn cargo_metadata(flags: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1"])
        .args(flags)
        .current_dir(root())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        String::from_utf8(output.stdout).map_err(|error| error.to_string())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Packages that lie in this workspace: those without a source.
pub(crate) fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    packages(metadata).filter(|package| package["source"].is_null())
}

/// All packages of the graph.
pub(crate) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().expect("metadata lists packages").iter()
}

/// A text field that must be there.
pub(crate) fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("`{field}` is missing in {value}"))
}

fn relative(path: &Path) -> String {
    let inside = path.strip_prefix(root()).unwrap_or(path);
    inside.to_string_lossy().replace('\\', "/")
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_build_output(name: &str) -> bool {
    name == "target" || name.starts_with("target-")
}
