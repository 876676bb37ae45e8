//! The top of the tree: only what was agreed, plus dotfiles of tools and three files that must lie there.

const AGREED: [&str; 10] =
    ["Cargo.toml", "README.md", "benches/", "chain/", "docs/", "genesis/", "inference/", "node/", "rpc/", "runtime/"];
const AGREED_TOO: [&str; 4] = ["tests/", "Cargo.lock", "LICENSE", "rust-toolchain.toml"];

/// Tool files: each named, so that a stray `.env` does not slip in.
const DOTFILES: [&str; 9] = [
    ".cargo/",
    ".ci/",
    ".clippy.toml",
    ".deny.toml",
    ".git/",
    ".github/",
    ".gitignore",
    ".gitattributes",
    ".rustfmt.toml",
];

/// Entries of the root that nobody agreed to.
pub(crate) fn check(entries: &[String]) -> Vec<String> {
    let agreed = |name: &str| AGREED.iter().chain(&AGREED_TOO).chain(&DOTFILES).any(|known| *known == name);
    entries
        .iter()
        // In a linked worktree `.git` is a file.
        .filter(|name| !agreed(name) && *name != ".git")
        .map(|name| format!("{name}: the root shows only what was agreed (docs/house.md, section 2)"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(name: &str) {
        assert_eq!(check(&[name.to_owned()]).len(), 1, "{name}");
    }

    #[test]
    fn strangers_are_refused() {
        for name in ["scripts/", "src/", "Makefile", "notes.md", ".env", "clippy.toml", "chain", "Cargo.toml/"] {
            refused(name);
        }
    }

    #[test]
    fn the_agreed_are_accepted() {
        let names = ["Cargo.toml", "chain/", "tests/", ".clippy.toml", ".git", ".git/", "LICENSE"];
        assert!(check(&names.map(str::to_owned)).is_empty());
    }
}
