//! The bounded queue in front of a pump: limited by records and by bytes, counted until a record is durable.
//!
//! Owns the limits, the waiting line in front of them, and the hand-over to the pump thread. Does not write anything
//! anywhere. A record holds its place from the moment it is accepted until it is durable, so the limits bound
//! everything the bus keeps in memory, not only what waits (P7).

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lane::Progress;
use crate::metrics::BusMetrics;
use crate::record::Record;
use crate::spool::Drained;

/// The limits of a bus.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Records accepted and not yet durable, at most.
    pub records: usize,
    /// Their bytes, at most (keys, values and a fixed overhead each). At most 4 GiB.
    pub bytes: u32,
}

/// A record on its way to storage.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) record: Record,
    /// Position in the order of acceptance over all lanes, or in the spool; restores that order after a failed send.
    pub(crate) sequence: u64,
    pub(crate) accepted_at: Instant,
    pub(crate) receipt: Receipt,
}

/// Who is told when a record is durable.
#[derive(Debug)]
pub(crate) enum Receipt {
    /// A lane; the record's place on the bus is free from then on.
    Lane { progress: Arc<Progress>, ordinal: u64, _place: Place },
    /// The spool, from which the record is drained: it is durable already, and need not be sent again from then on.
    Spool { drained: Arc<Drained> },
}

impl InFlight {
    /// Tells whom it concerns that the record is durable.
    pub(crate) fn durable(self) {
        match self.receipt {
            Receipt::Lane { progress, ordinal, .. } => progress.mark_durable(ordinal, self.record.cost()),
            Receipt::Spool { drained } => drained.mark(self.sequence),
        }
    }

    /// Whether the spool has it already.
    pub(crate) fn is_spooled(&self) -> bool {
        matches!(self.receipt, Receipt::Spool { .. })
    }
}

/// A place on the bus; dropping it gives it free.
#[derive(Debug)]
pub(crate) struct Place {
    _record: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Place {
    pub(crate) fn cost(&self) -> u32 {
        u32::try_from(self.bytes.num_permits()).unwrap_or(u32::MAX)
    }
}

/// The bus has no room; the record comes back.
pub(crate) struct Full(pub(crate) Record);

/// What the pump thread finds when it looks.
pub(crate) enum Taken {
    /// Records, in order of acceptance; possibly none when the wait ended first.
    Batch(Vec<InFlight>),
    /// The bus is closed and nothing is left.
    Closed,
}

#[derive(Debug)]
struct Waiting {
    records: VecDeque<InFlight>,
    next_sequence: u64,
    closed: bool,
}

/// The queue itself.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrival: Condvar,
    metrics: BusMetrics,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits, metrics: BusMetrics) -> Self {
        metrics.queue_capacity_records.set(i64::try_from(limits.records).unwrap_or(i64::MAX));
        metrics.queue_capacity_bytes.set(i64::from(limits.bytes));
        Self {
            limits,
            records: Arc::new(Semaphore::new(limits.records)),
            bytes: Arc::new(Semaphore::new(limits.bytes as usize)),
            waiting: Mutex::new(Waiting { records: VecDeque::new(), next_sequence: 0, closed: false }),
            arrival: Condvar::new(),
            metrics,
        }
    }

    pub(crate) fn limits(&self) -> QueueLimits {
        self.limits
    }

    pub(crate) fn metrics(&self) -> &BusMetrics {
        &self.metrics
    }

    /// Accepts a record if there is a place: the one its lane waited for, or a free one.
    pub(crate) fn try_push(
        &self,
        record: Record,
        progress: &Arc<Progress>,
        ordinal: u64,
    ) -> Result<(), Full> {
        let cost = self.payable(record.cost());
        let place = progress.take_place(cost).or_else(|| self.try_reserve(cost));
        let Some(place) = place else {
            return Err(Full(record));
        };
        self.metrics.accepted.inc();
        let mut waiting = self.lock();
        let sequence = waiting.next_sequence;
        waiting.next_sequence += 1;
        let was_empty = waiting.records.is_empty();
        waiting.records.push_back(InFlight {
            record,
            sequence,
            accepted_at: Instant::now(),
            receipt: Receipt::Lane { progress: Arc::clone(progress), ordinal, _place: place },
        });
        drop(waiting);
        if was_empty {
            self.arrival.notify_one();
        }
        Ok(())
    }

    /// Waits in line for a place. Cancel-safe.
    pub(crate) async fn reserve(&self, cost: u32) -> Place {
        let started = Instant::now();
        let cost = self.payable(cost);
        loop {
            // The semaphores are never closed, so an error cannot come; the loop only keeps this free of a panic.
            let Ok(record) = Arc::clone(&self.records).acquire_owned().await else { continue };
            let Ok(bytes) = Arc::clone(&self.bytes).acquire_many_owned(cost).await else { continue };
            self.metrics.wait_seconds.observe(started.elapsed().as_secs_f64());
            return Place { _record: record, bytes };
        }
    }

    fn try_reserve(&self, cost: u32) -> Option<Place> {
        let record = Arc::clone(&self.records).try_acquire_owned().ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(cost).ok()?;
        Some(Place { _record: record, bytes })
    }

    /// A record larger than the whole limit still gets through, alone.
    fn payable(&self, cost: u32) -> u32 {
        cost.min(self.limits.bytes)
    }

    /// Takes everything that waits, up to `most` records, waiting at most `patience` for the first.
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
            // Nothing came for a while: what a burst has left is given back.
            waiting.records = VecDeque::new();
        }
        let count = waiting.records.len().min(most);
        Taken::Batch(waiting.records.drain(..count).collect())
    }

    /// No more records come; the pump takes what is left and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrival.notify_all();
    }

    /// Whether no more records come.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Records accepted and not yet durable, and their bytes.
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

    /// When the oldest record that still waits for the pump was accepted.
    pub(crate) fn oldest_waiting(&self) -> Option<Instant> {
        self.lock().records.front().map(|in_flight| in_flight.accepted_at)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
