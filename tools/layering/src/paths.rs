//! Every path that a file names: `use` trees spelled out, and paths of several segments in the code.
//!
//! Does not know what a path leads to; that is for `modules`.

use crate::tokens::{Kind, Token};

/// What a file says about modules, in its own words.
#[derive(Default)]
pub(crate) struct Paths {
    pub(crate) mentions: Vec<Mention>,
    /// Modules written out in the file, as paths from it.
    pub(crate) inline_modules: Vec<Vec<String>>,
    /// Names that the file defines itself: functions, types and so on, wherever they stand.
    pub(crate) items: Vec<String>,
}

/// One path, and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    /// The inline module around it, as a path from the file; mostly empty.
    pub(crate) scope: Vec<String>,
    pub(crate) segments: Vec<String>,
    pub(crate) brings: Brings,
}

/// What a path adds to the names of its module.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Brings {
    /// It is no `use`.
    Nothing,
    Name(String),
    /// `use …::*`
    Everything,
}

pub(crate) fn read(tokens: &[Token<'_>]) -> Paths {
    let mut reader = Reader { tokens, at: 0, depth: 0, scopes: Vec::new(), paths: Paths::default() };
    while reader.step() {}
    reader.paths
}

const ITEMS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    depth: usize,
    /// Inline modules that are open, each with the depth of its braces.
    scopes: Vec<(String, usize)>,
    paths: Paths,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> Option<Kind<'a>> {
        self.tokens.get(self.at + ahead).map(|token| token.kind)
    }

    /// Reads one construct. Says whether there was one.
    fn step(&mut self) -> bool {
        let Some(token) = self.tokens.get(self.at).copied() else { return false };
        match token.kind {
            Kind::Mark('{') => self.depth += 1,
            Kind::Mark('}') => {
                self.depth = self.depth.saturating_sub(1);
                self.scopes.pop_if(|(_, depth)| *depth == self.depth);
            }
            Kind::Word("use") if self.peek(1) != Some(Kind::Mark('<')) => {
                self.at += 1;
                self.use_tree(&mut Vec::new());
                return true;
            }
            Kind::Word("mod") => {
                if let (Some(Kind::Word(name)), Some(Kind::Mark('{'))) = (self.peek(1), self.peek(2)) {
                    let name = name.to_owned();
                    self.scopes.push((name, self.depth));
                    let module = self.scope();
                    self.paths.inline_modules.push(module);
                }
            }
            Kind::Word(word) if self.peek(1) == Some(Kind::Separator) => {
                self.path(token.line, word);
                return true;
            }
            Kind::Word(word) if ITEMS.contains(&word) => {
                let name = if self.peek(1) == Some(Kind::Mark('!')) { self.peek(2) } else { self.peek(1) };
                if let Some(Kind::Word(name)) = name {
                    let name = name.to_owned();
                    self.paths.items.push(name);
                }
            }
            _ => {}
        }
        self.at += 1;
        true
    }

    /// A path in the code, up to its last name.
    fn path(&mut self, line: usize, first: &str) {
        let mut segments = vec![first.to_owned()];
        self.at += 1;
        while let (Some(Kind::Separator), Some(Kind::Word(word))) = (self.peek(0), self.peek(1)) {
            segments.push(word.to_owned());
            self.at += 2;
        }
        self.mention(line, segments, Brings::Nothing);
    }

    /// A `use` tree, from its first token to the one after its last.
    fn use_tree(&mut self, prefix: &mut Vec<String>) {
        let own = prefix.len();
        while let Some(token) = self.tokens.get(self.at).copied() {
            self.at += 1;
            match token.kind {
                Kind::Separator => {}
                Kind::Word(word) => {
                    prefix.push(word.to_owned());
                    if self.peek(0) != Some(Kind::Separator) {
                        self.use_leaf(token.line, prefix);
                        break;
                    }
                }
                Kind::Mark('*') => {
                    self.mention(token.line, prefix.clone(), Brings::Everything);
                    break;
                }
                Kind::Mark('{') => {
                    while !matches!(self.peek(0), None | Some(Kind::Mark('}'))) {
                        self.use_tree(prefix);
                        if self.peek(0) == Some(Kind::Mark(',')) {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                _ => break,
            }
        }
        prefix.truncate(own);
    }

    fn use_leaf(&mut self, line: usize, path: &[String]) {
        // `a::{self}` is `a`.
        let path = match path {
            [parent @ .., last] if last == "self" && !parent.is_empty() => parent,
            _ => path,
        };
        let mut name = path.last().cloned().unwrap_or_default();
        if let (Some(Kind::Word("as")), Some(Kind::Word(alias))) = (self.peek(0), self.peek(1)) {
            name = alias.to_owned();
            self.at += 2;
        }
        self.mention(line, path.to_vec(), Brings::Name(name));
    }

    fn mention(&mut self, line: usize, segments: Vec<String>, brings: Brings) {
        let scope = self.scope();
        self.paths.mentions.push(Mention { line, scope, segments, brings });
    }

    fn scope(&self) -> Vec<String> {
        self.scopes.iter().map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens;

    fn spelled(text: &str) -> Vec<String> {
        let paths = read(&tokens::read(text).tokens);
        let spell = |mention: Mention| {
            let path = mention.segments.join("::");
            match mention.brings {
                Brings::Nothing => path,
                Brings::Name(name) => format!("use {path} as {name}"),
                Brings::Everything => format!("use {path}::*"),
            }
        };
        paths.mentions.into_iter().map(spell).collect()
    }

    #[test]
    fn use_trees_are_spelled_out() {
        assert_eq!(
            spelled("pub(crate) use crate::{a::{self, B as C, d::*}, e::F,}; use ::g as _; use super::h;"),
            [
                "use crate::a as a",
                "use crate::a::B as C",
                "use crate::a::d::*",
                "use crate::e::F as F",
                "use g as _",
                "use super::h as h",
            ]
        );
    }

    #[test]
    fn paths_in_code_are_found() {
        let text = "fn f(x: crate::a::B) -> impl I + use<'_> { Vec::<u8>::new(); <C as super::d::E>::g(); $crate::h!() }";
        assert_eq!(spelled(text), ["crate::a::B", "Vec", "super::d::E", "crate::h"]);
    }

    #[test]
    fn inline_modules_and_items_are_known() {
        let paths =
            read(&tokens::read("mod a { mod b { use super::C; } fn d() {} } use e::F; struct G;").tokens);
        assert_eq!(paths.inline_modules, [vec!["a"], vec!["a", "b"]]);
        assert_eq!(paths.items, ["d", "G"]);
        let scopes: Vec<_> = paths.mentions.iter().map(|mention| mention.scope.join("::")).collect();
        assert_eq!(scopes, ["a::b", ""]);
    }
}
