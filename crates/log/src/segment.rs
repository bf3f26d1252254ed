//! A segment: its file name, its header, and the sparse index of its records. How much of it readers may see is in `extent.rs`.
//!
//! ```text
//!  0  magic         8 bytes  "OCPPLOG\n"
//!  8  crc           u32      CRC-32 (ISO-HDLC) of everything behind it
//! 12  version       u32      1
//! 16  marker        u32      random; every record of the segment starts with it
//! 20  reserved      u32      0
//! 24  base          u64      position of the first record; also the file's name
//! 32  newest before u64      the latest time in the segment before this one, for retention by age
//! ```

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes in front of the first record.
pub(super) const HEADER_BYTES: usize = 40;

/// The format this software writes and reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"OCPPLOG\n";

/// Distance between two entries of the sparse index. A lookup reads at most this much in excess; 64 KiB take some 20 µs.
const INDEX_STRIDE: u64 = 64 * 1024;

/// The header of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) marker: u32,
    pub(super) base: u64,
    pub(super) newest_before_ms: u64,
}

impl Header {
    /// A header for a new segment, with a marker of its own.
    pub(super) fn new(base: u64, newest_before_ms: u64) -> Self {
        Self { version: VERSION, marker: random_marker(), base, newest_before_ms }
    }

    /// The header as bytes.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[12..16].copy_from_slice(&self.version.to_le_bytes());
        out[16..20].copy_from_slice(&self.marker.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.to_le_bytes());
        out[32..40].copy_from_slice(&self.newest_before_ms.to_le_bytes());
        let crc = crc32fast::hash(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header; `None` if it is damaged. The caller checks the version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        (head[..8] == MAGIC && word(8) == crc32fast::hash(&head[12..])).then(|| Self {
            version: word(12),
            marker: word(16),
            base: long(24),
            newest_before_ms: long(32),
        })
    }
}

/// The number that every record of a new segment starts with: unpredictable, so that no payload can contain it on purpose.
pub(super) fn random_marker() -> u32 {
    // The standard library seeds every RandomState from the operating system's randomness.
    RandomState::new().hash_one(0_u8) as u32
}

/// The path of the segment that starts at `base`.
pub(super) fn path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// The base position a file name states; `None` for every other file.
pub(super) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The constant facts about a segment, and its index.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) marker: u32,
    pub(super) path: PathBuf,
    index: Mutex<Vec<Mark>>,
}

/// A record known to start at an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) position: u64,
    pub(super) offset: u64,
}

impl Segment {
    pub(super) fn new(dir: &Path, base: u64, marker: u32) -> Self {
        Self { base, marker, path: path(dir, base), index: Mutex::default() }
    }

    /// Where the first record starts.
    pub(super) fn start(&self) -> Mark {
        Mark { position: self.base, offset: HEADER_BYTES as u64 }
    }

    /// Adds a record to the index if it is a stride after the last entry.
    pub(super) fn note(&self, mark: Mark) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let last = index.last().copied().unwrap_or_else(|| self.start());
        if mark.offset >= last.offset + INDEX_STRIDE && mark.position > last.position {
            index.push(mark);
        }
    }

    /// The last index entry at or before `position`.
    pub(super) fn nearest(&self, position: u64) -> Mark {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|mark| mark.position <= position);
        after.checked_sub(1).and_then(|at| index.get(at)).copied().unwrap_or_else(|| self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_the_base_position() {
        assert_eq!(path(Path::new("d"), 42), Path::new("d/00000000000000000042.log"));
        assert_eq!(base_of("00000000000000000042.log"), Some(42));
        for name in
            ["42.log", "0000000000000000004x.log", "00000000000000000042.tmp", "99999999999999999999.log"]
        {
            assert_eq!(base_of(name), None, "{name}");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_header_is_noticed() {
        let header = Header::new(77, 123);
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Some(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged), None, "bit {bit}");
        }
    }

    #[test]
    fn markers_differ() {
        assert_ne!([random_marker(), random_marker()], [random_marker(), random_marker()]);
    }

    #[test]
    fn the_index_is_sparse_and_finds_the_nearest() {
        let segment = Segment::new(Path::new(""), 100, 1);
        for position in 100..5_000 {
            segment.note(Mark { position, offset: 40 + (position - 100) * 432 });
        }
        let entries = segment.index.lock().unwrap().len() as u64;
        assert!((20..=4_900 * 432 / INDEX_STRIDE).contains(&entries), "{entries}");
        assert_eq!(segment.nearest(100), segment.start());
        let mark = segment.nearest(3_000);
        assert!(mark.position <= 3_000 && (3_000 - mark.position) * 432 < INDEX_STRIDE + 432);
    }
}
