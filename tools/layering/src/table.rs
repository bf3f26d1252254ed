//! Reads `layers.txt`, which says who may use whom. The file explains its own notation.

/// Everything that the file says.
#[derive(Default, Debug)]
pub(crate) struct Table {
    pub(crate) packages: Vec<Package>,
    pub(crate) reserved: Vec<Reserved>,
}

/// A package of the workspace.
#[derive(Default, Debug)]
pub(crate) struct Package {
    /// Its folder, such as `crates/bus`.
    pub(crate) path: String,
    /// Folders of the packages that it may depend on.
    pub(crate) uses: Vec<String>,
    /// Whether it has no I/O, no clock and no runtime.
    pub(crate) is_pure: bool,
    /// Its modules, bottom to top; empty while it is not checked.
    pub(crate) levels: Vec<Vec<String>>,
}

/// A path that only some files may name.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) path: Vec<String>,
    /// Files and folders.
    pub(crate) places: Vec<String>,
}

/// # Errors
/// The first line that is no statement, or uses a package that does not stand above it.
pub(crate) fn read(text: &str) -> Result<Table, String> {
    let mut table = Table::default();
    for (number, line) in text.lines().enumerate() {
        let statement = line.split('#').next().unwrap_or_default();
        let mut words = statement.split_whitespace().map(str::to_owned);
        let Some(first) = words.next() else { continue };
        let words: Vec<String> = words.collect();
        let failed = |why: &str| Err(format!("line {}: {why}", number + 1));
        if !statement.starts_with(' ') {
            match words.split_first() {
                None => table.packages.push(Package { path: first, ..Package::default() }),
                Some((only, places)) if only == "only" && !places.is_empty() => {
                    let path = first.split("::").map(str::to_owned).collect();
                    table.reserved.push(Reserved { path, places: places.to_vec() });
                }
                Some(_) => return failed("neither a package nor `PATH only PLACE…`"),
            }
            continue;
        }
        let Some((package, below)) = table.packages.split_last_mut() else {
            return failed("stands under no package");
        };
        match first.as_str() {
            "uses" => {
                if let Some(unknown) =
                    words.iter().find(|used| below.iter().all(|other| other.path != **used))
                {
                    return failed(&format!("{unknown} does not stand above {}", package.path));
                }
                package.uses = words;
            }
            "pure" => package.is_pure = true,
            "level" => package.levels.push(words),
            _ => return failed("expected uses, pure or level"),
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let text = "# comment\nlow  # its folder\n    pure\n    level a b\n    level c\nhigh\n    uses low\nx::y only high/src/z.rs\n";
        let table = read(text).unwrap();
        let [low, high] = table.packages.as_slice() else { panic!("two packages") };
        assert_eq!((low.path.as_str(), low.is_pure, low.uses.len()), ("low", true, 0));
        assert_eq!(low.levels, [vec!["a", "b"], vec!["c"]]);
        assert_eq!((high.is_pure, high.uses.as_slice()), (false, [String::from("low")].as_slice()));
        assert_eq!(table.reserved[0].path, ["x", "y"]);
        assert_eq!(table.reserved[0].places, ["high/src/z.rs"]);
    }

    #[test]
    fn packages_stand_in_order_too() {
        assert_eq!(read("a\n    uses b\nb\n").unwrap_err(), "line 2: b does not stand above a");
        assert_eq!(read("a\n    below b\n").unwrap_err(), "line 2: expected uses, pure or level");
        assert_eq!(read("    pure\n").unwrap_err(), "line 1: stands under no package");
        assert!(read("a b\n").is_err());
    }
}
