//! Licence expressions, as manifests write them: `MIT OR Apache-2.0`, `(A OR B) AND C`, the old `MIT/Apache-2.0`,
//! and `Apache-2.0 WITH LLVM-exception`, which counts as one licence.

/// Whether an expression can be satisfied with allowed licences alone. Malformed text is an error.
pub(crate) fn is_satisfied(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let satisfied = parser.any_of().ok_or_else(|| format!("`{expression}` is no licence expression"))?;
    if parser.words.is_empty() { Ok(satisfied) } else { Err(format!("`{expression}` does not end where it should")) }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn takes(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn any_of(&mut self) -> Option<bool> {
        let mut satisfied = self.all_of()?;
        while self.takes("OR") {
            satisfied |= self.all_of()?;
        }
        Some(satisfied)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut satisfied = self.one()?;
        while self.takes("AND") {
            satisfied &= self.one()?;
        }
        Some(satisfied)
    }

    fn one(&mut self) -> Option<bool> {
        if self.takes("(") {
            let inside = self.any_of()?;
            return self.takes(")").then_some(inside);
        }
        let mut licence = self.next().filter(|word| !matches!(*word, "AND" | "OR" | "WITH" | ")"))?.to_owned();
        if self.takes("WITH") {
            licence = format!("{licence} WITH {}", self.next()?);
        }
        Some(self.allowed.contains(&licence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, expected: Result<bool, ()>) {
        let allowed = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned);
        assert_eq!(is_satisfied(expression, &allowed).map_err(|_| ()), expected, "{expression}");
    }

    #[test]
    fn expressions_are_evaluated() {
        check("MIT", Ok(true));
        check("GPL-3.0-only", Ok(false));
        check("MIT OR GPL-3.0-only", Ok(true));
        check("MIT AND GPL-3.0-only", Ok(false));
        check("GPL-2.0/MIT", Ok(true));
        check("Apache-2.0 / MIT", Ok(true));
        check("(MIT OR Apache-2.0) AND Unicode-3.0", Ok(true));
        check("GPL-3.0-only OR MIT AND GPL-2.0-only", Ok(false));
        check("(MIT OR GPL-3.0-only) AND GPL-2.0-only", Ok(false));
        check("Apache-2.0 WITH LLVM-exception", Ok(false));
        check("Apache-2.0 WITH LLVM-exception OR MIT", Ok(true));
    }

    #[test]
    fn malformed_expressions_are_errors() {
        for text in ["", "MIT OR", "AND MIT", "(MIT", "MIT)", "MIT Apache-2.0", "MIT WITH", "()"] {
            check(text, Err(()));
        }
    }
}
