//! Reads by position: from segment to segment up to the durable end, with a gap in place of whatever is missing.

use std::io;
use std::sync::Arc;

use super::damaged::copy_damage;
use super::extent::{Place, Shared};
use super::scan::{Scanner, Step};
use super::segment::Segment;
use super::{GapReason, Item, LogError};

/// A place in the log. Made by [`LogView::reader`](super::LogView::reader); independent of all other readers.
///
/// It keeps the file of its segment open, so it can finish a segment that is deleted meanwhile.
pub struct LogReader {
    shared: Arc<Shared>,
    position: u64,
    open: Option<Open>,
}

/// The segment that holds the reader's position.
struct Open {
    segment: Arc<Segment>,
    scanner: Scanner,
    end: u64,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>, position: u64) -> Self {
        Self { shared, position, open: None }
    }

    /// The position the next item is about.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Reads up to `max_records` items, and stops as soon as the records amount to `max_bytes`: it may exceed that by one record, and
    /// always returns at least one if there is one. An empty result means the durable end. Blocks on the disk, never on the writer.
    ///
    /// Every position from the reader's start to the end is covered exactly once and in order, by its record or by a gap.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk cannot be read here. The reader stays where it is; what it found before is returned first. Trying
    /// again may help.
    pub fn read(&mut self, max_records: usize, max_bytes: usize) -> Result<Vec<Item>, LogError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        while items.len() < max_records && bytes < max_bytes.max(1) {
            match self.advance(&mut items) {
                Ok(Some(read)) => bytes += read,
                Ok(None) => {
                    // A waiting reader should cost nothing.
                    if let Some(open) = &mut self.open {
                        open.scanner.release();
                    }
                    break;
                }
                // The next call returns it, if it persists.
                Err(_) if !items.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(items)
    }

    /// Moves one step. Returns how many bytes of records it added, or `None` at the durable end.
    fn advance(&mut self, items: &mut Vec<Item>) -> Result<Option<usize>, LogError> {
        let Some(open) = &mut self.open else { return self.enter(items) };
        let failed = LogError::io("read", &open.segment.path);
        match open.scanner.step().map_err(failed)? {
            Step::Record(found) => {
                let mark = found.mark();
                open.segment.note(mark);
                if mark.position > self.position {
                    open.scanner.rewind(found);
                    self.gap(items, mark.position, GapReason::Damaged);
                    return Ok(Some(0));
                }
                if mark.position < self.position {
                    // On the way from the nearest known place to the position asked for.
                    return Ok(Some(0));
                }
                items.push(Item::Record(open.scanner.record(found)));
                self.position += 1;
                Ok(Some(found.bytes()))
            }
            Step::Damage { from, to } => {
                let base = open.segment.base;
                match copy_damage(
                    &*self.shared.filesystem,
                    &self.shared.dir,
                    base,
                    open.scanner.file(),
                    from..to,
                ) {
                    Ok(copy) => {
                        tracing::warn!(segment = %open.segment.path.display(), offset = from, bytes = to - from,
                            copy = ?copy, "damaged bytes in the local log");
                    }
                    Err(error) => {
                        tracing::warn!(segment = %open.segment.path.display(), offset = from, bytes = to - from,
                            %error, "damaged bytes in the local log, and they could not be copied");
                    }
                }
                Ok(Some(0))
            }
            Step::End => {
                let end = open.end;
                if self.position < end {
                    self.gap(items, end, GapReason::Damaged);
                }
                self.enter(items)
            }
        }
    }

    /// Opens the segment that holds the position, or learns how far the open one has grown.
    fn enter(&mut self, items: &mut Vec<Item>) -> Result<Option<usize>, LogError> {
        let (segment, bytes, end) = match self.shared.locate(self.position) {
            Place::Behind => return Ok(None),
            Place::Before(oldest) => {
                self.gap(items, oldest, GapReason::Retained);
                return Ok(Some(0));
            }
            Place::In { segment, bytes, end } => (segment, bytes, end),
        };
        if let Some(open) = self.open.as_mut().filter(|open| Arc::ptr_eq(&open.segment, &segment)) {
            open.scanner.bound(bytes, end);
            open.end = end;
            return Ok(Some(0));
        }
        self.open = None;
        let file = match self.shared.filesystem.open(&segment.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Deleted by the writer a moment ago (then it is no longer listed), or by somebody else.
                if matches!(self.shared.locate(self.position), Place::In { segment: listed, .. }
                    if Arc::ptr_eq(&listed, &segment))
                {
                    tracing::warn!(segment = %segment.path.display(), "a segment of the local log is missing");
                    self.gap(items, end, GapReason::Damaged);
                }
                return Ok(Some(0));
            }
            Err(error) => return Err(LogError::io("open", &segment.path)(error)),
        };
        let mut scanner = Scanner::new(file, segment.marker, segment.nearest(self.position));
        scanner.bound(bytes, end);
        self.open = Some(Open { segment, scanner, end });
        Ok(Some(0))
    }

    /// Reports the positions up to `to` as missing and moves there.
    fn gap(&mut self, items: &mut Vec<Item>, to: u64, reason: GapReason) {
        let from = std::mem::replace(&mut self.position, to);
        match items.last_mut() {
            Some(Item::Gap { to: end, reason: same, .. }) if *end == from && *same == reason => *end = to,
            _ => items.push(Item::Gap { from, to, reason }),
        }
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("dir", &self.shared.dir)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimFilesystem;
    use super::super::{Log, LogOptions, NewRecord};
    use super::*;

    #[test]
    fn a_waiting_reader_holds_no_memory() {
        let (mut log, _) = Log::open_on(LogOptions::new("log"), Arc::new(SimFilesystem::new(1))).unwrap();
        let append = |log: &mut Log| {
            log.append(&NewRecord { kind: 0, time_ms: 0, key: "", value: &[0; 100] }).unwrap();
            log.commit().unwrap()
        };
        append(&mut log);
        let mut reader = log.view().reader(0);
        let held = |reader: &LogReader| reader.open.as_ref().map(|open| open.scanner.window_bytes());
        assert_eq!(reader.read(1, 1).unwrap().len(), 1);
        assert!(held(&reader) > Some(0));
        assert_eq!((reader.read(1, 1).unwrap().len(), held(&reader)), (0, Some(0)));
        append(&mut log);
        assert_eq!(
            reader.read(9, 999).unwrap().len(),
            1,
            "it asked for more, and so learned that it is at the end"
        );
        assert_eq!(held(&reader), Some(0));
    }
}
