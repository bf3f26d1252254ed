//! The bounded queue in front of a writer: limited by records and by bytes until each record is durable.
//!
//! Owns the limits, the line of those who wait for room, and the hand-over to the writer's thread. Stores nothing. A record holds
//! its permit from the moment it is accepted until it is durable, so the limits bound everything that the bus keeps in memory,
//! not only what waits here (P7).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counters::Counters;
use crate::durable::Unacknowledged;
use crate::record::Record;
use crate::watermark::Watermark;

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// The most records that are accepted and not yet durable.
    pub records: usize,
    /// The most bytes of such records: keys, values and a fixed overhead each. At most 4 GiB.
    pub bytes: u32,
}

/// A record on its way to storage.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) record: Record,
    /// Position in the order of acceptance over all publishers, or in the spool; restores that order after a failed send.
    pub(crate) sequence: u64,
    pub(crate) accepted_at: Instant,
    pub(crate) receipt: Receipt,
}

/// Who learns that a record is durable.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// Its publisher; the permit is free from then on.
    Publisher { unacknowledged: Arc<Unacknowledged>, sequence: u64, _permit: Permit },
    /// The spool it was read from: it is durable already, and need not be sent again from then on.
    Spool(Arc<Mutex<Watermark>>),
}

impl InFlight {
    /// Acknowledges the record: it is durable, or Kafka has it.
    pub(crate) fn acknowledge(self) {
        match self.receipt {
            Receipt::Publisher { unacknowledged, sequence, .. } => {
                unacknowledged.acknowledge(sequence, self.record.cost());
            }
            Receipt::Spool(sent) => {
                let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                sent.complete(self.sequence..self.sequence + 1);
            }
        }
    }

    /// Whether the spool has it already.
    pub(crate) fn is_spooled(&self) -> bool {
        matches!(self.receipt, Receipt::Spool(_))
    }
}

/// Room for one record in the queue; dropping it frees the room.
#[derive(Debug)]
pub(crate) struct Permit {
    _record: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Permit {
    fn covers(&self, cost: u32) -> bool {
        self.bytes.num_permits() >= cost as usize
    }
}

/// The queue has no room; the record comes back.
pub(crate) struct Full(pub(crate) Record);

/// What the writer's thread finds in the queue.
pub(crate) enum Taken {
    /// Records in the order of acceptance; none if the wait ended first.
    Batch(Vec<InFlight>),
    /// The queue is closed and empty.
    Closed,
}

#[derive(Debug)]
struct Waiting {
    records: VecDeque<InFlight>,
    next_sequence: u64,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    counters: Counters,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits, counters: Counters) -> Self {
        Self {
            limits,
            records: Arc::new(Semaphore::new(limits.records)),
            bytes: Arc::new(Semaphore::new(limits.bytes as usize)),
            waiting: Mutex::new(Waiting { records: VecDeque::new(), next_sequence: 0, closed: false }),
            arrival: Condvar::new(),
            counters,
        }
    }

    pub(crate) fn limits(&self) -> QueueLimits {
        self.limits
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Accepts a record if there is room: the room its publisher has waited for, or any.
    pub(crate) fn try_push(
        &self,
        record: Record,
        reserved: Option<Permit>,
        unacknowledged: &Arc<Unacknowledged>,
        sequence: u64,
    ) -> Result<(), Full> {
        let cost = self.payable(record.cost());
        let permit = reserved.filter(|permit| permit.covers(cost)).or_else(|| self.try_reserve(cost));
        let Some(permit) = permit else {
            return Err(Full(record));
        };
        let receipt =
            Receipt::Publisher { unacknowledged: Arc::clone(unacknowledged), sequence, _permit: permit };
        self.counters.accepted.inc();
        let mut waiting = self.lock();
        let sequence = waiting.next_sequence;
        waiting.next_sequence += 1;
        let was_empty = waiting.records.is_empty();
        waiting.records.push_back(InFlight { record, sequence, accepted_at: Instant::now(), receipt });
        drop(waiting);
        if was_empty {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Waits in line for room. Cancel-safe.
    pub(crate) async fn reserve(&self, cost: u32) -> Permit {
        let started = Instant::now();
        let cost = self.payable(cost);
        loop {
            // The semaphores are never closed, so acquiring cannot fail; the loop only avoids a panic.
            let Ok(record) = Arc::clone(&self.records).acquire_owned().await else { continue };
            let Ok(bytes) = Arc::clone(&self.bytes).acquire_many_owned(cost).await else { continue };
            self.counters.wait_seconds.observe(started.elapsed().as_secs_f64());
            return Permit { _record: record, bytes };
        }
    }

    fn try_reserve(&self, cost: u32) -> Option<Permit> {
        let record = Arc::clone(&self.records).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(cost).ok()?;
        Some(Permit { _record: record, bytes })
    }

    /// A record above the whole limit still gets through, alone.
    fn payable(&self, cost: u32) -> u32 {
        cost.min(self.limits.bytes)
    }

    /// Takes up to `most` records, waiting at most `patience` for the first.
    pub(crate) fn take(&self, most: usize, patience: Duration) -> Taken {
        let mut waiting = self.lock();
        if waiting.records.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            waiting = self
                .arrival
                .wait_timeout_while(waiting, patience, |state| state.records.is_empty() && !state.closed)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if waiting.records.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            // Nothing came for a while: free the memory that a burst has left.
            waiting.records = VecDeque::new();
        }
        let count = waiting.records.len().min(most);
        Taken::Batch(waiting.records.drain(..count).collect())
    }

    /// Says that no more records come: the writer takes what is left and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// How many records are accepted and not yet durable, and their bytes.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (
            self.limits.records.saturating_sub(self.records.available_permits()),
            (self.limits.bytes as usize).saturating_sub(self.bytes.available_permits()),
        )
    }

    /// How full it is, 0 to 1.
    pub(crate) fn fill(&self) -> f64 {
        let (records, bytes) = self.in_flight();
        (records as f64 / self.limits.records as f64).max(bytes as f64 / f64::from(self.limits.bytes))
    }

    /// When the oldest record that the writer has not taken was accepted.
    pub(crate) fn oldest_waiting(&self) -> Option<Instant> {
        self.lock().records.front().map(|in_flight| in_flight.accepted_at)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes batches from a queue and lets records gather between two of them: a batch costs a writer nearly the same for one record
/// as for forty. A record that comes after a pause does not wait.
pub(crate) struct Batches {
    queue: Arc<Queue>,
    linger: Duration,
    not_before: Instant,
}

impl Batches {
    /// Batches that begin at least `linger` apart, unless one was full.
    pub(crate) fn new(queue: Arc<Queue>, linger: Duration) -> Self {
        Self { queue, linger, not_before: Instant::now() }
    }

    /// Takes up to `most` records, waiting at most `patience` for the first, and before that until it is time for a batch.
    pub(crate) fn take(&mut self, most: usize, patience: Duration) -> Taken {
        std::thread::sleep(self.not_before.saturating_duration_since(Instant::now()));
        let taken = self.queue.take(most, patience);
        if let Taken::Batch(batch) = &taken
            && (1..most).contains(&batch.len())
        {
            self.not_before = Instant::now() + self.linger;
        }
        taken
    }
}
