//! The dependency policy of `.deny.toml`, applied to `cargo metadata`: licences, sources, bans. What that file
//! cannot say stands here: exact pins, and packages that may come in only through one other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::licence;
use crate::tree::{members, packages, text_of};

/// Packages whose next version is not ours to take unread: disk format, proof format, bits of arithmetic.
const PINNED: [&str; 3] = ["sled", "merkle-tree-rs", "libm"];

/// Unmaintained packages, and the only one through which they may be reached.
const ONLY_THROUGH: [(&str, &str); 2] = [("fxhash", "sled"), ("instant", "sled")];

/// The policy file, as far as this test applies it.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    licences: Vec<String>,
    registries: Vec<String>,
    /// Banned package, and those that may use it all the same.
    bans: BTreeMap<String, Vec<String>>,
}

impl Policy {
    /// Reads the policy file. An empty list of licences or registries is an error: nothing would pass by accident.
    pub(crate) fn parse(text: &str) -> Result<Policy, String> {
        let file: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let licences = strings(file.get("licenses").and_then(|table| table.get("allow")));
        let registries = strings(file.get("sources").and_then(|table| table.get("allow-registry")));
        let deny = file.get("bans").and_then(|table| table.get("deny")).and_then(toml::Value::as_array);
        let deny = deny.ok_or("bans.deny is missing")?;
        let mut bans = BTreeMap::new();
        for ban in deny {
            let name = ban.get("crate").and_then(toml::Value::as_str).ok_or("a ban without `crate`")?;
            bans.insert(name.to_owned(), strings(ban.get("wrappers")));
        }
        if licences.is_empty() || registries.is_empty() {
            return Err("licenses.allow and sources.allow-registry may not be empty".to_owned());
        }
        Ok(Policy { licences, registries, bans })
    }

    /// All faults of a dependency graph.
    pub(crate) fn check(&self, metadata: &Value) -> Vec<String> {
        let graph = Graph::new(metadata);
        let mut faults = Vec::new();
        for package in packages(metadata) {
            faults.extend(self.licence_fault(package));
            faults.extend(self.source_fault(package));
            faults.extend(self.ban_fault(package, &graph));
        }
        for (package, gate) in ONLY_THROUGH {
            if graph.reaches_around(package, gate) {
                faults.push(format!("{package}: unmaintained, and reached by another way than {gate}"));
            }
        }
        faults.extend(pin_faults(metadata));
        faults
    }

    fn licence_fault(&self, package: &Value) -> Option<String> {
        let name = text_of(package, "name");
        let Some(expression) = package["license"].as_str() else {
            return Some(format!("{name}: states no licence expression"));
        };
        match licence::is_satisfied(expression, &self.licences) {
            Ok(true) => None,
            Ok(false) => Some(format!("{name}: `{expression}` needs a licence that is not allowed")),
            Err(error) => Some(format!("{name}: {error}")),
        }
    }

    fn source_fault(&self, package: &Value) -> Option<String> {
        let source = package["source"].as_str()?;
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        let known = self.registries.iter().any(|allowed| allowed == registry);
        (!known).then(|| format!("{}: comes from {source}, which is no allowed registry", text_of(package, "name")))
    }

    fn ban_fault(&self, package: &Value, graph: &Graph) -> Option<String> {
        let name = text_of(package, "name");
        let wrappers = self.bans.get(name)?;
        let users: Vec<&str> = graph.users(name).filter(|user| !wrappers.iter().any(|w| w == user)).collect();
        let is_used_wrongly = wrappers.is_empty() || !users.is_empty();
        is_used_wrongly.then(|| format!("{name}: banned by .deny.toml, used by {}", users.join(", ")))
    }
}

/// Pinned packages that a manifest takes without `=`, and dependencies on any version at all.
fn pin_faults(metadata: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for package in members(metadata) {
        let from_outside = |dependency: &&Value| !dependency["source"].is_null();
        let dependencies = package["dependencies"].as_array().expect("a package lists dependencies");
        for dependency in dependencies.iter().filter(from_outside) {
            let (name, wanted) = (text_of(dependency, "name"), text_of(dependency, "req"));
            if PINNED.contains(&name) && !wanted.starts_with('=') {
                faults.push(format!("{}: takes {name} {wanted}; pin it with `=`", text_of(package, "name")));
            }
            if wanted == "*" {
                faults.push(format!("{}: takes any version of {name}", text_of(package, "name")));
            }
        }
    }
    faults
}

fn strings(value: Option<&toml::Value>) -> Vec<String> {
    let array = value.and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    array.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
}

/// Who uses whom, as resolved.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    uses: BTreeMap<&'a str, Vec<&'a str>>,
    members: Vec<&'a str>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Graph<'a> {
        let names = packages(metadata).map(|package| (text_of(package, "id"), text_of(package, "name"))).collect();
        let nodes = metadata["resolve"]["nodes"].as_array().expect("metadata resolves the graph");
        let uses = nodes.iter().map(|node| (text_of(node, "id"), used_by(node))).collect();
        Graph { names, uses, members: members(metadata).map(|package| text_of(package, "id")).collect() }
    }

    /// Names of the packages that use a package directly.
    fn users(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let uses_it = move |used: &[&str]| used.iter().any(|id| self.names[id] == name);
        let users: Vec<&str> =
            self.uses.iter().filter(|(_, used)| uses_it(used)).map(|(id, _)| self.names[id]).collect();
        users.into_iter()
    }

    /// Whether a package of ours reaches `name` on a way that does not lead through `gate`.
    fn reaches_around(&self, name: &str, gate: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = self.members.clone();
        while let Some(id) = open.pop() {
            if self.names[id] == name {
                return true;
            }
            if self.names[id] != gate && seen.insert(id) {
                open.extend(self.uses.get(id).into_iter().flatten());
            }
        }
        false
    }
}

