//! The seam to the file system: the few operations the log needs, and their real implementation.
//!
//! It exists so that tests can cut the power at any byte (`sim.rs`). It offers raw operations only; the callers decide what to sync
//! and when.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An open file. All access is by offset, so that a handle can be shared.
pub(crate) trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bytes` and returns how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// The length of the file in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Truncates or extends the file.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Returns when everything written is durable, including the length. After an error nothing is known about what was written
    /// since the last success, and calling again proves nothing: the kernel may have dropped the pages.
    fn sync(&self) -> io::Result<()>;
}

/// The operations on names.
pub(crate) trait Filesystem: Send + Sync {
    /// Creates a folder durably, with its parents, unless it exists.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file, creating the file; `None` if somebody else holds it. Dropping the guard releases the
    /// lock, and so does the end of the process.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// The names of the files in a folder, in any order.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a file for writing; an error if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading and writing.
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Renames a file, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when created, renamed and deleted names in this folder are durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// Writes all of `bytes`, however many calls it takes.
pub(super) fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `buf` is full or the file ends. Returns how many bytes it read.
pub(super) fn read_full_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The file system of the operating system.
pub(super) struct RealFilesystem;

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync: it also flushes the length, without which the data could not be read back.
        self.0.sync_data()
    }
}

impl Filesystem for RealFilesystem {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        fs::create_dir_all(dir)?;
        missing.into_iter().try_for_each(|created| match created.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        // A name that is not UTF-8 is not ours.
        fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name().into_string().ok()))
            .filter_map(Result::transpose)
            .collect()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let file = fs::File::options().create_new(true).read(true).write(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(fs::File::open(path)?)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(RealFile(fs::File::options().read(true).write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { PathBuf::from(".") } else { dir.to_owned() };
        fs::File::open(dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Reads and writes two bytes at a time, and is interrupted at every other call.
    #[derive(Default)]
    struct Reluctant(Mutex<(Vec<u8>, bool)>);

    impl Reluctant {
        fn interrupt(&self) -> io::Result<std::sync::MutexGuard<'_, (Vec<u8>, bool)>> {
            let mut state = self.0.lock().unwrap();
            state.1 = !state.1;
            if state.1 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(state) }
        }
    }

    impl File for Reluctant {
        fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
            let state = self.interrupt()?;
            let rest = &state.0[(offset as usize).min(state.0.len())..];
            let read = rest.len().min(buf.len()).min(2);
            buf[..read].copy_from_slice(&rest[..read]);
            Ok(read)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
            let mut state = self.interrupt()?;
            assert_eq!(offset, state.0.len() as u64);
            let room = 9 - state.0.len();
            let written = bytes.len().min(2).min(room);
            state.0.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn size(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().0.len() as u64)
        }

        fn set_size(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn short_and_interrupted_calls_are_continued() {
        let file = Reluctant::default();
        write_all_at(&file, b"1234567", 0).unwrap();
        let mut buf = [0; 5];
        assert_eq!(read_full_at(&file, &mut buf, 1).unwrap(), 5);
        assert_eq!(&buf, b"23456");
        assert_eq!(read_full_at(&file, &mut buf, 5).unwrap(), 2);
        assert_eq!(write_all_at(&file, b"890", 7).unwrap_err().kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn the_real_file_system_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        RealFilesystem.create_dir(&deep).unwrap();
        RealFilesystem.create_dir(&deep).unwrap();
        let path = deep.join("x");
        let file = RealFilesystem.create(&path).unwrap();
        assert_eq!(RealFilesystem.create(&path).map(drop).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        write_all_at(&*file, b"hello", 0).unwrap();
        file.sync().unwrap();
        file.set_size(4).unwrap();
        RealFilesystem.rename(&path, &deep.join("y")).unwrap();
        RealFilesystem.sync_dir(&deep).unwrap();
        assert_eq!(RealFilesystem.names(&deep).unwrap(), ["y"]);
        let mut buf = [0; 9];
        let file = RealFilesystem.open(&deep.join("y")).unwrap();
        assert_eq!((file.size().unwrap(), read_full_at(&*file, &mut buf, 0).unwrap()), (4, 4));
        assert_eq!(&buf[..4], b"hell");
        assert!(file.write_at(b"x", 0).is_err(), "opened for reading");
        RealFilesystem.remove(&deep.join("y")).unwrap();
        assert_eq!(RealFilesystem.open(&path).map(drop).unwrap_err().kind(), io::ErrorKind::NotFound);

        let lock = RealFilesystem.lock(&path).unwrap();
        assert!(lock.is_some() && RealFilesystem.lock(&path).unwrap().is_none());
        drop(lock);
        assert!(RealFilesystem.lock(&path).unwrap().is_some());
    }
}
