//! The durable local log: numbered records in plain segment files, one writer, many readers.
//!
//! Owns the format of the files, their recovery after a crash, their retention, and reading them by position. It does not know
//! what a record means: a value is bytes with a kind, a time and a key. It starts no task and reads no clock; every call blocks on
//! the disk, so asynchronous callers wrap it in `spawn_blocking`.
//!
//! The promise: a record whose [`Log::commit`] returned `Ok` is delivered by every later [`LogReader`], once and in order, whatever
//! happens to the process or the power supply in between. What the disk itself loses afterwards (a flipped bit, a missing file)
//! is never skipped in silence: the reader delivers an [`Item::Gap`] in its place and continues after it.
//!
//! Positions are 0, 1, 2, … in the order of [`Log::append`]. A position names the same record for ever, except in a batch that was
//! never committed.
//!
//! How it holds together:
//!
//! * A *batch* is everything appended between two commits. It is encoded in memory and written with one call, then synced. Readers
//!   see it only after the sync (`extent.rs` holds that boundary).
//! * Every record carries a checksum and its position, so a reader can resynchronise after damage (`scan.rs`).
//! * Every record also starts with its segment's *marker*, a random number. Stations choose what the values contain, but they
//!   never see a marker, so no payload can pass for a record while a reader looks for the end of a damaged region.
//! * A file that failed once is never appended to again. The next commit starts a new segment, and if two segments claim the
//!   same position, the newer one wins (`writer.rs`).
//!
//! The bytes on disk and the reasons behind recovery are described in `docs/local-log.md`.
//!
//! Memory: the writer holds one encoded batch, whose size is up to the caller; every 64 KiB of log cost 16 bytes of index; a reader
//! holds one chunk of 256 KiB, or one record if that is longer, and nothing while it waits at the end. If damage has altered the
//! length of a record, a reader reads as many bytes as that length says, but at most a segment.

mod damaged;
mod error;
mod extent;
mod fs;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
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

/// A record to append. The log stores it unchanged; only [`Log::retain`] looks at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// What the value is, in the caller's own numbering.
    pub kind: u8,
    /// When it happened, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// What it is about, usually a station's identity; at most 65,535 bytes.
    pub key: &'a str,
    /// The content.
    pub value: &'a [u8],
}

/// A record as it was appended, with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in the log; see the crate's documentation.
    pub position: u64,
    /// See [`NewRecord::kind`].
    pub kind: u8,
    /// See [`NewRecord::time_ms`].
    pub time_ms: u64,
    /// See [`NewRecord::key`].
    pub key: Box<str>,
    /// See [`NewRecord::value`].
    pub value: Bytes,
}

/// What a reader finds at its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The record at this position.
    Record(Record),
    /// The records at the positions `from..to` are missing.
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
    /// Unreadable or gone. The bytes that were left have been copied to the folder `damaged/` of the log.
    Damaged,
}
