//! What can go wrong with a log. Each error says what was attempted and on which path. Damaged records are not errors: readers
//! deliver them as gaps.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation of the log failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The options contradict each other. Nothing was touched.
    #[error("invalid log options: {0}")]
    Options(String),
    /// Another writer, in this process or another, has the log open.
    #[error("the log is in use by another writer (lock file {})", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A segment was written by a later version of this software.
    #[error("segment {} has format version {found}, this software reads version {known}", path.display())]
    Version {
        /// The segment file.
        path: PathBuf,
        /// The version it states.
        found: u32,
        /// The version this software knows.
        known: u32,
    },
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as an infinitive: `write`, `sync`, …
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// The record is longer than [`LogOptions::max_record_bytes`](super::LogOptions::max_record_bytes). It was not appended.
    #[error("a record of {bytes} bytes exceeds the limit of {limit}")]
    RecordTooLarge {
        /// Length of key and value.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The key is longer than the format can say. The record was not appended.
    #[error("a key of {bytes} bytes exceeds the limit of {}", u16::MAX)]
    KeyTooLong {
        /// Length of the key.
        bytes: usize,
    },
}

impl LogError {
    /// Whether the disk or the quota is full. Retrying later makes sense then.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// For `map_err`: adds what was attempted and on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
