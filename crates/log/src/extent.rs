//! What readers may see: the segments in force, and the boundary between durable and not. The writer moves the boundary, readers
//! look it up.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fs::Filesystem;
use super::segment::Segment;

/// What writer and readers share.
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) filesystem: Arc<dyn Filesystem>,
    extent: Mutex<Extent>,
}

/// The log as far as it is durable.
#[derive(Default)]
pub(super) struct Extent {
    /// Oldest first. The last is the one being written, or the newest of a log that is not written to.
    pub(super) segments: VecDeque<Held>,
    /// The durable end: the position behind the last committed record.
    pub(super) next: u64,
}

/// A segment that counts, and how much of it.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) segment: Arc<Segment>,
    /// Its durable length.
    pub(super) bytes: u64,
    /// The latest time among its records.
    pub(super) newest_ms: u64,
}

/// Where to find a position.
pub(super) enum Place {
    /// It has been deleted; the log begins at the position given.
    Before(u64),
    /// In this segment, which holds the positions before `end` in its first `bytes` bytes.
    In { segment: Arc<Segment>, bytes: u64, end: u64 },
    /// Not committed yet.
    Behind,
}

impl Extent {
    pub(super) fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.next, |held| held.segment.base)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|held| held.bytes).sum()
    }

    fn locate(&self, position: u64) -> Place {
        if position >= self.next {
            return Place::Behind;
        }
        let after = self.segments.partition_point(|held| held.segment.base <= position);
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            None => Place::Before(self.oldest()),
            Some(held) => Place::In {
                segment: Arc::clone(&held.segment),
                bytes: held.bytes,
                end: self.segments.get(after).map_or(self.next, |next| next.segment.base),
            },
        }
    }
}

impl Shared {
    pub(super) fn new(dir: PathBuf, filesystem: Arc<dyn Filesystem>, extent: Extent) -> Self {
        Self { dir, filesystem, extent: Mutex::new(extent) }
    }

    /// The lock is held for a few instructions only, never across a call to the file system.
    pub(super) fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn locate(&self, position: u64) -> Place {
        self.extent().locate(position)
    }
}
