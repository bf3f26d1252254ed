//! The checks, over sources that have been read: packages, modules, purity, and paths that only some files may name.

use std::collections::BTreeMap;

use crate::manifest;
use crate::modules::{Modules, Named};
use crate::order;
use crate::table::{Package, Table};

/// One package as it stands on disk.
pub(crate) struct Sources {
    pub(crate) manifest: String,
    /// Each file of `src`: its path from there, and its text.
    pub(crate) files: Vec<(String, String)>,
}

/// Packages of the workspace that the table does not place.
pub(crate) fn members(table: &Table, members: &[String]) -> Vec<String> {
    let is_placed = |member: &&String| table.packages.iter().any(|package| package.path == **member);
    let unplaced = members.iter().filter(|member| !is_placed(member));
    unplaced.map(|member| format!("{member} is not in tools/layering/layers.txt")).collect()
}

/// Everything that is wrong with these packages.
pub(crate) fn sources(table: &Table, packages: &[(&Package, Sources)]) -> Vec<String> {
    let path_of: BTreeMap<String, &str> = packages
        .iter()
        .filter_map(|(package, sources)| Some((manifest::name(&sources.manifest)?, package.path.as_str())))
        .collect();
    let mut found = Vec::new();
    for (package, sources) in packages {
        for used in manifest::dependencies(&sources.manifest).iter().filter_map(|name| path_of.get(name)) {
            if !package.uses.iter().any(|allowed| allowed == used) {
                found.push(format!("{}/Cargo.toml: may not use {used}", package.path));
            }
        }
        let modules = Modules::read(&format!("{}/src", package.path), &sources.files);
        if !package.levels.is_empty() {
            let arrows = modules.arrows();
            found.extend(order::misplaced(package, &modules.top(), &arrows));
            found.extend(order::circles(package, &arrows));
        }
        for named in modules.named() {
            if package.is_pure && is_impure(&named.segments) {
                let path = named.segments.join("::");
                found.push(format!("{}: {path} is I/O, a clock or a runtime", named.place));
            }
            found.extend(reserved(table, &named));
        }
    }
    found
}

/// The levels that the modules of a package could have, as lines for the table, and the circles that keep the rest out.
pub(crate) fn proposal(package: &Package, sources: &Sources) -> Vec<String> {
    let modules = Modules::read(&format!("{}/src", package.path), &sources.files);
    let arrows = modules.arrows();
    let levels = order::levels(&modules.top(), &arrows);
    let mut lines: Vec<_> = levels.iter().map(|level| format!("    level {}", level.join(" "))).collect();
    lines.extend(order::circles(package, &arrows));
    lines
}

fn reserved<'a>(table: &'a Table, named: &'a Named) -> impl Iterator<Item = String> + use<'a> {
    let rules = table.reserved.iter().filter(|rule| {
        named.segments.starts_with(&rule.path)
            && !rule.places.iter().any(|place| named.place.starts_with(place.as_str()))
    });
    rules.map(|rule| {
        format!("{}: only {} may name {}", named.place, rule.places.join(", "), rule.path.join("::"))
    })
}

/// The standard library's ways out of a pure crate. Other crates' are found among the dependencies.
fn is_impure(path: &[String]) -> bool {
    const OUT: [&str; 6] = ["net", "fs", "thread", "process", "io", "env"];
    let leaves = matches!(path, [std, module, ..] if std == "std" && OUT.contains(&module.as_str()));
    // Whatever `Instant`, `SystemTime` or `Uuid` is called where it is imported.
    let reads_a_clock =
        path.len() > 1 && path.last().is_some_and(|name| name == "now" || name.starts_with("now_"));
    leaves || reads_a_clock
}

