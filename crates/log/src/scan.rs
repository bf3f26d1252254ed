//! Scans the records of one segment file, and resynchronises after damage. Readers and recovery both use it.
//!
//! A record is accepted when its marker is the segment's, its checksum is right and its position is not below the one expected
//! there. If the bytes are not such a record, every following offset is tried until one is. So one flipped bit costs one
//! record, whatever it hit: the length of a record is used only to verify that record, never to find the next one after damage.

use std::io;

use super::Record;
use super::fs::{self, File};
use super::record::{HEADER_BYTES, Header};
use super::segment::Mark;

/// How much is read at once: large enough that the system call does not matter, small enough for a buffer per reader.
const CHUNK_BYTES: u64 = 256 * 1024;

/// What is at the scanner's offset.
#[derive(Debug)]
pub(super) enum Step {
    /// A whole record.
    Record(Found),
    /// Bytes that are no record, from one offset to another, where an intact record or the end follows.
    Damage { from: u64, to: u64 },
    /// Nothing more.
    End,
}

/// A verified record in the scanner's buffer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    header: Header,
    pub(super) offset: u64,
}

impl Found {
    pub(super) fn mark(&self) -> Mark {
        Mark { position: self.header.position, offset: self.offset }
    }

    pub(super) fn time_ms(&self) -> u64 {
        self.header.time_ms
    }

    pub(super) fn bytes(&self) -> usize {
        self.header.total()
    }
}

/// A place in a segment file, and a window of its bytes.
pub(super) struct Scanner {
    file: Box<dyn File>,
    marker: u32,
    /// Offset and expected position of the next record.
    next: Mark,
    /// Bytes from here on do not count.
    limit: u64,
    /// Positions from here on belong to the next segment.
    end: u64,
    /// Bytes of the file from `window_at` on; of `window`, only `filled` are valid.
    window: Vec<u8>,
    window_at: u64,
    filled: usize,
}

impl Scanner {
    /// Starts at `start`, which must be the first record of a segment or one found by an earlier scan.
    pub(super) fn new(file: Box<dyn File>, marker: u32, start: Mark) -> Self {
        Self { file, marker, next: start, limit: 0, end: 0, window: Vec::new(), window_at: 0, filled: 0 }
    }

    /// Sets how far the file counts: bytes before `limit`, positions before `end`.
    pub(super) fn bound(&mut self, limit: u64, end: u64) {
        (self.limit, self.end) = (limit, end);
    }

    pub(super) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Looks at what comes next and moves past it.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        // A file that failed may hold anything after its last durable record; the base of the newer segment says where that is.
        if self.next.position >= self.end || self.next.offset >= self.limit {
            return Ok(Step::End);
        }
        let from = self.next.offset;
        if let Some(header) = self.record_at(from)? {
            if header.position >= self.end {
                return Ok(Step::End);
            }
            self.next = Mark { position: header.position + 1, offset: from + header.total() as u64 };
            return Ok(Step::Record(Found { header, offset: from }));
        }
        let to = self.resync(from + 1)?;
        self.next.offset = to;
        Ok(Step::Damage { from, to })
    }

    /// Goes back to a record just found, so that the next step finds it again.
    pub(super) fn rewind(&mut self, found: Found) {
        self.next = found.mark();
    }

    /// Copies a record out of the window. Valid until the next step.
    pub(super) fn record(&self, found: Found) -> Record {
        found.header.to_record(self.buffered(found.offset))
    }

    /// Frees the memory of the window.
    pub(super) fn release(&mut self) {
        (self.window, self.filled) = (Vec::new(), 0);
    }

    #[cfg(test)]
    pub(super) fn window_bytes(&self) -> usize {
        self.window.capacity()
    }

    /// The first offset from `at` on that holds a record, or the limit.
    fn resync(&mut self, mut at: u64) -> io::Result<u64> {
        let marker = self.marker.to_le_bytes();
        loop {
            let bytes = self.bytes(at, HEADER_BYTES)?;
            if bytes.len() < HEADER_BYTES {
                return Ok(self.limit);
            }
            match bytes.windows(marker.len()).position(|window| window == marker) {
                None => at += (bytes.len() - marker.len() + 1) as u64,
                Some(skipped) => {
                    at += skipped as u64;
                    if self.record_at(at)?.is_some() {
                        return Ok(at);
                    }
                    at += 1;
                }
            }
        }
    }

    /// The header of the whole record at `at`, if there is one; the window then holds all of it.
    fn record_at(&mut self, at: u64) -> io::Result<Option<Header>> {
        let (marker, expected) = (self.marker, self.next.position);
        let Some(header) = Header::read(self.bytes(at, HEADER_BYTES)?) else { return Ok(None) };
        if header.marker != marker
            || header.position < expected
            || !header.is_plausible(self.limit.saturating_sub(at))
        {
            return Ok(None);
        }
        Ok(header.verifies(self.bytes(at, header.total())?).then_some(header))
    }

    /// At least `want` bytes from offset `at`, fewer only at the limit.
    fn bytes(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let available = self.limit.saturating_sub(at);
        let want = available.min(want as u64) as usize;
        if self.buffered(at).len() < want {
            let length = available.min(CHUNK_BYTES.max(want as u64)) as usize;
            if self.window.len() < length {
                self.window.resize(length, 0);
            }
            self.filled = 0;
            let window = self.window.get_mut(..length).unwrap_or_default();
            self.filled = fs::read_full_at(&*self.file, window, at)?;
            self.window_at = at;
        }
        Ok(self.buffered(at))
    }

    /// What the window holds from offset `at` on, up to the limit.
    fn buffered(&self, at: u64) -> &[u8] {
        let filled = self.window.get(..self.filled).unwrap_or_default();
        let skipped = at.checked_sub(self.window_at).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| filled.get(skipped..)).unwrap_or_default()
    }
}

