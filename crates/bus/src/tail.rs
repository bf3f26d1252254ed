//! Following a bus: the records that became durable, from a position in its log or from now on.
//!
//! Owns the two ways there are: the local log itself, or a live copy beside Kafka. A subscriber never slows the bus down: a log
//! reader reads files, and a live subscriber that falls behind loses records and learns how many.

use std::sync::Arc;

use ocpp_log::LogView;
use tokio::sync::broadcast;

use crate::record::Record;

/// How many records a live subscriber may fall behind before it loses some.
const LIVE_RECORDS: usize = 4096;

/// How a bus can be followed.
#[derive(Clone, Debug)]
pub enum Tail {
    /// From any position that the log still holds.
    Log(LogView),
    /// From now on.
    Live(Live),
}

impl Tail {
    pub(crate) fn live() -> Self {
        Self::Live(Live { sender: broadcast::channel(LIVE_RECORDS).0 })
    }

    /// Passes a durable record to the live subscribers; copies nothing if there are none.
    pub(crate) fn publish(&self, record: &Record) {
        if let Self::Live(live) = self
            && live.sender.receiver_count() > 0
        {
            // An error means that the last subscriber has just left.
            drop(live.sender.send(Arc::new(record.clone())));
        }
    }
}

/// A live copy of the records that became durable.
#[derive(Clone, Debug)]
pub struct Live {
    sender: broadcast::Sender<Arc<Record>>,
}

impl Live {
    /// Begins with the next record. A receiver that falls behind is told how many records it lost.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.sender.subscribe()
    }
}
