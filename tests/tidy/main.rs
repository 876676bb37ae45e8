//! The rules of the house, executed: `cargo test -p aria-tests --test tidy`.
//!
//! Every checker is a pure function from what it reads (files, manifests, the dependency graph) to a list of
//! faults. Each is run once over the real tree, where the list must be empty, and over small invented
//! violations, where it must not be. In reading order:
//!
//! - [`source`]: Rust text as words, without comments and strings
//! - [`tree`]: the files and the dependency graph of this workspace
//! - [`arrows`]: which package may import which
//! - [`doors`]: which file may name which foreign package, and where `unsafe` may stand
//! - [`modules`]: module maps, modules nobody declares, names that say nothing, ignored tests
//! - [`root`]: what may lie at the top of the tree
//! - [`licence`]: licence expressions
//! - [`threats`]: tests that the paper of threats names
//! - [`policy`]: licences, sources, bans and pins, as `.deny.toml` states them

mod arrows;
mod doors;
mod licence;
mod modules;
mod policy;
mod root;
mod source;
mod threats;
mod tree;

/// Fails with one fault per line.
#[track_caller]
fn clean(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n  {}", faults.join("\n  "));
}

#[test]
fn packages_import_only_along_the_arrows() {
    clean("forbidden arrow", &arrows::check(tree::metadata()));
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    clean("lints", &arrows::check_lints(&tree::manifests()));
}

#[test]
fn every_threat_is_met_by_a_test_or_accepted_in_words() {
    clean("docs/threats.md", &threats::check(&tree::read("docs/threats.md"), tree::sources()));
}

#[test]
fn every_outside_package_has_a_line_in_the_papers() {
    clean("docs/crates.md", &arrows::check_listed(tree::metadata(), &tree::read("docs/crates.md")));
}

#[test]
fn foreign_packages_are_named_only_behind_their_doors() {
    clean("door", &doors::check(tree::sources()));
    clean("door", &doors::check_manifests(tree::metadata()));
}

#[test]
fn unsafe_lives_on_islands() {
    clean("unsafe", &doors::check_unsafe(tree::sources()));
}

#[test]
fn consensus_is_async_only_in_its_loop() {
    clean("async", &doors::check_async(tree::sources()));
}

#[test]
fn every_library_opens_with_its_module_map() {
    clean("module map", &modules::check_maps(tree::sources()));
}

#[test]
fn every_module_file_is_declared() {
    clean("modules", &modules::check_declared(tree::sources(), &tree::target_roots()));
}

#[test]
fn names_say_something() {
    clean("names", &modules::check_names(tree::sources()));
}

#[test]
fn no_test_is_ignored() {
    clean("ignored tests", &modules::check_ignored(tree::sources()));
}

#[test]
fn the_root_shows_only_what_was_agreed() {
    clean("root", &root::check(&tree::root_entries()));
}

#[test]
fn dependencies_follow_the_policy() {
    let policy = policy::Policy::parse(&tree::read(".deny.toml")).expect("the policy file is well formed");
    clean("dependencies", &policy.check(tree::metadata()));
}
