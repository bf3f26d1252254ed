//! The files of a package as modules, and which of them uses which.
//!
//! Owns the way from a path in a file to the file that it leads to, through `use` and re-exports, so that a name which the
//! crate's root passes on still counts as a use of the file that defines it.

use std::collections::{BTreeMap, BTreeSet};

use crate::paths::{self, Brings, Mention};
use crate::tokens;

/// A module's path from the root of its crate, without the crate; empty for the root.
pub(crate) type Module = Vec<String>;

/// A file that uses another.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Arrow {
    pub(crate) from: Module,
    pub(crate) to: Module,
    /// `file:line`
    pub(crate) place: String,
}

/// A path that a file names, as written.
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) place: String,
}

/// One package, read.
pub(crate) struct Modules {
    files: BTreeMap<Module, Vec<Mention>>,
    places: BTreeMap<Module, String>,
    /// Files and inline modules.
    all: BTreeSet<Module>,
    /// What each module brings into scope, and what it defines.
    names: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    globs: BTreeMap<Module, Vec<Vec<String>>>,
    items: BTreeMap<Module, BTreeSet<String>>,
}

/// How far re-exports of re-exports are followed.
const MAX_HOPS: usize = 16;

impl Modules {
    /// Reads files given as (path below `src`, text). `main.rs` and `lib.rs` are both the root.
    pub(crate) fn read(src: &str, files: &[(String, String)]) -> Self {
        let mut modules = Self {
            files: BTreeMap::new(),
            places: BTreeMap::new(),
            all: BTreeSet::new(),
            names: BTreeMap::new(),
            globs: BTreeMap::new(),
            items: BTreeMap::new(),
        };
        let sources: Vec<_> =
            files.iter().map(|(path, text)| (path, module_of(path), tokens::read(text))).collect();
        let tests: Vec<Module> = sources
            .iter()
            .flat_map(|(_, module, source)| source.test_modules.iter().map(|name| child(module, name)))
            .collect();
        for (path, module, source) in &sources {
            if tests.iter().any(|test| module.starts_with(test)) {
                continue;
            }
            modules.add(module, format!("{src}/{path}"), paths::read(&source.tokens));
        }
        modules
    }

    fn add(&mut self, module: &Module, place: String, paths: paths::Paths) {
        self.all.insert(module.clone());
        self.all.extend(paths.inline_modules.iter().map(|inline| [module.as_slice(), inline].concat()));
        self.items.entry(module.clone()).or_default().extend(paths.items);
        for mention in &paths.mentions {
            let scope = [module.as_slice(), &mention.scope].concat();
            match &mention.brings {
                Brings::Nothing => {}
                Brings::Name(name) => {
                    self.names.entry(scope).or_default().insert(name.clone(), mention.segments.clone());
                }
                Brings::Everything => self.globs.entry(scope).or_default().push(mention.segments.clone()),
            }
        }
        self.files.entry(module.clone()).or_default().extend(paths.mentions);
        self.places.insert(module.clone(), place);
    }

