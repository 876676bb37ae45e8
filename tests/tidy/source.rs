//! Rust text as words: identifiers, numbers and punctuation with their lines; comments and literals are dropped.
//! Just enough of the language to see what a file names, without a parser to depend on.

/// One word of a source file. `::` is one word, every other punctuation character is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// Line, from 1.
    pub(crate) line: usize,
    /// The word itself; a string or character literal is `""`.
    pub(crate) text: String,
}

/// A Rust file of the tree.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    /// Path from the root of the tree, with `/`.
    pub(crate) path: String,
    /// The text as it is.
    pub(crate) text: String,
    /// The text as words.
    pub(crate) words: Vec<Word>,
}

impl SourceFile {
    /// A file from its path and text.
    pub(crate) fn new(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.to_owned(), text: text.to_owned(), words: words(text) }
    }

    /// The word at `index`, or nothing at the ends.
    pub(crate) fn word(&self, index: Option<usize>) -> &str {
        index.and_then(|i| self.words.get(i)).map_or("", |word| &word.text)
    }

    /// The modules this file declares: `mod name;` and `mod name {`, with whether a file must hold them.
    pub(crate) fn modules(&self) -> Vec<(String, bool)> {
        let declares = |i: usize| self.word(Some(i)) == "mod" && self.word(i.checked_sub(1)) != ".";
        let in_file = |i: usize| match self.word(Some(i + 2)) {
            ";" => Some(true),
            "{" => Some(false),
            _ => None,
        };
        (0..self.words.len())
            .filter(|&i| declares(i))
            .filter_map(|i| Some((self.word(Some(i + 1)).to_owned(), in_file(i)?)))
            .collect()
    }
}

/// Splits Rust text into words.
pub(crate) fn words(text: &str) -> Vec<Word> {
    Lexer { rest: text, line: 1, out: Vec::new() }.run()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    out: Vec<Word>,
}

impl Lexer<'_> {
    fn run(mut self) -> Vec<Word> {
        while let Some(first) = self.rest.chars().next() {
            match first {
                _ if self.rest.starts_with("//") => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                _ if self.rest.starts_with("/*") => self.block_comment(),
                _ if self.rest.starts_with("::") => self.word(2),
                '"' => self.string(0),
                '\'' => self.quote(),
                _ if is_word(first) => self.identifier(),
                _ if first.is_whitespace() => self.skip(first.len_utf8()),
                _ => self.word(first.len_utf8()),
            }
        }
        self.out
    }

    /// Drops `bytes` bytes, counting lines.
    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    fn word(&mut self, bytes: usize) {
        self.out.push(Word { line: self.line, text: self.rest[..bytes].to_owned() });
        self.skip(bytes);
    }

    fn literal(&mut self, bytes: usize) {
        self.out.push(Word { line: self.line, text: "\"\"".to_owned() });
        self.skip(bytes);
    }

    fn block_comment(&mut self) {
        let (mut depth, mut at) = (0_usize, 0_usize);
        while at < self.rest.len() {
            if self.rest[at..].starts_with("/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if self.rest[at..].starts_with("*/") {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            } else {
                at += self.rest[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.skip(at);
    }

    /// A string with escapes, whose opening quote is at `open`.
    fn string(&mut self, open: usize) {
        let mut escaped = false;
        let body = &self.rest[open + 1..];
        let end = body.find(|c| match (escaped, c) {
            (true, _) => {
                escaped = false;
                false
            }
            (false, '\\') => {
                escaped = true;
                false
            }
            (false, c) => c == '"',
        });
        self.literal(end.map_or(self.rest.len(), |end| open + 1 + end + 1));
    }

    /// A raw string whose hashes begin at `open`.
    fn raw_string(&mut self, open: usize, hashes: usize) {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = open + hashes + 1;
        let end = self.rest[body..].find(&close);
        self.literal(end.map_or(self.rest.len(), |end| body + end + close.len()));
    }

    /// A lifetime or a character literal.
    fn quote(&mut self) {
        let mut after = self.rest[1..].chars();
        let (first, second) = (after.next(), after.next());
        if first.is_some_and(is_word) && second != Some('\'') {
            let name = self.rest[1..].find(|c| !is_word(c)).unwrap_or(self.rest.len() - 1);
            return self.skip(1 + name);
        }
        let first = first.map_or(0, char::len_utf8);
        let body =
            if self.rest[1..].starts_with('\\') { 1 + first + second.map_or(0, char::len_utf8) } else { 1 + first };
        let end = self.rest[body..].find('\'');
        self.literal(end.map_or(self.rest.len(), |end| body + end + 1));
    }

    fn identifier(&mut self) {
        let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
        let hashes = self.rest[end..].len() - self.rest[end..].trim_start_matches('#').len();
        let quoted = self.rest[end + hashes..].starts_with('"');
        match &self.rest[..end] {
            "r" | "br" | "cr" if quoted => self.raw_string(end, hashes),
            "b" | "c" if quoted && hashes == 0 => self.string(end),
            "b" if self.rest[end..].starts_with('\'') => {
                self.skip(end);
                self.quote();
            }
            "r" if hashes == 1 => self.skip(end + 1),
            _ => self.word(end),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found: Vec<String> = words(text).into_iter().map(|word| word.text).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }

    #[test]
    fn comments_and_literals_are_dropped() {
        check("a // unsafe\nb", "a b");
        check("a /* unsafe /* nested */ still */ b", "a b");
        check(r#"f("unsafe \" unsafe", x)"#, r#"f ( "" , x )"#);
        check("f(r#\"unsafe \" unsafe\"#, br\"unsafe\", b\"unsafe\", x)", r#"f ( "" , "" , "" , x )"#);
        check(r"g('\'', b'x', '\u{1F600}', 'é') unsafe", r#"g ( "" , "" , "" , "" ) unsafe"#);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_understood() {
        check("fn f<'a>(x: &'a str) {}", "fn f < > ( x : & str ) { }");
        check("r#mod::x", "mod :: x");
        check("a::b:c", "a :: b : c");
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let found = words("/* one\ntwo */ \"three\nfour\" five\nsix");
        let lines: Vec<usize> = found.iter().map(|word| word.line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }

    #[test]
    fn declared_modules_are_found() {
        let file = SourceFile::new(
            "chain/src/lib.rs",
            "pub mod a;\n#[cfg(test)] mod tests { }\n// mod no;\nlet x = self.mod_;",
        );
        assert_eq!(file.modules(), [("a".to_owned(), true), ("tests".to_owned(), false)]);
    }
}