fn used_by(node: &Value) -> Vec<&str> {
    let used = node["dependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    used.iter().filter_map(Value::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = r#"
        [licenses]
        allow = ["MIT"]
        [bans]
        deny = [{ crate = "openssl" }, { crate = "fxhash", wrappers = ["sled"] }]
        [sources]
        allow-registry = ["https://crates"]
    "#;

    /// A graph from lines `name licence source | uses`; source `path` is a package of ours.
    fn graph(lines: &[&str]) -> Value {
        let mut packages = Vec::new();
        let mut nodes = Vec::new();
        for line in lines {
            let (head, uses) = line.split_once('|').expect("a line has a bar");
            let head: Vec<&str> = head.trim_end().split(' ').collect();
            let uses: Vec<&str> = uses.split_whitespace().collect();
            let source = if head[2] == "path" { Value::Null } else { json!(head[2]) };
            let dependencies: Vec<Value> =
                uses.iter().map(|name| json!({ "name": name, "req": "^1", "source": "registry" })).collect();
            packages.push(json!({
                "name": head[0], "id": head[0], "license": head[1], "source": source, "dependencies": dependencies,
            }));
            nodes.push(json!({ "id": head[0], "dependencies": uses }));
        }
        json!({ "packages": packages, "resolve": { "nodes": nodes } })
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &str) {
        let faults = Policy::parse(FILE).unwrap().check(&graph(lines)).join("; ");
        assert!(faults.contains(expected), "{faults}");
        assert_eq!(faults.is_empty(), expected.is_empty(), "{faults}");
    }

    #[test]
    fn a_clean_graph_passes() {
        check(&["ours MIT path | serde", "serde MIT registry+https://crates |"], "");
    }

    #[test]
    fn licences_are_checked() {
        check(&["ours MIT path | x", "x GPL-3.0-only registry+https://crates |"], "x: `GPL-3.0-only` needs a licence");
        check(&["ours MIT path | x", "x  registry+https://crates |"], "no licence expression");
        let mut without = graph(&["ours MIT path |"]);
        without["packages"][0]["license"] = Value::Null;
        let faults = Policy::parse(FILE).unwrap().check(&without);
        assert_eq!(faults, ["ours: states no licence expression"]);
    }

    #[test]
    fn sources_are_checked() {
        check(&["ours MIT path | x", "x MIT git+https://elsewhere |"], "x: comes from git+https://elsewhere");
        check(&["ours MIT path | x", "x MIT registry+https://mirror |"], "no allowed registry");
    }

    #[test]
    fn bans_are_checked() {
        check(&["ours MIT path | openssl", "openssl MIT registry+https://crates |"], "openssl: banned");
        let (ours, used) = ("ours MIT path | fxhash", "fxhash MIT registry+https://crates |");
        check(&[ours, used], "fxhash: banned by .deny.toml, used by ours");
    }

    #[test]
    fn an_exception_holds_only_through_its_gate() {
        let (fxhash, instant) = ("fxhash MIT registry+https://crates |", "instant MIT registry+https://crates |");
        let sled = "a MIT registry+https://crates | instant";
        let gate = "sled MIT registry+https://crates | fxhash a";
        let through =
            graph(&["ours MIT path | gate", "gate MIT registry+https://crates | sled", gate, sled, fxhash, instant]);
        assert_eq!(Policy::parse(FILE).unwrap().check(&through), Vec::<String>::new());
        let around =
            graph(&["ours MIT path | gate a", "gate MIT registry+https://crates | sled", gate, sled, fxhash, instant]);
        let expected = ["instant: unmaintained, and reached by another way than sled"];
        assert_eq!(Policy::parse(FILE).unwrap().check(&around), expected);
    }

    #[test]
    fn pins_are_checked() {
        for name in PINNED {
            let faults = pin_faults(&graph(&[&format!("ours MIT path | {name}")]));
            assert_eq!(faults, [format!("ours: takes {name} ^1; pin it with `=`")]);
        }
        let mut pinned = graph(&["ours MIT path | sled"]);
        pinned["packages"][0]["dependencies"][0]["req"] = json!("=0.34.7");
        assert_eq!(pin_faults(&pinned), Vec::<String>::new());
        pinned["packages"][0]["dependencies"][0] = json!({ "name": "x", "req": "*", "source": "registry" });
        assert_eq!(pin_faults(&pinned), ["ours: takes any version of x"]);
    }

    #[test]
    fn a_policy_that_allows_nothing_or_bans_nothing_is_refused() {
        assert!(Policy::parse("").is_err());
        assert!(Policy::parse("[bans]\ndeny = []\n[licenses]\nallow = [\"MIT\"]").is_err());
        assert!(Policy::parse("[bans]\ndeny = [{ name = \"x\" }]").is_err());
        assert!(Policy::parse("[bans").is_err());
    }
}
