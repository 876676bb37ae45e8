//! Files and modules: every library opens with its map, every file is declared, every name says something, no test
//! is switched off.

use std::collections::BTreeSet;

use crate::source::SourceFile;

/// Names under which anything could hide.
const EMPTY_NAMES: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "misc", "manager", "stuff"];

/// Libraries that do not open with a crate doc, or whose doc does not name one of their modules.
pub(crate) fn check_maps(files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/lib.rs")) {
        let map: Vec<&str> = file.text.lines().take_while(|line| line.starts_with("//!")).collect();
        let map = map.join("\n");
        if map.is_empty() {
            faults.push(format!("{}: does not open with what the crate is and its modules", file.path));
            continue;
        }
        let modules = file.modules().into_iter().filter(|(name, _)| name != "tests");
        for (name, _) in modules.filter(|(name, _)| !names_in_code(&map, name)) {
            faults.push(format!("{}: the module map does not name `{name}`", file.path));
        }
    }
    faults
}

/// Whether a doc names `name` in backticks: `name`, `name.rs`, `name/`.
fn names_in_code(doc: &str, name: &str) -> bool {
    let opened = format!("`{name}");
    doc.match_indices(&opened).any(|(at, _)| {
        let after = doc[at + opened.len()..].chars().next();
        after.is_some_and(|c| !c.is_alphanumeric() && c != '_')
    })
}

/// Files that no target reaches through `mod`, declarations that lead past the agreed places, and `mod.rs`.
pub(crate) fn check_declared(files: &[SourceFile], roots: &[String]) -> Vec<String> {
    let reached = reached_from(files, roots);
    let mut faults = Vec::new();
    for file in files {
        if !reached.contains(&file.path) {
            faults.push(format!("{}: no `mod` declares this file", file.path));
        }
        // Beside a test target cargo would take `thing.rs` for a test of its own; there alone `mod.rs` and `#[path]` are
        // right.
        if file.path.ends_with("/mod.rs") && !file.path.contains("/tests/") {
            faults.push(format!("{}: a module is `thing.rs` plus `thing/`, never `mod.rs`", file.path));
        }
        if let Some(line) = path_attribute(file).filter(|_| !file.path.contains("/tests/")) {
            faults.push(format!("{}:{line}: `#[path]` hides where a module lies", file.path));
        }
    }
    faults
}

fn reached_from(files: &[SourceFile], roots: &[String]) -> BTreeSet<String> {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = roots.to_vec();
    while let Some(path) = open.pop() {
        let Some(file) = files.iter().find(|file| file.path == path) else {
            continue;
        };
        if !reached.insert(path.clone()) {
            continue;
        }
        let folder = folder_of_children(&path, roots.contains(&path));
        for (name, _) in file.modules().into_iter().filter(|(_, in_file)| *in_file) {
            open.push(format!("{folder}/{name}.rs"));
            open.push(format!("{folder}/{name}/mod.rs"));
        }
        open.extend(named_paths(file));
    }
    reached
}

fn folder_of_children(path: &str, is_root: bool) -> String {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if is_root || name == "mod.rs" { parent.to_owned() } else { format!("{parent}/{}", name.trim_end_matches(".rs")) }
}

/// Files that `#[path = "..."]` names, relative to the folder of the file that says so.
fn named_paths(file: &SourceFile) -> impl Iterator<Item = String> {
    let (folder, _) = file.path.rsplit_once('/').unwrap_or_default();
    let attributes = file.text.split("#[path = \"").skip(1);
    attributes.filter_map(move |rest| Some(format!("{folder}/{}", rest.split_once('"')?.0)))
}

fn path_attribute(file: &SourceFile) -> Option<usize> {
    let at = file.words.windows(4).position(|words| {
        let texts = [&words[0], &words[1], &words[2], &words[3]].map(|word| word.text.as_str());
        texts == ["#", "[", "path", "="]
    })?;
    Some(file.words[at].line)
}

/// Files and folders whose name says nothing.
pub(crate) fn check_names(files: &[SourceFile]) -> Vec<String> {
    let says_nothing = |path: &str| path.split('/').any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs")));
    files
        .iter()
        .filter(|file| says_nothing(&file.path))
        .map(|file| format!("{}: name it after what it holds", file.path))
        .collect()
}

