//! The windows: for each partition the records that were handed out, and the offset below which all are dealt with.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RecordPlace;

/// The records handed out, partition by partition.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub(super) open: AtomicUsize,
    pub(super) partitions: Mutex<HashMap<i32, Window>>,
}

#[derive(Debug)]
pub(super) struct Window {
    /// Receipts of an earlier assignment of the partition mean nothing to a later one.
    generation: u64,
    /// Offsets handed out, and whether they were dealt with.
    records: BTreeMap<i64, bool>,
    /// Everything below was dealt with.
    settled: i64,
    /// What the client was told last.
    stored: i64,
}

impl Window {
    pub(super) fn close(&mut self, offset: i64) {
        if let Some(done) = self.records.get_mut(&offset) {
            *done = true;
        }
        while let Some(first) = self.records.first_entry().filter(|first| *first.get()) {
            self.settled = first.key() + 1;
            first.remove();
        }
    }
}

impl Windows {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<i32, Window>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a record is handed out. Gives the generation for its receipt.
    pub(super) fn open(&self, place: RecordPlace, generation: u64) -> u64 {
        self.open.fetch_add(1, Ordering::AcqRel);
        let mut partitions = self.lock();
        let window = partitions.entry(place.partition).or_insert_with(|| Window {
            generation,
            records: BTreeMap::new(),
            settled: place.offset,
            stored: place.offset,
        });
        window.records.insert(place.offset, false);
        window.generation
    }

    pub(super) fn close(&self, place: RecordPlace, generation: u64) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(window) = self.lock().get_mut(&place.partition)
            && window.generation == generation
        {
            window.close(place.offset);
        }
    }

    /// How many records the widest window holds, dealt with or not.
    pub(super) fn widest(&self) -> usize {
        self.lock().values().map(|window| window.records.len()).max().unwrap_or(0)
    }

    /// The offsets that grew since the last call.
    pub(super) fn settled(&self) -> Vec<(i32, i64)> {
        let mut grown = Vec::new();
        for (partition, window) in self.lock().iter_mut() {
            if window.settled > window.stored {
                window.stored = window.settled;
                grown.push((*partition, window.settled));
            }
        }
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: i64) -> RecordPlace {
        RecordPlace { partition: 0, offset }
    }

    #[test]
    fn the_offset_waits_for_the_slowest_record() {
        let windows = Windows::default();
        let generation = windows.open(place(5), 1);
        for offset in [6, 8] {
            windows.open(place(offset), 1);
        }
        windows.close(place(6), generation);
        assert!(windows.settled().is_empty(), "5 is not dealt with");
        windows.close(place(5), generation);
        assert_eq!(windows.settled(), [(0, 7)]);
        assert!(windows.settled().is_empty(), "nothing new");
        windows.close(place(8), generation);
        assert_eq!(windows.settled(), [(0, 9)], "7 never was a record");
        assert_eq!(windows.open.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_receipt_of_an_earlier_assignment_moves_nothing() {
        let windows = Windows::default();
        let before = windows.open(place(5), 1);
        windows.lock().clear();
        let after = windows.open(place(5), 2);
        windows.close(place(5), before);
        assert!(windows.settled().is_empty());
        windows.close(place(5), after);
        assert_eq!(windows.settled(), [(0, 6)]);
    }
}
