//! How far one publisher's records are durable, and waiting for it.
//!
//! Owns what a publisher shares with its records in flight. Knows neither the queue nor where records become durable. A session
//! releases an answer when the watermark has reached the event of the answered message (P1).

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::watermark::Watermark;

/// Tells how far a publisher's records are durable. Valid after the publisher is gone.
#[derive(Clone, Debug)]
pub struct DurableWatermark(Arc<Unacknowledged>);

impl DurableWatermark {
    pub(crate) fn new(unacknowledged: Arc<Unacknowledged>) -> Self {
        Self(unacknowledged)
    }

    /// The greatest sequence number up to which every record is durable; 0 before the first.
    pub fn reached(&self) -> u64 {
        self.0.durable.load(Ordering::Acquire)
    }

    /// Waits until every record up to this sequence number is durable. Cancel-safe. Only one task can wait for the records of a
    /// publisher: a second one takes the wake-up away from the first.
    pub async fn wait(&self, sequence: u64) {
        poll_fn(|context| self.poll_reached(context, sequence)).await;
    }

    /// Like [`wait`](Self::wait), to be polled from a future of the caller's own.
    pub fn poll_reached(&self, context: &Context<'_>, sequence: u64) -> Poll<()> {
        if self.reached() >= sequence {
            return Poll::Ready(());
        }
        self.0.waker.register(context.waker());
        // The record may have become durable between the look and the registration.
        if self.reached() >= sequence { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A publisher's records that are not durable yet.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    bytes: AtomicU64,
    /// Records of different partitions, and those that become dead letters, may overtake one another.
    watermark: Mutex<Watermark>,
    /// The watermark again, to be read without the lock.
    durable: AtomicU64,
    waker: AtomicWaker,
}

impl Unacknowledged {
    /// What the records cost together, see [`Record::cost`](crate::Record::cost).
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds the cost of a record, before it can become durable.
    pub(crate) fn add(&self, cost: u32) {
        self.bytes.fetch_add(u64::from(cost), Ordering::Relaxed);
    }

    /// Takes the cost of a record back that was not accepted.
    pub(crate) fn remove(&self, cost: u32) {
        self.bytes.fetch_sub(u64::from(cost), Ordering::Relaxed);
    }

    /// The record of this sequence number (1, 2, 3, …) is durable. Wakes who waits when the watermark rises.
    pub(crate) fn acknowledge(&self, sequence: u64, cost: u32) {
        self.remove(cost);
        let mut watermark = self.watermark.lock().unwrap_or_else(PoisonError::into_inner);
        if !watermark.complete(sequence.saturating_sub(1)..sequence) {
            return;
        }
        self.durable.store(watermark.reached(), Ordering::Release);
        drop(watermark);
        self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_begin_at_one_and_the_cost_is_given_back_at_once() {
        let unacknowledged = Arc::new(Unacknowledged::default());
        let watermark = DurableWatermark::new(Arc::clone(&unacknowledged));
        for _ in 0..3 {
            unacknowledged.add(10);
        }
        unacknowledged.acknowledge(2, 10);
        assert_eq!((watermark.reached(), unacknowledged.bytes()), (0, 20));
        unacknowledged.acknowledge(1, 10);
        assert_eq!((watermark.reached(), unacknowledged.bytes()), (2, 10));
        unacknowledged.acknowledge(3, 10);
        assert_eq!((watermark.reached(), unacknowledged.bytes()), (3, 0));
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_last_hole_is_filled() {
        let unacknowledged = Arc::new(Unacknowledged::default());
        let watermark = DurableWatermark::new(Arc::clone(&unacknowledged));
        unacknowledged.add(2);
        let wait = watermark.wait(2);
        let acknowledge = async {
            unacknowledged.acknowledge(2, 1);
            tokio::task::yield_now().await;
            assert_eq!(watermark.reached(), 0);
            unacknowledged.acknowledge(1, 1);
        };
        futures_util::future::join(wait, acknowledge).await;
        assert_eq!(watermark.reached(), 2);
    }
}