/// Tests and examples in docs that are switched off.
pub(crate) fn check_ignored(files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let attributes = file
            .words
            .windows(3)
            .filter(|words| words[0].text == "#" && words[1].text == "[" && words[2].text == "ignore");
        faults.extend(attributes.map(|words| format!("{}:{}: an ignored test", file.path, words[0].line)));
        for (index, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            let is_doc = line.starts_with("///") || line.starts_with("//!");
            if is_doc && line.trim_start_matches(['/', '!', ' ']).starts_with("```ignore") {
                faults.push(format!("{}:{}: an ignored example", file.path, index + 1));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Vec<SourceFile> {
        files.iter().map(|(path, text)| SourceFile::new(path, text)).collect()
    }

    fn lib(text: &str) -> Vec<SourceFile> {
        tree(&[("chain/src/lib.rs", text)])
    }

    #[test]
    fn a_library_without_its_map_is_refused() {
        assert!(
            check_maps(&lib("//! Words.\n//! - [`units`]\n//! - `store/`\npub mod units;\nmod store;\nmod tests {}"))
                .is_empty()
        );
        assert_eq!(check_maps(&lib("pub mod units;")).len(), 1, "no doc at all");
        let unnamed = "//! Words: `units_of`, units, `unit`.\npub mod units;";
        assert_eq!(check_maps(&lib(unnamed)), ["chain/src/lib.rs: the module map does not name `units`"]);
        assert!(check_maps(&tree(&[("chain/src/units.rs", "mod x;")])).is_empty(), "only lib.rs carries a map");
    }

    #[test]
    fn a_file_that_nobody_declares_is_refused() {
        let roots = ["chain/src/lib.rs".to_owned(), "chain/tests/prop.rs".to_owned()];
        let whole = tree(&[
            ("chain/src/lib.rs", "mod store;"),
            ("chain/src/store.rs", "mod sled;"),
            ("chain/src/store/sled.rs", ""),
            ("chain/tests/prop.rs", "mod scenario;"),
            ("chain/tests/scenario/mod.rs", ""),
        ]);
        assert_eq!(check_declared(&whole, &roots), Vec::<String>::new());
        let stray = tree(&[
            ("chain/src/lib.rs", "mod store; // mod lost;"),
            ("chain/src/store.rs", "mod sled { }"),
            ("chain/src/store/sled.rs", ""),
            ("chain/src/lost.rs", ""),
        ]);
        assert_eq!(
            check_declared(&stray, &roots),
            ["chain/src/store/sled.rs: no `mod` declares this file", "chain/src/lost.rs: no `mod` declares this file"]
        );
    }

    #[test]
    fn mod_rs_and_path_attributes_are_refused() {
        let roots = ["chain/src/lib.rs".to_owned()];
        let files = tree(&[("chain/src/lib.rs", "mod store;"), ("chain/src/store/mod.rs", "")]);
        assert_eq!(check_declared(&files, &roots).len(), 1);
        let shared = tree(&[("chain/tests/a.rs", "#[path = \"b/c.rs\"]\nmod c;"), ("chain/tests/b/c.rs", "")]);
        assert_eq!(check_declared(&shared, &["chain/tests/a.rs".to_owned()]), Vec::<String>::new());
        let files = lib("mod a;\n#[path = \"elsewhere.rs\"]\nmod b;");
        assert_eq!(check_declared(&files, &roots), ["chain/src/lib.rs:2: `#[path]` hides where a module lies"]);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for path in ["chain/src/utils.rs", "node/src/common/x.rs", "rpc/src/helpers.rs", "rpc/src/misc.rs"] {
            assert_eq!(check_names(&tree(&[(path, "")])).len(), 1, "{path}");
        }
        assert!(check_names(&tree(&[("chain/src/commonwealth.rs", "")])).is_empty());
    }

    #[test]
    fn switched_off_tests_are_refused() {
        let text = "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n/// ```ignore\n/// x\n/// ```\n// #[ignore]\n";
        assert_eq!(
            check_ignored(&lib(text)),
            ["chain/src/lib.rs:2: an ignored test", "chain/src/lib.rs:4: an ignored example"]
        );
        assert!(check_ignored(&lib("let ignore = \"#[ignore]\"; // ```ignore")).is_empty());
    }
}
