//! Generates the pages that state what the code states (`make docs`): `docs/configuration.md`, `deploy/ocpp-gateway.toml` and
//! `docs/metrics.md`.
//!
//! What a key or a metric means is written once, where it is defined: in the doc comment of the option, in the help text of the
//! metric. What connects them is in the templates beside `src/`. A test fails while a page differs from what would be generated.

mod commented_file;
mod keys;
mod metrics;
mod page;

use std::path::Path;
use std::process::ExitCode;

/// A page could not be generated. One line, for people.
type Failure = Box<dyn std::error::Error>;

/// Every generated page, as its path in the repository and its text.
fn pages() -> Result<[(&'static str, String); 3], Failure> {
    let sections = keys::sections()?;
    Ok([
        ("docs/configuration.md", page::render(&sections)),
        ("deploy/ocpp-gateway.toml", commented_file::render(&sections)),
        ("docs/metrics.md", metrics::render()?),
    ])
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[expect(clippy::print_stderr, reason = "a command says what went wrong")]
fn main() -> ExitCode {
    let written = pages().and_then(|pages| {
        for (path, text) in pages {
            std::fs::write(repository().join(path), text)?;
        }
        Ok(())
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ocpp-pages: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_what_would_be_generated() {
        for (path, text) in pages().unwrap() {
            let found = std::fs::read_to_string(repository().join(path)).unwrap();
            let differs = found.lines().zip(text.lines()).position(|(found, wanted)| found != wanted);
            assert!(
                found == text,
                "{path} is stale from line {:?} on: run `make docs`",
                differs.map(|line| line + 1)
            );
        }
    }
}
