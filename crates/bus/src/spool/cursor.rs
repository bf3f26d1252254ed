//! The cursor: the position up to which Kafka has the spool, in a small file beside the log.
//!
//! Owns the file's format: the position and a checksum, replaced as a whole. A cursor that is lost or damaged means that
//! everything that is left is sent again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The cursor; 0 if there is none or it is damaged.
pub(super) fn read(dir: &Path) -> u64 {
    let text = std::fs::read_to_string(path(dir)).unwrap_or_default();
    let parsed = text.trim_end().split_once(' ').and_then(|(position, sum)| {
        (format!("{:08x}", crc32fast::hash(position.as_bytes())) == sum)
            .then(|| position.parse().ok())
            .flatten()
    });
    parsed.unwrap_or(0)
}

/// Replaces the cursor; durable when it returns.
pub(super) fn write(dir: &Path, position: u64) -> std::io::Result<()> {
    let text = position.to_string();
    let line = format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()));
    let temporary = dir.join("cursor.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path(dir))?;
    File::open(dir)?.sync_all()
}

fn path(dir: &Path) -> PathBuf {
    dir.join("cursor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_that_of_cursors_that_exist() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), 7).unwrap();
        assert_eq!(std::fs::read_to_string(path(dir.path())).unwrap(), "7 6abf4a82\n");
    }

    #[test]
    fn a_cursor_reads_back_unless_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), 0, "there is none");
        for position in [7, u64::MAX] {
            write(dir.path(), position).unwrap();
            assert_eq!(read(dir.path()), position);
        }
        for damaged in ["", "7", "7 00000000\n", "8 6abf4a82\n", "x y\n"] {
            std::fs::write(path(dir.path()), damaged).unwrap();
            assert_eq!(read(dir.path()), 0, "{damaged:?}");
        }
    }
}