/// Finds the marker of a segment whose header is damaged, from its first whole record: one whose position fits the offset it is
/// found at, and whose checksum is right.
pub(super) fn find_marker(file: &dyn File, limit: u64, start: Mark) -> io::Result<Option<u32>> {
    let mut window = vec![0; CHUNK_BYTES as usize];
    let mut at = start.offset;
    while at < limit {
        let filled = fs::read_full_at(file, &mut window, at)?;
        let bytes = window.get(..filled).unwrap_or_default();
        for (skipped, candidate) in bytes.windows(HEADER_BYTES).enumerate() {
            let offset = at + skipped as u64;
            // At most so many records can precede this one.
            let most = (offset - start.offset) / HEADER_BYTES as u64;
            let Some(header) = Header::read(candidate).filter(|header| {
                header.position.checked_sub(start.position).is_some_and(|before| before <= most)
                    && header.is_plausible(limit - offset)
            }) else {
                continue;
            };
            let mut whole = vec![0; header.total()];
            let read = fs::read_full_at(file, &mut whole, offset)?;
            if read == whole.len() && header.verifies(&whole) {
                return Ok(Some(header.marker));
            }
        }
        // The last bytes again: a header may begin in them.
        match filled.checked_sub(HEADER_BYTES - 1) {
            Some(tried) if tried > 0 => at += tried as u64,
            _ => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::NewRecord;
    use super::super::fs::Filesystem;
    use super::super::record::{encode, seal};
    use super::super::sim::SimFilesystem;
    use super::*;

    const START: Mark = Mark { position: 10, offset: 40 };
    const MARKER: u32 = 0x5EED_5EED;

    /// Forty bytes of header and these records, or bytes in their place.
    fn file(parts: &[Result<u64, Vec<u8>>]) -> (Box<dyn File>, u64) {
        let mut bytes = vec![0; 40];
        for part in parts {
            match part {
                Ok(position) => encode(
                    &mut bytes,
                    *position,
                    &NewRecord { kind: 0, time_ms: 0, key: "", value: &[7; 20] },
                ),
                Err(other) => bytes.extend_from_slice(other),
            }
        }
        let mut at = 40;
        for part in parts {
            let length = part.as_ref().map_or_else(Vec::len, |_| 52);
            if part.is_ok() {
                seal(&mut bytes[at..at + length], MARKER, |_, _| ());
            }
            at += length;
        }
        let file = SimFilesystem::new(1).create(Path::new("x")).unwrap();
        fs::write_all_at(&*file, &bytes, 0).unwrap();
        (file, bytes.len() as u64)
    }

    /// Records as their position, damage as its region.
    fn walk(parts: &[Result<u64, Vec<u8>>], end: u64) -> Vec<Result<u64, (u64, u64)>> {
        let (file, size) = file(parts);
        let mut scanner = Scanner::new(file, MARKER, START);
        scanner.bound(size, end);
        let mut steps = Vec::new();
        loop {
            match scanner.step().unwrap() {
                Step::Record(found) => steps.push(Ok(found.mark().position)),
                Step::Damage { from, to } => steps.push(Err((from, to))),
                Step::End => return steps,
            }
        }
    }

    #[test]
    fn records_follow_each_other() {
        assert_eq!(walk(&[Ok(10), Ok(11), Ok(12)], u64::MAX), [Ok(10), Ok(11), Ok(12)]);
        assert_eq!(walk(&[], u64::MAX), []);
    }

    #[test]
    fn memory_that_was_freed_is_allocated_again() {
        let (file, size) = file(&[Ok(10), Ok(11)]);
        let mut scanner = Scanner::new(file, MARKER, START);
        scanner.bound(size, u64::MAX);
        assert!(matches!(scanner.step().unwrap(), Step::Record(_)));
        assert!(scanner.window_bytes() > 0);
        scanner.release();
        assert_eq!(scanner.window_bytes(), 0);
        assert!(matches!(scanner.step().unwrap(), Step::Record(_)));
    }

    #[test]
    fn damage_ends_where_a_record_begins() {
        assert_eq!(walk(&[Err(vec![1; 5]), Ok(10)], u64::MAX), [Err((40, 45)), Ok(10)]);
        assert_eq!(walk(&[Ok(10), Err(vec![0; 99]), Ok(12)], u64::MAX), [Ok(10), Err((92, 191)), Ok(12)]);
        assert_eq!(walk(&[Ok(10), Err(vec![0; 99])], u64::MAX), [Ok(10), Err((92, 191))]);
        // Longer than a chunk, and full of markers.
        let noise: Vec<u8> = MARKER.to_le_bytes().into_iter().cycle().take(600_001).collect();
        assert_eq!(walk(&[Err(noise), Ok(11)], u64::MAX), [Err((40, 600_041)), Ok(11)]);
    }

    #[test]
    fn a_record_before_its_turn_is_damage_and_after_it_a_gap() {
        assert_eq!(walk(&[Ok(10), Ok(10), Ok(11)], u64::MAX), [Ok(10), Err((92, 144)), Ok(11)]);
        assert_eq!(walk(&[Ok(9), Ok(10)], u64::MAX), [Err((40, 92)), Ok(10)]);
        assert_eq!(walk(&[Ok(10), Ok(15)], u64::MAX), [Ok(10), Ok(15)]);
    }

    #[test]
    fn what_a_newer_segment_holds_does_not_count() {
        assert_eq!(walk(&[Ok(10), Ok(11), Ok(12)], 11), [Ok(10)]);
        assert_eq!(walk(&[Ok(10), Err(vec![1; 99])], 11), [Ok(10)], "not even as damage");
        assert_eq!(walk(&[Ok(10), Err(vec![1; 99]), Ok(12)], 12), [Ok(10), Err((92, 191))]);
    }

    #[test]
    fn a_file_shorter_than_its_limit_is_damaged_to_the_limit() {
        let (file, size) = file(&[Ok(10)]);
        let mut scanner = Scanner::new(file, MARKER, START);
        scanner.bound(size + 1_000, u64::MAX);
        assert!(matches!(scanner.step().unwrap(), Step::Record(_)));
        assert!(matches!(scanner.step().unwrap(), Step::Damage { to, .. } if to == size + 1_000));
        assert!(matches!(scanner.step().unwrap(), Step::End));
    }

    #[test]
    fn the_marker_is_found_in_the_first_whole_record() {
        let found = |parts: &[Result<u64, Vec<u8>>]| {
            let (file, size) = file(parts);
            find_marker(&*file, size, START).unwrap()
        };
        assert_eq!(found(&[Ok(10), Ok(11)]), Some(MARKER));
        assert_eq!(found(&[Err(vec![3; 300_000]), Ok(12)]), Some(MARKER), "beyond one chunk");
        assert_eq!(found(&[Err(vec![3; 64]), Ok(13)]), None, "so many records cannot be missing");
        assert_eq!(found(&[Ok(9)]), None);

        let (file, size) = file(&[Ok(10), Ok(11)]);
        fs::write_all_at(&*file, &[0xFF; 42], 0).unwrap();
        assert_eq!(
            find_marker(&*file, size, START).unwrap(),
            Some(MARKER),
            "a damaged marker is not believed"
        );
        assert_eq!(found(&[]), None);
    }
}
