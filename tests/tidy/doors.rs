//! One door per foreign package, and the islands on which `unsafe` may stand: `docs/house.md`, sections 3 and 5.

use serde_json::Value;

use crate::source::SourceFile;
use crate::tree::{members, text_of};

/// A foreign package and the only places that may name it.
struct Door {
    /// Name in Rust text; a trailing `*` stands for a family of packages.
    package: &'static str,
    /// Files, and folders that end in `/`.
    places: &'static [&'static str],
}

const fn door(package: &'static str, places: &'static [&'static str]) -> Door {
    Door { package, places }
}

const ASYNC_PLACES: &[&str] = &["node/", "rpc/", "tests/", "benches/"];

const DOORS: [Door; 15] = [
    door("sled", &["chain/src/store/sled.rs", "chain/src/store/sled/"]),
    door("merkle_tree_rs", &["chain/src/merkle.rs", "chain/src/merkle/"]),
    door("ethers", &[]), // exists for merkle-tree-rs alone: no file of ours names it
    door("ed25519_dalek", &["chain/src/keys.rs", "chain/src/keys/"]),
    door("chacha20poly1305", &["chain/src/keys.rs", "chain/src/keys/"]),
    door("libloading", &["inference/src/backend/native.rs"]),
    door("tokio_tungstenite", &["node/src/network.rs", "node/src/network/", "node/tests/legacy.rs"]),
    door("arc_malachitebft_*", &["node/src/consensus.rs", "node/src/consensus/"]),
    door("malachite_*", &["node/src/consensus.rs", "node/src/consensus/"]),
    door("axum", &["rpc/"]),
    door("jsonrpsee", &["rpc/"]),
    door("anyhow", &["node/src/main.rs", "node/src/commands.rs", "node/src/commands/"]),
    door("tokio", ASYNC_PLACES),
    door("tokio_util", ASYNC_PLACES),
    door("tokio_stream", ASYNC_PLACES),
];

/// Where `unsafe` may stand.
const ISLANDS: &[&str] = &[
    "inference/src/kernels/",
    "inference/src/memory.rs",
    "inference/src/pool.rs",
    "inference/src/pool/",
    "inference/tests/phases.rs",
    "inference/src/gguf/mmap.rs",
    "inference/src/backend/native.rs",
];

/// The consensus driver is a machine without hands; only its loop waits.
const CONSENSUS: &str = "node/src/consensus/";
const CONSENSUS_LOOP: &str = "node/src/consensus/run.rs";
/// The core's trait of signature checks is async; nothing in it waits.
const CONSENSUS_CHECKS: &str = "node/src/consensus/crypto.rs";

/// Foreign packages named outside their door.
pub(crate) fn check(files: &[SourceFile]) -> Vec<String> {
    files.iter().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<String> {
    let own: Vec<String> = file.modules().into_iter().map(|(name, _)| name).collect();
    let mut faults = Vec::new();
    for (i, word) in file.words.iter().enumerate() {
        let Some(door) = door_of(&word.text) else {
            continue;
        };
        if names_package(file, i) && !own.contains(&word.text) && !lies_in(&file.path, door.places) {
            faults.push(format!("{}:{}: `{}` belongs behind {:?}", file.path, word.line, word.text, door.places));
        }
    }
    faults
}

fn door_of(name: &str) -> Option<&'static Door> {
    DOORS.iter().find(|door| match door.package.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => name == door.package,
    })
}

/// Whether the word at `i` begins a path or stands alone in `use` or `extern crate`: `sled::Db`, `::sled::Db`, `use
/// sled;`, `use {sled, x}`; not `store::sled::X`, `mod sled` or `let sled = 1`.
fn names_package(file: &SourceFile, i: usize) -> bool {
    let (before, after) = (file.word(i.checked_sub(1)), file.word(Some(i + 1)));
    let continues_a_path = before == "::" && is_path_segment(file.word(i.checked_sub(2)));
    let begins_a_path = after == "::" && !continues_a_path;
    let stands_alone = matches!(before, "use" | "crate") && matches!(after, ";" | "as");
    let stands_in_group =
        matches!(before, "{" | ",") && matches!(after, "," | "}" | "as") && group_is_root_use(file, i);
    begins_a_path || stands_alone || stands_in_group
}

/// Whether the braces around word `i` directly follow `use`.
fn group_is_root_use(file: &SourceFile, i: usize) -> bool {
    let open = (0..i).rev().find(|&at| matches!(file.word(Some(at)), "{" | ";" | "}"));
    open.is_some_and(|at| file.word(Some(at)) == "{" && file.word(at.checked_sub(1)) == "use")
}

fn is_path_segment(word: &str) -> bool {
    word == ">" || word.chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_') && word != "use"
}

/// Packages whose manifest lists a foreign package though no door lies inside them.
pub(crate) fn check_manifests(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in members(metadata) {
        let folder = folder_of(text_of(package, "manifest_path"));
        for dependency in package["dependencies"].as_array().expect("a package lists dependencies") {
            let name = text_of(dependency, "name");
            let Some(door) = door_of(&name.replace('-', "_")) else {
                continue;
            };
            let inside = door.places.iter().any(|place| place.split('/').next() == Some(folder));
            if !inside {
                faults.push(format!("{}: lists {name}, which no file of it may name", text_of(package, "name")));
            }
        }
    }
    faults
}

