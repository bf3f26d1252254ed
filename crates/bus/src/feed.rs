//! Watching a bus: the records that became durable, live or from a position.
//!
//! Owns the two ways there are (the local log itself, or a live copy beside Kafka). A watcher can never slow the bus
//! down: a log reader reads files, and a live watcher that is too slow misses records and is told how many.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::record::Record;
use ocpp_log::LogView;

/// Records a live watcher may lag behind before it misses some.
const LIVE_RECORDS: usize = 4096;

/// How a bus can be watched.
#[derive(Clone, Debug)]
pub enum Feed {
    /// Everything the log still holds, by position, and what comes.
    Log(LogView),
    /// What comes from here on.
    Live(Live),
}

impl Feed {
    pub(crate) fn log(view: LogView) -> Self {
        Self::Log(view)
    }

    pub(crate) fn live() -> Self {
        Self::Live(Live { sender: broadcast::channel(LIVE_RECORDS).0 })
    }

    /// Shows a durable record to whoever watches live; costs nothing when nobody does.
    pub(crate) fn show(&self, record: &Record) {
        if let Self::Live(live) = self
            && live.sender.receiver_count() > 0
        {
            // An error means that the last watcher has just left.
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
    /// Starts watching. A receiver that lags is told how many records it missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.sender.subscribe()
    }
}
