//! The durable local log: numbered records in plain segment files, one writer, many readers.
//!
//! Owns the format of the files, their recovery after a crash, their retention, and reading them by position. It does not know
//! what a record means: events, station state and set-aside records are bytes with a kind, a time and a key. It starts no task
//! and reads no clock; every call blocks on the disk, so asynchronous callers wrap it in `spawn_blocking`.
//!
//! The promise: whatever [`Log::commit`] answered with `Ok` is delivered by every later [`LogReader`], once, in order, whatever
//! happens to the process or the power supply in between. What the disk itself loses afterwards (a flipped bit, a missing file)
//! is never skipped in silence: the reader delivers an [`Item::Gap`] in its place and goes on behind it.
//!
//! Positions are 0, 1, 2, … in the order of [`Log::append`]. They name records for good, except those of a batch that was never
//! committed.
//!
//! How it holds together:
//!
//! * A *batch* is what is appended between two commits. It is encoded in memory and written with one call, then synced. Readers
//!   see it only after the sync (`view.rs` holds that boundary).
//! * Every record carries a checksum and its position, so a reader can find its way back after damage (`scan.rs`).
//! * Every record also starts with its segment's *marker*, a random number. Stations choose what the values contain; they never
//!   see a marker, so no payload can imitate a record while a reader looks for the end of a damaged region.
//! * A file that failed once is never appended to again. The next commit starts a new segment, and where two segments claim the
//!   same position, the newer one is right (`writer.rs`).
//!
//! The bytes on disk and the reasons behind recovery are described in `docs/local-log.md`.
//!
//! Memory: the writer holds one batch, encoded, which is as large as its caller lets it become; every 64 KiB of log cost 16 bytes of
//! index; a reader holds one chunk of 256 KiB, or one record if that is longer, and nothing while it waits at the end. Where damage
//! has altered the length of a record, a reader looks at as many bytes as that length says, at most a segment.

mod error;
mod fs;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
mod set_aside;
mod view;
mod writer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod sim;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

pub use error::LogError;
pub use reader::LogReader;
pub use recovery::{Damage, Recovery, TornTail};
pub use view::LogView;
pub use writer::{Log, Retained};

/// Where a log lives and how large it may become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// The folder of the log. Created if it is missing; nothing else should be stored in it.
    pub dir: PathBuf,
    /// A segment file never grows beyond this, unless a single batch is larger. In bytes, headers included.
    pub segment_bytes: u64,
    /// [`Log::retain`] deletes the oldest segments while the log is larger than this. In bytes; 0 is no limit.
    pub max_bytes: u64,
    /// [`Log::retain`] deletes the oldest segments when all their records are older than this.
    pub max_age: Option<Duration>,
    /// The longest record that [`Log::append`] accepts: key and value together, in bytes.
    pub max_record_bytes: u32,
}

impl LogOptions {
    /// A log in `dir` with segments of 64 MiB, records of up to 1 MiB, and no limit of size or age.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 * 1024 * 1024,
            max_bytes: 0,
            max_age: None,
            max_record_bytes: 1024 * 1024,
        }
    }
}

/// A record to append. The log stores it as it is; only [`Log::retain`] reads the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the value is, in the caller's own numbering.
    pub kind: u8,
    /// When it happened, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Whom it is about, usually a station's identity; at most 65,535 bytes.
    pub key: &'a str,
    /// The content.
    pub value: &'a [u8],
}

/// A record as it was appended, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the log.
    pub position: u64,
    /// See [`Entry::kind`].
    pub kind: u8,
    /// See [`Entry::time_ms`].
    pub time_ms: u64,
    /// See [`Entry::key`].
    pub key: Box<str>,
    /// See [`Entry::value`].
    pub value: Bytes,
}

/// What a reader finds at its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The record at this position.
    Record(Record),
    /// There is nothing to deliver at the positions `from..to`.
    Gap {
        /// The first missing position.
        from: u64,
        /// The first position behind the gap.
        to: u64,
        /// Why they are missing.
        reason: GapReason,
    },
}

/// Why positions are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Deleted by [`Log::retain`] or [`Log::truncate_before`].
    Retained,
    /// Unreadable or gone. What was left of the bytes has been copied to the folder `damaged/` of the log.
    Damaged,
}
