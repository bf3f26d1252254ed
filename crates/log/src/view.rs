//! A log from a reader's side: where it begins and ends, and readers for it.

use std::sync::Arc;

use tokio::sync::watch;

use super::LogReader;
use super::extent::Shared;

/// A log as its readers see it: cheap to clone, usable from any thread, and valid after the [`Log`](super::Log) is gone.
#[derive(Clone)]
pub struct LogView {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
}

impl LogView {
    pub(super) fn new(shared: Arc<Shared>, durable: watch::Receiver<u64>) -> Self {
        Self { shared, durable }
    }

    /// The oldest position that has not been deleted; equal to [`next`](Self::next) if there is no record.
    pub fn oldest(&self) -> u64 {
        self.shared.extent().oldest()
    }

    /// The durable end: every committed record has a position below it.
    pub fn next(&self) -> u64 {
        self.shared.extent().next
    }

    /// Durable bytes in segment files, headers included. Copies of damaged bytes are not counted.
    pub fn bytes(&self) -> u64 {
        self.shared.extent().bytes()
    }

    /// A reader that starts at `from`. A position beyond the durable end is moved back to the end: it can only come from a log that has
    /// lost its tail since, and waiting for it would skip what is written there now.
    pub fn reader(&self, from: u64) -> LogReader {
        LogReader::new(Arc::clone(&self.shared), from.min(self.next()))
    }

    /// Follows the durable end. `changed` fails once the writer is gone.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.durable.clone()
    }
}

impl std::fmt::Debug for LogView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let extent = self.shared.extent();
        f.debug_struct("LogView")
            .field("dir", &self.shared.dir)
            .field("oldest", &extent.oldest())
            .field("next", &extent.next)
            .finish_non_exhaustive()
    }
}