fn folder_of(manifest_path: &str) -> &str {
    manifest_path.rsplit(['/', '\\']).nth(1).unwrap_or_default()
}

/// `unsafe` outside the islands.
pub(crate) fn check_unsafe(files: &[SourceFile]) -> Vec<String> {
    forbidden_word(files, "unsafe", |path| !lies_in(path, ISLANDS))
}

/// `async` in the consensus driver outside its loop.
pub(crate) fn check_async(files: &[SourceFile]) -> Vec<String> {
    forbidden_word(files, "async", |path| {
        path.starts_with(CONSENSUS) && path != CONSENSUS_LOOP && path != CONSENSUS_CHECKS
    })
}

fn forbidden_word(files: &[SourceFile], word: &str, forbidden_in: impl Fn(&str) -> bool) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| forbidden_in(&file.path)) {
        for found in file.words.iter().filter(|found| found.text == word) {
            faults.push(format!("{}:{}: `{word}` may not stand here", file.path, found.line));
        }
    }
    faults
}

fn lies_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn file(path: &str, text: &str) -> Vec<SourceFile> {
        vec![SourceFile::new(path, text)]
    }

    #[track_caller]
    fn refused(path: &str, text: &str) {
        assert_eq!(check(&file(path, text)).len(), 1, "{path}: {text}");
    }

    #[track_caller]
    fn accepted(path: &str, text: &str) {
        assert_eq!(check(&file(path, text)), Vec::<String>::new(), "{path}: {text}");
    }

    #[test]
    fn a_package_is_refused_outside_its_door() {
        refused("chain/src/mempool.rs", "use sled::Db;");
        refused("chain/src/mempool.rs", "fn f() { let _ = ::sled::open(p); }");
        refused("chain/src/mempool.rs", "use sled as database;");
        refused("chain/src/mempool.rs", "extern crate sled;");
        refused("chain/src/mempool.rs", "use {std::fmt, sled};");
        refused("runtime/src/execute.rs", "#[tokio::main] fn main() {}");
        refused("inference/src/engine.rs", "use tokio_util::sync::CancellationToken;");
        refused("node/src/node.rs", "use anyhow::Result;");
        refused("node/src/node.rs", "use axum::Router;");
        refused("tests/it/main.rs", "use jsonrpsee::core::client::ClientT;");
        refused("node/src/services/executor.rs", "use arc_malachitebft_core_types::Height;");
        refused("chain/src/record.rs", "fn f(key: ed25519_dalek::VerifyingKey) {}");
        refused("chain/src/merkle.rs", "use ethers::abi::Token;");
    }

    #[test]
    fn a_package_is_accepted_behind_its_door() {
        accepted("chain/src/store/sled.rs", "use sled::Db;");
        accepted("chain/src/store/sled/open.rs", "use sled::Db;");
        accepted("node/src/main.rs", "fn main() -> anyhow::Result<()> { Ok(()) }");
        accepted("rpc/src/openai/chat.rs", "use axum::Json;");
        accepted("tests/it/main.rs", "use tokio::net::TcpStream;");
    }

    #[test]
    fn a_word_that_is_no_package_is_accepted() {
        accepted("chain/src/store.rs", "pub mod sled;\npub use self::sled::SledStore;");
        accepted("node/src/node.rs", "use aria_chain::store::sled::SledStore;");
        accepted("node/src/node.rs", "let sled = 1; // sled::Db\nlet s = \"sled::Db\";");
        accepted("node/src/node.rs", "use aria_chain::store::{memory, sled};");
    }

    #[test]
    fn a_manifest_lists_only_what_its_files_may_name() {
        let workspace = |folder: &str, name: &str| {
            json!({ "packages": [{
                "name": folder, "source": null, "manifest_path": format!("/x/{folder}/Cargo.toml"),
                "dependencies": [{ "name": name }],
            }] })
        };
        for (folder, name) in [("chain", "sled"), ("rpc", "axum"), ("tests", "tokio"), ("runtime", "borsh")] {
            assert!(check_manifests(&workspace(folder, name)).is_empty(), "{folder} {name}");
        }
        for (folder, name) in [("node", "sled"), ("runtime", "tokio"), ("inference", "tokio-util"), ("chain", "anyhow")]
        {
            assert_eq!(check_manifests(&workspace(folder, name)).len(), 1, "{folder} {name}");
        }
    }

    #[test]
    fn unsafe_is_refused_off_the_islands() {
        let text = "// unsafe\n#![forbid(unsafe_code)]\nfn f() { unsafe { g() } }";
        assert_eq!(
            check_unsafe(&file("inference/src/gguf.rs", text)),
            ["inference/src/gguf.rs:3: `unsafe` may not stand here"]
        );
        assert_eq!(check_unsafe(&file("inference/src/kernels.rs", text)).len(), 1);
        assert!(check_unsafe(&file("inference/src/kernels/avx2.rs", text)).is_empty());
        assert!(check_unsafe(&file("inference/src/gguf/mmap.rs", text)).is_empty());
    }

    #[test]
    fn async_is_refused_in_the_consensus_driver() {
        let text = "pub async fn run() {}";
        assert_eq!(check_async(&file("node/src/consensus/driver.rs", text)).len(), 1);
        assert!(check_async(&file("node/src/consensus/run.rs", text)).is_empty());
        assert!(check_async(&file("node/src/node.rs", text)).is_empty());
    }
}
