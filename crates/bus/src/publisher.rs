//! A publisher: one owner's ordered way onto a bus or into a journal.
//!
//! Owns the numbering of what it publishes, and the permit it has waited for. Owns neither the queue (`queue.rs`) nor the news of
//! what is durable (`durable.rs`).

use std::sync::Arc;

use crate::durable::{DurableWatermark, Unacknowledged};
use crate::queue::{Full, Permit, Queue};
use crate::record::Record;

/// Publishes records in the order of its calls. Not cloneable: its order is the order of one owner's calls.
#[derive(Debug)]
pub struct Publisher {
    queue: Arc<Queue>,
    unacknowledged: Arc<Unacknowledged>,
    published: u64,
    /// Waited for, and not used yet.
    reserved: Option<Permit>,
}

impl Publisher {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, unacknowledged: Arc::default(), published: 0, reserved: None }
    }

    /// Publishes a record if the queue has room for it now. Returns its sequence number in this publisher (1, 2, 3, …).
    ///
    /// # Errors
    /// Returns the record when the queue is full; [`reserve`](Self::reserve) waits for room.
    pub fn try_publish(&mut self, record: Record) -> Result<u64, Record> {
        let (sequence, cost) = (self.published + 1, record.cost());
        self.unacknowledged.add(cost);
        match self.queue.try_push(record, self.reserved.take(), &self.unacknowledged, sequence) {
            Ok(()) => {
                self.published = sequence;
                Ok(sequence)
            }
            Err(Full(record)) => {
                self.unacknowledged.remove(cost);
                Err(record)
            }
        }
    }

    /// Publishes a record as soon as the queue has room for it. Cancelling the wait loses the record; where that matters, use
    /// [`reserve`](Self::reserve) and [`try_publish`](Self::try_publish).
    pub async fn publish(&mut self, record: Record) -> u64 {
        let mut record = record;
        loop {
            match self.try_publish(record) {
                Ok(sequence) => return sequence,
                Err(returned) => {
                    self.reserve(returned.cost()).await;
                    record = returned;
                }
            }
        }
    }

    /// Waits until the queue has room for a record of this cost, behind every publisher that began to wait earlier. The room is
    /// kept for the next [`try_publish`](Self::try_publish). Cancel-safe: a cancelled wait gives up its place in the line.
    pub async fn reserve(&mut self, cost: u32) {
        self.reserved = Some(self.queue.reserve(cost).await);
    }

    /// How full the queue is, 0 to 1: by records or by bytes, whichever is more.
    pub fn fill(&self) -> f64 {
        self.queue.fill()
    }

    /// What this publisher's records that are not durable yet cost together.
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.unacknowledged.bytes()
    }

    /// How many records this publisher has published: the sequence number of the last one.
    pub fn published(&self) -> u64 {
        self.published
    }

    /// How far its records are durable. May be waited for while the publisher itself is in use.
    pub fn watermark(&self) -> DurableWatermark {
        DurableWatermark::new(Arc::clone(&self.unacknowledged))
    }
}
