//! What readers may see: the segments in force, and the boundary between durable and not. The writer moves it, readers ask it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::LogReader;
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

/// A segment in force.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) segment: Arc<Segment>,
    /// Its durable length.
    pub(super) bytes: u64,
    /// The latest time among its records.
    pub(super) newest_ms: u64,
}

/// Where a position is.
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

/// A log as its readers see it: cheap to clone, usable from any thread, and valid after the [`Log`](super::Log) is gone.
#[derive(Clone)]
pub struct LogView {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
}

impl LogView {
    pub(super) fn new(shared: Arc<Shared>, durable: watch::Receiver<u64>) -> Self {
        Self { shared, durable }
    }

    /// The oldest position that has not been deleted; equal to [`next`](Self::next) if there is no record.
    pub fn oldest(&self) -> u64 {
        self.shared.extent().oldest()
    }

    /// The durable end: every committed record has a position below it.
    pub fn next(&self) -> u64 {
        self.shared.extent().next
    }

    /// Durable bytes in segment files, headers included. What was set aside as damaged is not counted.
    pub fn bytes(&self) -> u64 {
        self.shared.extent().bytes()
    }

    /// A reader whose first item is about `from`. A position behind the durable end is brought back to the end: it can only come
    /// from a log that has lost its tail since, and waiting for it would skip what is written there now.
    pub fn reader(&self, from: u64) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), from.min(self.next()))
    }

    /// Follows the durable end. Its `changed` fails when the writer is gone.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }
}

impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let extent = self.shared.extent();
        f.debug_struct("LogView")
            .field("dir", &self.shared.dir)
            .field("oldest", &extent.oldest())
            .field("next", &extent.next)
            .finish_non_exhaustive()
    }
}
