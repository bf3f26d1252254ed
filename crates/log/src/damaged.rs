//! Copies of bytes that could not be read: one file per region in the folder `damaged/` of a log, so that nothing is lost that
//! somebody might still make sense of. The log never reads or deletes these files.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::fs::{self, File, Filesystem};

/// The folder, inside the log's.
const FOLDER: &str = "damaged";

const CHUNK_BYTES: u64 = 64 * 1024;

/// Copies a region of a segment file, as much of it as the file has; durable when it returns. The same region is copied once,
/// however often it is met. `None` if the file has nothing there.
pub(super) fn copy_damage(
    filesystem: &dyn Filesystem,
    dir: &Path,
    base: u64,
    file: &dyn File,
    region: Range<u64>,
) -> io::Result<Option<PathBuf>> {
    let region = region.start..region.end.min(file.size()?);
    if region.is_empty() {
        return Ok(None);
    }
    let folder = dir.join(FOLDER);
    filesystem.create_dir(&folder)?;
    let length = region.end - region.start;
    let path = folder.join(format!("{base:020}-{}-{length}.bin", region.start));
    match filesystem.open(&path) {
        Ok(copy) if copy.size()? == length => return Ok(Some(path)),
        // A copy that a crash or a full disk cut short.
        Ok(_) => filesystem.remove(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let copy = filesystem.create(&path)?;
    let mut buffer = vec![0; CHUNK_BYTES.min(length) as usize];
    let mut at = region.start;
    while at < region.end {
        let wanted = (region.end - at).min(CHUNK_BYTES) as usize;
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let read = fs::read_full_at(file, chunk, at)?;
        if read == 0 {
            break;
        }
        fs::write_all_at(&*copy, chunk.get(..read).unwrap_or_default(), at - region.start)?;
        at += read as u64;
    }
    copy.sync()?;
    filesystem.sync_dir(&folder)?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimFilesystem;
    use super::*;

    fn content(filesystem: &SimFilesystem, path: &Path) -> Vec<u8> {
        let file = filesystem.open(path).unwrap();
        let mut bytes = vec![0; file.size().unwrap() as usize];
        fs::read_full_at(&*file, &mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_region_is_copied_once_and_a_broken_copy_replaced() {
        let filesystem = SimFilesystem::new(1);
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
        let file = filesystem.create(Path::new("log/x")).unwrap();
        fs::write_all_at(&*file, &bytes, 0).unwrap();
        let copy = || copy_damage(&filesystem, Path::new("log"), 7, &*file, 50..150_000);

        filesystem.room(70_000);
        assert_eq!(copy().unwrap_err().kind(), io::ErrorKind::StorageFull);
        filesystem.room(u64::MAX);
        let path = copy().unwrap().unwrap();
        assert_eq!(path, Path::new("log/damaged/00000000000000000007-50-149950.bin"));
        assert_eq!(content(&filesystem, &path), &bytes[50..150_000]);
        filesystem.room(0);
        assert_eq!(copy().unwrap(), Some(path));
    }

    #[test]
    fn what_the_file_does_not_have_is_not_copied() {
        let filesystem = SimFilesystem::new(1);
        let file = filesystem.create(Path::new("log/x")).unwrap();
        fs::write_all_at(&*file, b"12345", 0).unwrap();
        let copy = |region| copy_damage(&filesystem, Path::new("log"), 0, &*file, region).unwrap();
        assert_eq!(content(&filesystem, &copy(3..99).unwrap()), b"45");
        assert_eq!(copy(5..99), None);
        assert_eq!(copy(9..99), None);
    }
}
