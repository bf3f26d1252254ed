//! What a bus and a journal have in common: a queue, a writer's thread behind it, and their status.
//!
//! Owns starting and ending the writer. If its thread ends although nobody closed the queue, the status says so: nothing becomes
//! durable from then on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::StartError;
use crate::health::{BusState, HealthCell};
use crate::metrics::BusMetrics;
use crate::publisher::Publisher;
use crate::queue::{InFlight, Queue, QueueLimits, Taken};
use crate::record::Record;
use crate::status::Status;
use crate::thread::Worker;

#[derive(Clone, Debug)]
pub(crate) struct Store {
    queue: Arc<Queue>,
    status: Status,
    worker: Arc<Worker>,
}

impl Store {
    /// Makes a queue, and starts the thread that `writer` runs on with it.
    pub(crate) fn start<W: FnOnce() + Send + 'static>(
        limits: QueueLimits,
        metrics: &BusMetrics,
        writer: impl FnOnce(Arc<Queue>, Arc<HealthCell>) -> Result<W, StartError>,
    ) -> Result<Self, StartError> {
        let health = Arc::new(HealthCell::new(metrics.name));
        let queue = Arc::new(Queue::new(limits, metrics.counters.clone()));
        let status = Status::new(Arc::clone(&queue), Arc::clone(&health));
        metrics.status.show(&status);
        let run = writer(Arc::clone(&queue), Arc::clone(&health))?;
        let closed = Arc::clone(&queue);
        let ended = move || {
            if !closed.is_closed() {
                let detail = "the bus's thread has ended; only a restart helps".to_owned();
                health.report(BusState::Holding, Some(detail));
            }
        };
        let worker = Worker::spawn(&format!("bus-{}", metrics.name), run, ended)?;
        Ok(Self { queue, status, worker: Arc::new(worker) })
    }

    /// Starts a writer that acknowledges every record at once and stores nothing.
    pub(crate) fn start_forgetful(limits: QueueLimits, metrics: &BusMetrics) -> Result<Self, StartError> {
        Self::start(limits, metrics, |queue, health| {
            health.report(BusState::Direct, None);
            Ok(move || {
                while let Taken::Batch(batch) = queue.take(usize::MAX, Duration::from_secs(1)) {
                    batch.into_iter().for_each(InFlight::acknowledge);
                }
            })
        })
    }

    pub(crate) fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.queue))
    }

    pub(crate) async fn store(&self, record: Record) {
        let mut publisher = self.publisher();
        let sequence = publisher.publish(record).await;
        publisher.watermark().wait(sequence).await;
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn close(&self, deadline: Instant) -> usize {
        self.queue.close();
        self.worker.join(deadline);
        self.queue.in_flight().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::Registrar;

    #[test]
    fn a_writer_that_ends_by_itself_is_shown_as_holding() {
        let metrics = BusMetrics::register(&Registrar::default(), "events").unwrap();
        let limits = QueueLimits { records: 10, bytes: 1000 };
        let store = Store::start(limits, &metrics, |_, health| {
            Ok(move || {
                health.report(BusState::Direct, None);
                panic!("on purpose");
            })
        })
        .unwrap();
        store.worker.join(Instant::now() + Duration::from_secs(30));
        let health = store.status().health();
        assert_eq!(health.state, BusState::Holding);
        assert!(health.detail.unwrap().contains("restart"), "an operator learns what helps");
    }
}
