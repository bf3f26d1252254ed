//! A file system in memory whose power can be taken away. For tests.
//!
//! Every file has two contents: what the kernel would show (`cache`) and what the disk would still have after a crash (`disk`).
//! Writing changes the first; syncing copies to the second; a crash keeps an arbitrary part of what was not synced, in pieces of a
//! few bytes. Names behave the same way, with a folder's sync. A failed sync behaves as on Linux: the pages count as clean although
//! the disk has only a part of them. Reading never fails.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::fs::{File, Filesystem};

/// Longest run of bytes that a crash keeps or loses as a whole.
const PIECE_BYTES: u64 = 48;

#[derive(Clone)]
pub(super) struct SimFilesystem(Arc<Mutex<World>>);

struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<Rename>,
    locked: Arc<()>,
    /// Bytes by which files may still grow.
    room: u64,
    failing: Failing,
    random: Random,
}

/// Which of the operations to come, other than reading, will fail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failing {
    /// So many succeed first.
    pub(super) after: u32,
    /// Then so many fail.
    pub(super) count: u32,
}

impl Failing {
    pub(super) const NEVER: Self = Self { after: 0, count: 0 };
}

/// A change of names that is not durable: what `from` stood for goes to `to`.
struct Rename {
    from: Option<PathBuf>,
    to: Option<PathBuf>,
    inode: usize,
}

#[derive(Default)]
struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    dirty: Vec<(u64, u64)>,
}

/// Small numbers without a pattern (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// How much of what was not synced survives a crash.
#[derive(Debug, Clone, Copy)]
pub(super) enum Survives {
    Nothing,
    Pieces,
    Everything,
}

impl Survives {
    fn keeps(self, random: &mut Random) -> bool {
        match self {
            Self::Nothing => false,
            Self::Pieces => random.below(2) == 0,
            Self::Everything => true,
        }
    }
}

impl Inode {
    fn flush(&mut self, survives: Survives, random: &mut Random) {
        for (from, to) in std::mem::take(&mut self.dirty) {
            let mut at = from;
            while at < to {
                let end = (at + 1 + random.below(PIECE_BYTES)).min(to);
                if survives.keeps(random) {
                    if (self.disk.len() as u64) < end {
                        self.disk.resize(end as usize, 0);
                    }
                    self.disk[at as usize..end as usize]
                        .copy_from_slice(&self.cache[at as usize..end as usize]);
                }
                at = end;
            }
        }
    }
}

impl SimFilesystem {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            locked: Arc::new(()),
            room: u64::MAX,
            failing: Failing::NEVER,
            random: Random(seed | 1),
        })))
    }

    /// Takes the power away and gives it back. Whoever had files open must be gone.
    pub(super) fn crash(&self, survives: Survives) {
        let mut world = self.world();
        let world = &mut *world;
        for inode in &mut world.inodes {
            // A shortened file may come back at its old length.
            let shortened = inode.disk.len() > inode.cache.len();
            if shortened && survives.keeps(&mut world.random) {
                inode.disk.truncate(inode.cache.len());
            }
            inode.flush(survives, &mut world.random);
            inode.cache = inode.disk.clone();
        }
        for rename in std::mem::take(&mut world.pending) {
            if survives.keeps(&mut world.random) {
                world.durable_names.apply(&rename);
            }
        }
        world.names = world.durable_names.clone();
        world.failing = Failing::NEVER;
        world.locked = Arc::new(());
    }

    /// Lets operations fail. If all do, from some moment on, that is a machine about to crash.
    pub(super) fn fail(&self, failing: Failing) {
        self.world().failing = failing;
    }

    /// Leaves this much space on the disk.
    pub(super) fn room(&self, bytes: u64) {
        self.world().room = bytes;
    }

    /// The names of all files, without the folder.
    pub(super) fn listing(&self) -> Vec<String> {
        let world = self.world();
        world.names.keys().filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn operation(&self) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.world();
        let Failing { after, count } = &mut world.failing;
        if let Some(left) = after.checked_sub(1) {
            *after = left;
            return Ok(world);
        }
        match count.checked_sub(1) {
            None => Ok(world),
            Some(left) => {
                *count = left;
                Err(io::Error::other("injected"))
            }
        }
    }

    fn file(&self, inode: usize) -> Box<dyn File> {
        Box::new(SimFile { filesystem: self.clone(), inode })
    }
}

trait Names {
    fn apply(&mut self, rename: &Rename);
}

impl Names for BTreeMap<PathBuf, usize> {
    fn apply(&mut self, rename: &Rename) {
        if let Some(from) = &rename.from {
            self.remove(from);
        }
        if let Some(to) = &rename.to {
            self.insert(to.clone(), rename.inode);
        }
    }
}

impl World {
    fn rename(&mut self, rename: Rename) {
        self.names.apply(&rename);
        self.pending.push(rename);
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Filesystem for SimFilesystem {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.operation().map(drop)
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let world = self.operation()?;
        let free = Arc::strong_count(&world.locked) == 1;
        Ok(free.then(|| Box::new(Arc::clone(&world.locked)) as Box<dyn Send + Sync>))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.world();
        let inside = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut world = self.operation()?;
        if world.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        world.inodes.push(Inode::default());
        let inode = world.inodes.len() - 1;
        world.rename(Rename { from: None, to: Some(path.to_owned()), inode });
        drop(world);
        Ok(self.file(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let inode = self.world().find(path)?;
        Ok(self.file(inode))
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        let inode = world.find(from)?;
        world.rename(Rename { from: Some(from.to_owned()), to: Some(to.to_owned()), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        let inode = world.find(path)?;
        world.rename(Rename { from: Some(path.to_owned()), to: None, inode });
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut world = self.operation()?;
        for rename in std::mem::take(&mut world.pending) {
            world.durable_names.apply(&rename);
        }
        Ok(())
    }
}

struct SimFile {
    filesystem: SimFilesystem,
    inode: usize,
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.filesystem.world();
        let rest = world.inodes[self.inode].cache.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buf.len());
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut world = self.filesystem.operation()?;
        let world = &mut *world;
        let inode = &mut world.inodes[self.inode];
        let size = inode.cache.len() as u64;
        assert!(offset <= size, "the log never leaves holes");
        let end = (offset + bytes.len() as u64).min(size.saturating_add(world.room));
        if end == offset && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if end > size {
            world.room -= end - size;
            inode.cache.resize(end as usize, 0);
        }
        let written = (end - offset) as usize;
        inode.cache[offset as usize..end as usize].copy_from_slice(&bytes[..written]);
        inode.dirty.push((offset, end));
        Ok(written)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.filesystem.world().inodes[self.inode].cache.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut world = self.filesystem.operation()?;
        let inode = &mut world.inodes[self.inode];
        inode.cache.resize(size as usize, 0);
        inode.dirty = inode.dirty.iter().map(|&(from, to)| (from.min(size), to.min(size))).collect();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let result = self.filesystem.operation().map(drop);
        let mut world = self.filesystem.world();
        let world = &mut *world;
        let inode = &mut world.inodes[self.inode];
        if result.is_ok() {
            inode.flush(Survives::Everything, &mut world.random);
            inode.disk.resize(inode.cache.len(), 0);
        } else if world.failing.count == 0 {
            inode.flush(Survives::Pieces, &mut world.random);
        }
        // With more failures to come the pages stay as they are, for the crash to decide.
        result
    }
}
