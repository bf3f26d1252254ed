//! What was handed out and is not acknowledged: for each partition the offset below which everything is.
//!
//! Owns the arithmetic of offsets. A partition's offsets have holes (deleted records, markers of transactions), so records are
//! counted in the order in which they were handed out, and the watermark over that count leads back to an offset.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RecordPlace;
use crate::watermark::Watermark;

/// The records handed out, partition by partition.
#[derive(Debug, Default)]
pub(super) struct Unacknowledged {
    open: AtomicUsize,
    partitions: Mutex<HashMap<i32, Partition>>,
}

/// A record as it was handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    partition: i32,
    /// A ticket of an earlier assignment of the partition means nothing to a later one.
    assignment: u64,
    /// The how manyth of its assignment it is, from 0 on.
    number: u64,
}

#[derive(Debug)]
struct Partition {
    assignment: u64,
    acknowledged: Watermark,
    /// The offsets of the records above the watermark, in the order in which they were handed out.
    offsets: VecDeque<i64>,
    /// Everything below was acknowledged.
    committable: i64,
    /// What the client was told last.
    stored: i64,
}

impl Partition {
    fn hand_out(&mut self, offset: i64) -> u64 {
        let number = self.acknowledged.reached() + self.offsets.len() as u64;
        self.offsets.push_back(offset);
        number
    }

    fn acknowledge(&mut self, number: u64) {
        let before = self.acknowledged.reached();
        self.acknowledged.complete(number..number + 1);
        let rise = usize::try_from(self.acknowledged.reached() - before).unwrap_or(usize::MAX);
        for offset in self.offsets.drain(..rise.min(self.offsets.len())) {
            self.committable = self.committable.max(offset + 1);
        }
    }
}

impl Unacknowledged {
    /// How many records are handed out and not acknowledged.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Notes that a record is handed out. `assignment` begins a new assignment if the partition has none.
    pub(super) fn hand_out(&self, place: RecordPlace, assignment: u64) -> Ticket {
        self.open.fetch_add(1, Ordering::AcqRel);
        let mut partitions = self.lock();
        let partition = partitions.entry(place.partition).or_insert_with(|| Partition {
            assignment,
            acknowledged: Watermark::default(),
            offsets: VecDeque::new(),
            committable: place.offset,
            stored: place.offset,
        });
        let number = partition.hand_out(place.offset);
        Ticket { partition: place.partition, assignment: partition.assignment, number }
    }

    pub(super) fn acknowledge(&self, ticket: Ticket) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(partition) = self.lock().get_mut(&ticket.partition)
            && partition.assignment == ticket.assignment
        {
            partition.acknowledge(ticket.number);
        }
    }

    /// Forgets a partition that was taken away: its tickets mean nothing any more.
    pub(super) fn revoke(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    /// The most records of one partition from the first that is not acknowledged on.
    pub(super) fn widest(&self) -> usize {
        self.lock().values().map(|partition| partition.offsets.len()).max().unwrap_or(0)
    }

    /// The partitions whose committable offset has grown since the last call, with that offset.
    pub(super) fn take_committable(&self) -> Vec<(i32, i64)> {
        let mut grown = Vec::new();
        for (id, partition) in self.lock().iter_mut() {
            if partition.committable > partition.stored {
                partition.stored = partition.committable;
                grown.push((*id, partition.committable));
            }
        }
        grown
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Partition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
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
        let unacknowledged = Unacknowledged::default();
        let [five, six, eight] = [5, 6, 8].map(|offset| unacknowledged.hand_out(place(offset), 1));
        assert_eq!((unacknowledged.open(), unacknowledged.widest()), (3, 3));
        unacknowledged.acknowledge(six);
        assert!(unacknowledged.take_committable().is_empty(), "5 is not acknowledged");
        assert_eq!((unacknowledged.open(), unacknowledged.widest()), (2, 3), "6 comes again after a crash");
        unacknowledged.acknowledge(five);
        assert_eq!(unacknowledged.take_committable(), [(0, 7)]);
        assert_eq!(unacknowledged.widest(), 1);
        assert!(unacknowledged.take_committable().is_empty(), "nothing new");
        unacknowledged.acknowledge(eight);
        assert_eq!(unacknowledged.take_committable(), [(0, 9)], "7 never was a record");
        assert_eq!((unacknowledged.open(), unacknowledged.widest()), (0, 0));
    }

    #[test]
    fn a_ticket_of_an_earlier_assignment_moves_nothing() {
        let unacknowledged = Unacknowledged::default();
        let before = unacknowledged.hand_out(place(5), 1);
        unacknowledged.revoke(0);
        let after = unacknowledged.hand_out(place(5), 2);
        unacknowledged.acknowledge(before);
        assert!(unacknowledged.take_committable().is_empty());
        unacknowledged.acknowledge(after);
        assert_eq!(unacknowledged.take_committable(), [(0, 6)]);
    }

    #[test]
    fn partitions_do_not_wait_for_one_another() {
        let unacknowledged = Unacknowledged::default();
        let _slow = unacknowledged.hand_out(place(5), 1);
        let quick = unacknowledged.hand_out(RecordPlace { partition: 1, offset: 70 }, 2);
        unacknowledged.acknowledge(quick);
        assert_eq!(unacknowledged.take_committable(), [(1, 71)]);
    }
}
