//! The paper of threats: every test that it names is there.

use crate::source::SourceFile;

/// Rows of a table in which a named test does not exist, or in which nothing is shown although something is claimed.
pub(crate) fn check(paper: &str, files: &[SourceFile]) -> Vec<String> {
    let mut faults = Vec::new();
    for row in paper.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [threat, claim, _, shown] = cells[..] else {
            faults.push(format!("this row does not have four cells: {row}"));
            continue;
        };
        if claim.is_empty() {
            continue;
        }
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() && !claim.starts_with("accepted") {
            faults.push(format!("`{threat}` is called {claim}, and no test shows it"));
        }
        for test in tests {
            let name = format!("fn {test}(");
            if !files.iter().any(|file| file.text.contains(&name)) {
                faults.push(format!("`{threat}` names the test `{test}`, which is not there"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_its_test_is_found() {
        let files = [SourceFile::new("a.rs", "#[test]\nfn shown() {}")];
        let found = |row: &str| check(row, &files);
        assert_eq!(found("| a lie | detected | how | `shown` |"), Vec::<String>::new());
        assert_eq!(found("| a lie | accepted | why | |"), Vec::<String>::new());
        assert_eq!(found("| threat | | how | shown by |"), Vec::<String>::new());
        assert_eq!(found("| a lie | detected | how | `gone` |").len(), 1);
        assert_eq!(found("| a lie | prevented | how | |").len(), 1);
        assert_eq!(found("| a lie | detected |").len(), 1);
    }
}
