//! Rust source as a list of tokens, without comments and without test code.
//!
//! Owns just enough of the lexical grammar to find paths reliably: strings, characters, lifetimes and nested comments are
//! told apart, so that nothing inside them is mistaken for code. Does not validate; the compiler has done that.

/// One token and the line it stands on, counted from 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) kind: Kind<'a>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Kind<'a> {
    /// An identifier or keyword, without a leading `r#`.
    Word(&'a str),
    /// `::`
    Separator,
    /// Any other punctuation, one character at a time.
    Mark(char),
    /// A string, character, number or lifetime.
    Literal,
}

/// Code outside tests, and the names of the test modules that have files of their own.
pub(crate) struct Source<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) test_modules: Vec<&'a str>,
}

pub(crate) fn read(text: &str) -> Source<'_> {
    let tokens = Lexer { rest: text, line: 1 }.collect();
    without_tests(tokens)
}

/// Drops every item under `#[cfg(test)]`.
fn without_tests(tokens: Vec<Token<'_>>) -> Source<'_> {
    use Kind::{Mark, Word};
    const CFG_TEST: [Kind<'static>; 7] =
        [Mark('#'), Mark('['), Word("cfg"), Mark('('), Word("test"), Mark(')'), Mark(']')];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut test_modules = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        let is_test = rest.len() >= CFG_TEST.len()
            && CFG_TEST.iter().zip(rest).all(|(expected, token)| *expected == token.kind);
        if !is_test {
            kept.push(*first);
            rest = after;
            continue;
        }
        let (item, after) = rest.split_at(item_end(rest, CFG_TEST.len()));
        if let [
            ..,
            Token { kind: Word("mod"), .. },
            Token { kind: Word(name), .. },
            Token { kind: Mark(';'), .. },
        ] = item
        {
            test_modules.push(*name);
        }
        rest = after;
    }
    Source { tokens: kept, test_modules }
}

/// Where the item that begins at `start` ends: after its first `;` or `{…}` that stands in no bracket.
fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.kind {
            Kind::Mark('(' | '[' | '{') => depth += 1,
            Kind::Mark('}') if depth <= 1 => return at + 1,
            Kind::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Kind::Mark(';') if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let line = self.line;
        let first = self.rest.chars().next()?;
        let kind = if let Some(length) = quoted_length(self.rest) {
            self.take(length);
            Kind::Literal
        } else if first == '_' || first.is_alphabetic() {
            if self.rest.starts_with("r#") {
                self.take(2);
            }
            Kind::Word(self.take(run(self.rest, |c| c == '_' || c.is_alphanumeric())))
        } else if first.is_ascii_digit() {
            // A range's dots stay outside; `1.5` becomes two numbers and a dot, which nothing here minds.
            self.take(run(self.rest, |c| c == '_' || c.is_alphanumeric()));
            Kind::Literal
        } else if self.rest.starts_with("::") {
            self.take(2);
            Kind::Separator
        } else {
            self.take(first.len_utf8());
            Kind::Mark(first)
        };
        Some(Token { line, kind })
    }
}

impl<'a> Lexer<'a> {
    fn skip_blank(&mut self) {
        loop {
            let length = if self.rest.starts_with("//") {
                run(self.rest, |c| c != '\n')
            } else if self.rest.starts_with("/*") {
                block_comment_length(self.rest)
            } else {
                run(self.rest, char::is_whitespace)
            };
            if length == 0 {
                return;
            }
            self.take(length);
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }
}

/// The bytes of the longest start of `text` whose characters all belong.
fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the string, character or lifetime that `text` starts with.
fn quoted_length(text: &str) -> Option<usize> {
    let unprefixed = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let prefix = text.len() - unprefixed.len();
    if let Some(raw) = unprefixed.strip_prefix('r') {
        let hashes = run(raw, |c| c == '#');
        let body = raw.get(hashes..)?.strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = body.find(&end).map_or(body.len(), |at| at + end.len());
        return Some(prefix + 1 + hashes + 1 + length);
    }
    let quote = unprefixed.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let body = unprefixed.get(1..)?;
    let is_lifetime = quote == '\'' && !body.starts_with('\\') && body.chars().nth(1) != Some('\'');
    let length =
        if is_lifetime { run(body, |c| c == '_' || c.is_alphanumeric()) } else { until_closed(body, quote) };
    Some(prefix + 1 + length)
}

/// The bytes up to and including the first `quote` that no backslash precedes.
fn until_closed(body: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        if c == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        let words = read(text).tokens.into_iter().filter_map(|token| match token.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn comments_and_literals_hide_what_they_hold() {
        let text = r###"
            a /* b /* c */ d */ // e
            "f \" g" h r#"i " j"# k b"l" 'm' n '\'' o '\u{6e}' b'p' &'q r c"s" r#type 1.5e3
        "###;
        assert_eq!(words(text), ["a", "h", "k", "n", "o", "r", "type"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let source = read("a \"\n\n\" b /*\n*/ c");
        let lines = source.tokens.iter().filter(|token| matches!(token.kind, Kind::Word(_)));
        assert_eq!(lines.map(|token| token.line).collect::<Vec<_>>(), [1, 3, 4]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "a #[cfg(test)] use b; c #[cfg(test)] #[allow(x)] mod tests { fn d() { if e { f } } } g
            #[cfg(test)] mod more; h #[cfg(test)] fn i(_: [u8; 2]) -> J { k } l #[cfg(unix)] m";
        assert_eq!(words(text), ["a", "c", "g", "h", "l", "cfg", "unix", "m"]);
        assert_eq!(read(text).test_modules, ["more"]);
    }
}