/// Crates that do I/O, tell the time or run tasks, in the output of `cargo tree`.
pub(crate) fn pure_tree(package: &Package, tree: &str) -> Vec<String> {
    const IMPURE: [&str; 11] = [
        "tokio",
        "tokio-util",
        "mio",
        "hyper",
        "rdkafka",
        "socket2",
        "chrono",
        "time",
        "prometheus",
        "tracing",
        "rustix",
    ];
    let crates = tree.lines().filter_map(|line| line.split(' ').next());
    let impure = crates.filter(|name| IMPURE.contains(name) || name.starts_with("async-"));
    impure.map(|name| format!("{}/Cargo.toml: depends on {name} and should be pure", package.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    const TABLE: &str = "\
low
    pure
    level a
    level b c
    level d
high
    uses low
    level one two
tungstenite only high/src/one.rs
";

    /// What is wrong, given the files that differ from a workspace in order.
    fn found(changes: &[(&str, &str)]) -> Vec<String> {
        let mut files = BTreeMap::from([
            ("low/Cargo.toml", "name = \"low\"\n[dependencies]\nserde = \"1\"\n"),
            ("low/src/lib.rs", "mod a; mod b; mod c; mod d; pub use a::A;"),
            ("low/src/a.rs", "use std::time::Instant; pub struct A;"),
            ("low/src/b.rs", "mod x;\nmod y;\nuse crate::A; fn f() { x::g() }"),
            ("low/src/b/x.rs", "use super::B; use super::y::Y;"),
            (
                "low/src/b/y.rs",
                "use crate::a;\n#[cfg(test)] mod tests { use crate::d; fn f() { Instant::now(); } }",
            ),
            ("low/src/c.rs", "use crate::a::A;"),
            ("low/src/d.rs", "use super::{b::x, c::C};"),
            ("high/Cargo.toml", "name = \"high\"\n[dependencies]\nlow = { path = \"../low\" }\n"),
            ("high/src/main.rs", "mod one; mod two; fn main() { one::run() }"),
            ("high/src/one.rs", "use tungstenite::Message; fn now() { Instant::now(); }"),
            ("high/src/two.rs", "use std::fs;"),
        ]);
        files.extend(changes.iter().copied());
        let table = table::read(TABLE).unwrap();
        let read = |package: &str| Sources {
            manifest: files[format!("{package}/Cargo.toml").as_str()].to_owned(),
            files: files
                .iter()
                .filter_map(|(path, text)| {
                    let path = path.strip_prefix(&format!("{package}/src/"))?;
                    Some((path.to_owned(), (*text).to_owned()))
                })
                .collect(),
        };
        let packages: Vec<_> =
            table.packages.iter().map(|package| (package, read(package.path.as_str()))).collect();
        sources(&table, &packages)
    }

    #[test]
    fn a_workspace_in_order_passes() {
        assert_eq!(found(&[]), Vec::<String>::new());
    }

    #[test]
    fn an_upward_use_fails() {
        let upward = ["low/src/a.rs:2: a uses d, which is not below it"];
        for text in [
            "\nuse crate::d::D;",
            "\nfn f() { super::d::g() }",
            "\nmacro_rules! m { () => { $crate::d::g() } }",
        ] {
            assert_eq!(found(&[("low/src/a.rs", text), ("low/src/d.rs", "")]), upward, "{text}");
        }
    }

    #[test]
    fn a_circle_fails() {
        let circle = "low: circle: a → d → b → a
    low/src/a.rs:1: a uses d
    low/src/d.rs:1: d uses b
    low/src/b.rs:3: b uses a";
        assert!(found(&[("low/src/a.rs", "use crate::d::D;")]).contains(&circle.to_owned()));
    }

    #[test]
    fn modules_on_one_level_do_not_use_each_other() {
        assert_eq!(
            found(&[("low/src/c.rs", "use crate::b::B;")]),
            ["low/src/c.rs:1: c uses b, which is not below it"]
        );
    }

    #[test]
    fn a_circle_deep_inside_fails() {
        assert_eq!(
            found(&[("low/src/b/y.rs", "use super::x::X;")]),
            ["low: circle in b: x → y → x\n    low/src/b/x.rs:1: x uses y\n    low/src/b/y.rs:1: y uses x"]
        );
    }

    #[test]
    fn levels_are_proposed_up_to_a_circle() {
        let package = &table::read(TABLE).unwrap().packages[0];
        let files = [("lib.rs", ""), ("a.rs", ""), ("b.rs", "use crate::a;"), ("c.rs", "use crate::{a, b};")];
        let mut files: Vec<_> = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let mut proposed = |path: &str, text: &str| {
            files.push((path.to_owned(), text.to_owned()));
            proposal(package, &Sources { manifest: String::new(), files: files.clone() })
        };
        assert_eq!(proposed("d.rs", "use crate::a;"), ["    level a", "    level b d", "    level c"]);
        let circle = "low: circle: e → f → e\n    low/src/e.rs:1: e uses f\n    low/src/f.rs:1: f uses e";
        let _incomplete = proposed("e.rs", "use crate::f;");
        assert_eq!(
            proposed("f.rs", "use crate::e;"),
            ["    level a", "    level b d", "    level c", circle]
        );
    }

    #[test]
    fn every_module_has_its_level() {
        assert_eq!(found(&[("low/src/e.rs", "")]), ["low: module e stands on no level"]);
    }

    #[test]
    fn packages_depend_on_what_the_table_allows() {
        assert_eq!(
            found(&[("low/Cargo.toml", "name = \"low\"\n[dependencies]\nhigh.workspace = true\n")]),
            ["low/Cargo.toml: may not use high"]
        );
        let table = table::read(TABLE).unwrap();
        assert_eq!(
            members(&table, &["low".into(), "new".into()]),
            ["new is not in tools/layering/layers.txt"]
        );
    }

    #[test]
    fn a_pure_package_has_no_clock_and_no_files() {
        let text = "use std::{fmt, fs};\nfn f(now: Instant) { std::time::SystemTime::now(); Wall::now(); Uuid::now_v7() }";
        assert_eq!(
            found(&[("low/src/c.rs", text)]),
            [
                "low/src/c.rs:1: std::fs is I/O, a clock or a runtime",
                "low/src/c.rs:2: std::time::SystemTime::now is I/O, a clock or a runtime",
                "low/src/c.rs:2: Wall::now is I/O, a clock or a runtime",
                "low/src/c.rs:2: Uuid::now_v7 is I/O, a clock or a runtime",
            ]
        );
        let package = &table::read(TABLE).unwrap().packages[0];
        assert_eq!(
            pure_tree(package, "low v0.1.0 (/low)\nserde v1.0.0\ntokio v1.54.0\n"),
            ["low/Cargo.toml: depends on tokio and should be pure"]
        );
    }

    #[test]
    fn a_reserved_path_has_its_places() {
        assert_eq!(
            found(&[("high/src/two.rs", "fn f() { tungstenite::accept() }")]),
            ["high/src/two.rs:1: only high/src/one.rs may name tungstenite"]
        );
    }
}