    /// The modules directly below the root.
    pub(crate) fn top(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|module| module.first()).map(String::as_str).collect()
    }

    /// Every path of every file.
    pub(crate) fn named(&self) -> impl Iterator<Item = Named> {
        self.files.iter().flat_map(|(module, mentions)| {
            mentions.iter().map(|mention| Named {
                segments: mention.segments.clone(),
                place: self.place(module, mention),
            })
        })
    }

    /// Every use of one file by another.
    pub(crate) fn arrows(&self) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (module, mentions) in &self.files {
            for mention in mentions {
                let scope = [module.as_slice(), &mention.scope].concat();
                let Some(target) = self.resolve(&scope, &mention.segments, MAX_HOPS) else { continue };
                let to = self.file_of(target);
                if to != *module {
                    arrows.push(Arrow { from: module.clone(), to, place: self.place(module, mention) });
                }
            }
        }
        arrows
    }

    fn place(&self, module: &Module, mention: &Mention) -> String {
        let file = self.places.get(module).map_or("", String::as_str);
        format!("{file}:{}", mention.line)
    }

    fn file_of(&self, mut module: Module) -> Module {
        while !module.is_empty() && !self.files.contains_key(&module) {
            module.pop();
        }
        module
    }

    /// The module that defines what a path names; `None` for another crate's.
    fn resolve(&self, scope: &[String], path: &[String], hops: usize) -> Option<Module> {
        let hops = hops.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Module::new(),
            "self" => scope.to_vec(),
            "super" => {
                let mut at = scope.to_vec();
                at.pop();
                while let Some(("super", after)) =
                    rest.split_first().map(|(word, after)| (word.as_str(), after))
                {
                    at.pop();
                    rest = after;
                }
                at
            }
            _ => {
                rest = path;
                scope.to_vec()
            }
        };
        let is_relative = rest.len() == path.len();
        for (place, name) in rest.iter().enumerate() {
            let below = child(&at, name);
            if self.all.contains(&below) {
                at = below;
                continue;
            }
            if self.items.get(&at).is_some_and(|items| items.contains(name)) {
                break;
            }
            let after = rest.get(place + 1..).unwrap_or_default();
            match self.import(&at, name, after, hops) {
                Some(target) => return target,
                // A first name that the scope does not know is another crate, or from the prelude.
                None if is_relative && place == 0 => return None,
                None => break,
            }
        }
        Some(at)
    }

    /// Follows a name that a module imports. `None` if it does not; `Some(None)` if it is another crate's.
    fn import(&self, at: &Module, name: &str, after: &[String], hops: usize) -> Option<Option<Module>> {
        if let Some(target) = self.names.get(at).and_then(|names| names.get(name)) {
            // `use a;` names itself; only what it stands for leads on.
            let is_itself = target.first().is_some_and(|first| first == name) && target.len() == 1;
            return Some(if is_itself { None } else { self.resolve(at, &[target, after].concat(), hops) });
        }
        let globs = self.globs.get(at).into_iter().flatten();
        let mut targets = globs.filter_map(|glob| self.resolve(at, glob, hops));
        let found = targets.find(|target| target != at && self.knows(target, name))?;
        let path = [&[name.to_owned()], after].concat();
        Some(self.resolve(&found, &path, hops).or(Some(found)))
    }

    fn knows(&self, module: &Module, name: &str) -> bool {
        self.all.contains(&child(module, name))
            || self.items.get(module).is_some_and(|items| items.contains(name))
            || self.names.get(module).is_some_and(|names| names.contains_key(name))
    }
}

fn child(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

fn module_of(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Module::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        let arrows = Modules::read("src", &files).arrows().into_iter();
        arrows
            .map(|arrow| format!("{} {} {}", arrow.place, arrow.from.join("::"), arrow.to.join("::")))
            .collect()
    }

    #[test]
    fn paths_lead_to_the_file_that_defines() {
        let found = arrows(&[
            ("lib.rs", "mod a; mod b; pub use b::deep::Thing; pub use b::*;"),
            (
                "a.rs",
                "use crate::Thing;\nfn f() { crate::b::deep::g(); std::mem::take(); }\nuse super::b::Other as O;",
            ),
            ("b.rs", "pub mod deep; pub struct Other; fn f() { deep::g() }"),
            ("b/deep.rs", "use super::super::a; use super::Other;\nfn g() { a::h() }"),
        ]);
        assert_eq!(
            found,
            [
                "src/lib.rs:1  b::deep",
                "src/lib.rs:1  b",
                "src/a.rs:1 a b::deep",
                "src/a.rs:2 a b::deep",
                "src/a.rs:3 a b",
                "src/b.rs:1 b b::deep",
                "src/b/deep.rs:1 b::deep a",
                "src/b/deep.rs:1 b::deep b",
                "src/b/deep.rs:2 b::deep a",
            ]
        );
    }

    #[test]
    fn re_exports_and_globs_are_followed() {
        let found = arrows(&[
            ("lib.rs", "pub use a::*; pub use crate::b::B as C;"),
            ("a.rs", "pub struct A;"),
            ("b.rs", "pub struct B;"),
            ("c.rs", "use crate::A;\nuse crate::C;\nuse crate::*;\nfn f() { b::g() }"),
        ]);
        let of_c: Vec<_> = found.iter().filter(|arrow| arrow.contains("c.rs")).collect();
        assert_eq!(of_c, ["src/c.rs:1 c a", "src/c.rs:2 c b", "src/c.rs:3 c ", "src/c.rs:4 c b"]);
    }

    #[test]
    fn inline_modules_belong_to_their_file_and_tests_to_none() {
        let found = arrows(&[
            ("lib.rs", "#[cfg(test)] mod tests;"),
            (
                "a.rs",
                "mod inner { use super::super::b::B;\nuse super::C; } struct C; #[cfg(test)] use crate::b::B;",
            ),
            ("b.rs", "fn f() { crate::a::inner::g() }"),
            ("tests.rs", "use crate::a;"),
        ]);
        assert_eq!(found, ["src/a.rs:1 a b", "src/b.rs:1 b a"]);
    }

    #[test]
    fn circular_re_exports_end() {
        assert_eq!(arrows(&[("a.rs", "pub use crate::b::X;"), ("b.rs", "pub use crate::a::X;")]).len(), 0);
    }
}
