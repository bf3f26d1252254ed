//! `ocpp-layering`, called by `make lint` through `tools/layering.sh` from the root of the repository: fails when a package, a
//! module or a file uses what does not lie below it. `layers.txt` is the order. With the folder of a package as its argument it
//! prints levels that the package's modules could have.
//!
//! A file is read as text, not compiled: `tokens` → `paths` → `modules` → `order`. Test code is not looked at, and of macros only
//! the paths that are written out.

mod check;
mod manifest;
mod modules;
mod order;
mod paths;
mod table;
mod tokens;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode};

use check::Sources;

const TABLE: &str = "tools/layering/layers.txt";

fn main() -> io::Result<ExitCode> {
    let table = match table::read(&std::fs::read_to_string(TABLE)?) {
        Ok(table) => table,
        Err(why) => return fail(&[format!("{TABLE}: {why}")]),
    };
    let asked = std::env::args().nth(1);
    let members = manifest::members(&std::fs::read_to_string("Cargo.toml")?);
    let mut found = check::members(&table, &members);
    let mut all = Vec::new();
    for package in table.packages.iter().filter(|package| members.contains(&package.path)) {
        let sources = Sources {
            manifest: std::fs::read_to_string(format!("{}/Cargo.toml", package.path))?,
            files: rust_files(Path::new(&package.path).join("src").as_path())?,
        };
        if asked.as_ref().is_some_and(|asked| *asked == package.path) {
            return print(&check::proposal(package, &sources));
        }
        if package.is_pure {
            found.extend(check::pure_tree(package, &dependencies(&sources.manifest)?));
        }
        all.push((package, sources));
    }
    found.extend(check::sources(&table, &all));
    if found.is_empty() { Ok(ExitCode::SUCCESS) } else { fail(&found) }
}

fn print(lines: &[String]) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(found: &[String]) -> io::Result<ExitCode> {
    let mut out = io::stderr().lock();
    for line in found {
        writeln!(out, "layering: {line}")?;
    }
    Ok(ExitCode::FAILURE)
}

/// Every Rust file below a folder: its path from there, and its text.
fn rust_files(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
                files.push((name, std::fs::read_to_string(&path)?));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The names of the crates that a package depends on, directly or not.
fn dependencies(manifest: &str) -> io::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let package = manifest::name(manifest).unwrap_or_default();
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--package", &package])
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
