//! Which package of ours may import which: the arrows of `docs/house.md`, section 3.

use serde_json::Value;

use crate::tree::{members, text_of};

/// Each package and all it may import of ours. chain and inference import none; rpc never sees node; runtime never
/// sees inference. Build and test dependencies follow the same arrows: a test that needs more belongs in `tests/`.
const ARROWS: [(&str, &[&str]); 8] = [
    ("ethers", &[]),
    ("aria-chain", &[]),
    ("aria-runtime", &["aria-chain"]),
    ("aria-inference", &[]),
    ("aria-rpc", &["aria-chain", "aria-runtime", "aria-inference"]),
    ("aria-node", &["aria-chain", "aria-runtime", "aria-inference", "aria-rpc"]),
    ("aria-tests", &["aria-chain", "aria-runtime", "aria-inference", "aria-rpc", "aria-node"]),
    ("aria-benches", &["aria-chain", "aria-runtime", "aria-inference", "aria-rpc", "aria-node"]),
];

/// Arrows between packages that nobody agreed to, and packages that the map does not know.
pub(crate) fn check(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in members(metadata) {
        let name = text_of(package, "name");
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{name}: a package without a place in the arrows (docs/house.md, section 3)"));
            continue;
        };
        for import in imports_of_ours(package) {
            if !allowed.contains(&import) {
                faults.push(format!("{name} imports {import}: a new arrow needs a decision record"));
            }
        }
    }
    faults
}

/// Dependencies that lie in this workspace.
fn imports_of_ours(package: &Value) -> impl Iterator<Item = &str> {
    let dependencies = package["dependencies"].as_array().expect("a package lists dependencies");
    dependencies.iter().map(|dependency| text_of(dependency, "name")).filter(|name| name.starts_with("aria-"))
}

/// Packages whose manifest does not say `lints.workspace = true`.
pub(crate) fn check_lints(manifests: &[(String, String)]) -> Vec<String> {
    let takes_lints = |text: &str| {
        let manifest: toml::Table = text.parse().ok()?;
        manifest.get("lints")?.get("workspace")?.as_bool()
    };
    manifests
        .iter()
        .filter(|(_, text)| takes_lints(text) != Some(true))
        .map(|(path, _)| format!("{path}: says no `lints.workspace = true`"))
        .collect()
}

/// Outside packages that a manifest takes though `docs/crates.md` has no line about them.
pub(crate) fn check_listed(metadata: &Value, paper: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for package in members(metadata) {
        let dependencies = package["dependencies"].as_array().expect("a package lists dependencies");
        for dependency in dependencies.iter().filter(|dependency| !dependency["source"].is_null()) {
            let name = text_of(dependency, "name");
            if !paper.contains(&format!("`{name}`")) {
                faults.push(format!(
                    "{}: takes {name}; docs/crates.md needs a line about it first",
                    text_of(package, "name")
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(package: &str, imports: &[&str]) -> Value {
        let dependencies: Vec<Value> = imports.iter().map(|name| json!({ "name": name })).collect();
        json!({ "packages": [{ "name": package, "source": null, "dependencies": dependencies }] })
    }

    #[track_caller]
    fn check_one(package: &str, imports: &[&str], expected: &[&str]) {
        assert_eq!(check(&workspace(package, imports)), expected);
    }

    #[test]
    fn agreed_arrows_pass() {
        check_one("aria-chain", &["borsh", "ethers"], &[]);
        check_one("aria-runtime", &["aria-chain", "borsh"], &[]);
        check_one("aria-node", &["aria-rpc", "aria-runtime", "aria-inference", "aria-chain"], &[]);
        check_one("aria-benches", &["aria-node"], &[]);
    }

    #[test]
    fn other_arrows_are_refused() {
        let fault = |a: &str, b: &str| format!("{a} imports {b}: a new arrow needs a decision record");
        for (package, import) in [
            ("aria-runtime", "aria-inference"),
            ("aria-chain", "aria-runtime"),
            ("aria-inference", "aria-chain"),
            ("aria-rpc", "aria-node"),
            ("aria-rpc", "aria-tests"),
            ("ethers", "aria-chain"),
        ] {
            check_one(package, &[import], &[&fault(package, import)]);
        }
    }

    #[test]
    fn an_unknown_package_is_refused() {
        assert_eq!(check(&workspace("aria-wallet", &[])).len(), 1);
    }

    #[test]
    fn a_manifest_without_the_lints_is_refused() {
        let manifest = |text: &str| vec![("x/Cargo.toml".to_owned(), text.to_owned())];
        assert!(check_lints(&manifest("[lints]\nworkspace = true\n")).is_empty());
        for text in
            ["[package]\n", "[lints]\nworkspace = false\n", "[lints.rust]\nunsafe_code = \"allow\"\n", "not toml"]
        {
            assert_eq!(check_lints(&manifest(text)), ["x/Cargo.toml: says no `lints.workspace = true`"]);
        }
    }

    #[test]
    fn a_package_without_a_line_in_the_papers_is_refused() {
        let dependency = |source: Value| json!({ "name": "serde", "source": source });
        let workspace = |dependency: Value| json!({ "packages": [{ "name": "aria-rpc", "source": null, "dependencies": [dependency] }] });
        let outside = workspace(dependency(json!("registry")));
        assert!(check_listed(&outside, "- `serde`: text to types").is_empty());
        for paper in ["", "serde", "`serde_json`"] {
            assert_eq!(
                check_listed(&outside, paper),
                ["aria-rpc: takes serde; docs/crates.md needs a line about it first"]
            );
        }
        assert!(check_listed(&workspace(dependency(Value::Null)), "").is_empty(), "packages of ours need none");
    }
}
