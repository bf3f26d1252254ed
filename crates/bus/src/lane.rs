//! A lane: one publisher's ordered way onto the bus, and the news of what is durable.
//!
//! Owns the count of what was published and the prefix of it that is durable. Does not own the queue (`queue.rs`) and
//! does not know where events end up. A session has one lane, and releases an answer when the lane says that
//! everything up to the answered message is durable (P1).

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::queue::{Full, Queue};
use crate::record::Record;

/// One publisher's ordered way onto the bus. Not cloneable: the order of a lane is the order of one owner's calls.
#[derive(Debug)]
pub struct Lane {
    queue: Arc<Queue>,
    progress: Arc<Progress>,
    published: u64,
}

impl Lane {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, progress: Arc::new(Progress::default()), published: 0 }
    }

    /// Puts a record on the bus if there is room right now, and gives its ordinal in this lane (1, 2, 3, …).
    ///
    /// # Errors
    /// Gives the record back when the bus is full; [`Lane::room`] waits for a place.
    pub fn try_publish(&mut self, record: Record) -> Result<u64, Record> {
        let ordinal = self.published + 1;
        // Before it can be durable.
        let cost = u64::from(record.cost());
        self.progress.under_way.fetch_add(cost, Ordering::Relaxed);
        match self.queue.try_push(record, &self.progress, ordinal) {
            Ok(()) => {
                self.published = ordinal;
                Ok(ordinal)
            }
            Err(Full(record)) => {
                self.progress.under_way.fetch_sub(cost, Ordering::Relaxed);
                Err(record)
            }
        }
    }

    /// Puts a record on the bus, waiting for a place. Cancelling the wait loses the record: use it where nothing else
    /// is waited for, and [`Lane::room`] with [`Lane::try_publish`] in a select.
    pub async fn publish(&mut self, record: Record) -> u64 {
        let mut record = record;
        loop {
            match self.try_publish(record) {
                Ok(ordinal) => return ordinal,
                Err(returned) => {
                    self.room(returned.cost()).await;
                    record = returned;
                }
            }
        }
    }

    /// Waits, in line with every other waiting lane, until a record of this cost has room. Cancel-safe: a cancelled
    /// wait gives its place back. The room is kept for this lane's next [`Lane::try_publish`].
    pub async fn room(&mut self, cost: u32) {
        let place = self.queue.reserve(cost).await;
        self.progress.keep(place);
    }

    /// How full the bus is, 0 to 1: by records or by bytes, whichever is more.
    pub fn fill(&self) -> f64 {
        self.queue.fill()
    }

    /// What its records that are not durable yet cost, together.
    pub fn under_way(&self) -> u64 {
        self.progress.under_way.load(Ordering::Relaxed)
    }

    /// How many records this lane has published.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// A way to wait for durability while the lane itself is in use. One waiter for each lane.
    pub fn durability(&self) -> Durability {
        Durability(Arc::clone(&self.progress))
    }
}

/// Tells how far a lane's records are durable.
#[derive(Clone, Debug)]
pub struct Durability(Arc<Progress>);

impl Durability {
    /// The greatest ordinal up to which every record is durable.
    pub fn reached(&self) -> u64 {
        self.0.durable.load(Ordering::Acquire)
    }

    /// Waits until every record up to this ordinal is durable. Cancel-safe.
    pub async fn wait(&self, ordinal: u64) {
        poll_fn(|context| self.poll_reached(context, ordinal)).await;
    }

    /// The same for a future of the caller's own.
    pub fn poll_reached(&self, context: &Context<'_>, ordinal: u64) -> Poll<()> {
        if self.reached() >= ordinal {
            return Poll::Ready(());
        }
        self.0.waker.register(context.waker());
        // The acknowledgement may have come between the look and the registration.
        if self.reached() >= ordinal { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What a lane shares with its records in flight.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    durable: AtomicU64,
    under_way: AtomicU64,
    waker: AtomicWaker,
    /// Ordinals that became durable before an earlier one did: acknowledgements of different partitions, or of a record
    /// set aside, may overtake. Bounded by what the lane has in flight.
    ahead: Mutex<Vec<u64>>,
    /// A place waited for and not used yet.
    place: Mutex<Option<crate::queue::Place>>,
}

impl Progress {
    /// Notes that one record of this cost is durable, and wakes the lane when the durable prefix grew.
    pub(crate) fn mark_durable(&self, ordinal: u64, cost: u32) {
        self.under_way.fetch_sub(u64::from(cost), Ordering::Relaxed);
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut durable = self.durable.load(Ordering::Relaxed);
        if ordinal != durable + 1 {
            ahead.push(ordinal);
            return;
        }
        durable = ordinal;
        while let Some(next) = ahead.iter().position(|waiting| *waiting == durable + 1) {
            ahead.swap_remove(next);
            durable += 1;
        }
        self.durable.store(durable, Ordering::Release);
        drop(ahead);
        self.waker.wake();
    }

    fn keep(&self, place: crate::queue::Place) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// Takes the place that was waited for, when it is large enough.
    pub(crate) fn take_place(&self, cost: u32) -> Option<crate::queue::Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|place| place.cost() >= cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_durable_prefix_waits_for_the_slowest_record() {
        let progress = Progress { under_way: AtomicU64::new(4), ..Progress::default() };
        progress.mark_durable(2, 1);
        progress.mark_durable(4, 1);
        assert_eq!(progress.durable.load(Ordering::Acquire), 0);
        progress.mark_durable(1, 1);
        assert_eq!(progress.durable.load(Ordering::Acquire), 2);
        progress.mark_durable(3, 1);
        assert_eq!(progress.durable.load(Ordering::Acquire), 4);
        assert_eq!(progress.under_way.load(Ordering::Relaxed), 0);
        assert!(progress.ahead.lock().unwrap().is_empty());
    }
}
