//! Spans on their way to a collector: gathered into batches, sent, and counted.
//!
//! Owns the one task that does so. A batch that the collector does not accept is dropped and counted, never kept or sent
//! again: spans are worth less than memory. Only the drain waits for this task, and only until its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::endpoint::{Endpoint, EndpointError};
use super::metrics::SpanMetrics;
use super::options::TelemetryOptions;
use super::{Ended, Tracer};

mod collector;
mod messages;

use collector::{Collector, ExportError};

/// The most spans in one request.
const BATCH: usize = 512;
/// How long the last spans may take when the gateway leaves.
const FAREWELL: Duration = Duration::from_secs(3);
/// A collector that fails is warned about at most once in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Exports spans until the gateway drains.
#[derive(Debug)]
pub struct Exporter {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint is no address of a collector.
    #[error("telemetry.otlp_endpoint: {0}")]
    Endpoint(#[from] EndpointError),
    /// The system's root certificates cannot be read.
    #[error("the system's root certificates, needed for telemetry.otlp_endpoint")]
    Roots(#[source] std::io::Error),
}

impl Exporter {
    /// Starts exporting spans if the configuration names a collector. The tracer makes none otherwise.
    ///
    /// # Errors
    /// When the endpoint is no address (which the configuration's checks rule out), or the certificates for TLS are missing.
    pub fn start(
        telemetry: &TelemetryOptions,
        node: &str,
        metrics: Arc<SpanMetrics>,
    ) -> Result<(Self, Tracer), StartError> {
        let exporter = Self { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        let Some(collector) = Self::open(telemetry)? else {
            return Ok((exporter, Tracer::off(metrics)));
        };
        tracing::info!(endpoint = %collector.endpoint(), sampling = telemetry.sampling, "spans are exported");
        let (sender, queue) = mpsc::channel(telemetry.queue_spans);
        let tracer = Tracer::on(Arc::clone(&metrics), sender, telemetry.sampling);
        let sending = Sending {
            collector,
            resource: messages::resource(node),
            interval: telemetry.export_interval,
            metrics,
            stop: exporter.stop.clone(),
            warned_at: None,
        };
        drop(exporter.tasks.spawn(sending.run(queue)));
        Ok((exporter, tracer))
    }

    /// Checks whether exporting could start.
    ///
    /// # Errors
    /// See [`start`](Self::start).
    pub fn check(telemetry: &TelemetryOptions) -> Result<(), StartError> {
        Self::open(telemetry).map(|_| ())
    }

    fn open(telemetry: &TelemetryOptions) -> Result<Option<Collector>, StartError> {
        if telemetry.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let endpoint = Endpoint::parse(&telemetry.otlp_endpoint, telemetry.protocol)?;
        Collector::open(endpoint, telemetry.export_timeout).map(Some).map_err(StartError::Roots)
    }

    /// Sends the spans that still wait. Gives up at the deadline, or after [`FAREWELL`] if that is sooner: a collector that
    /// hangs must not hold up the drain.
    pub async fn finish(&self, deadline: Instant) {
        self.stop.cancel();
        self.tasks.close();
        let deadline = deadline.min(Instant::now() + FAREWELL);
        if tokio::time::timeout_at(deadline.into(), self.tasks.wait()).await.is_err() {
            tracing::warn!("the last spans were not sent in time");
        }
    }
}

struct Sending {
    collector: Collector,
    resource: Resource,
    interval: Duration,
    metrics: Arc<SpanMetrics>,
    stop: CancellationToken,
    /// When a failure was last warned about.
    warned_at: Option<Instant>,
}

impl Sending {
    async fn run(mut self, mut queue: mpsc::Receiver<Ended>) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let stopping = self.gather(&mut queue, &mut batch).await;
            if !batch.is_empty() {
                let spans = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                self.send(spans).await;
            } else if stopping {
                return;
            }
        }
    }

    /// Gathers spans until the batch is full or `interval` is over. Returns whether no more are to be waited for.
    async fn gather(&self, queue: &mut mpsc::Receiver<Ended>, batch: &mut Vec<Ended>) -> bool {
        let until = tokio::time::sleep(self.interval);
        let mut until = std::pin::pin!(until);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let came = tokio::select! {
                biased;
                came = queue.recv_many(batch, room) => came,
                () = &mut until => return false,
                () = self.stop.cancelled() => return true,
            };
            self.metrics.spans_taken(came);
            if came == 0 {
                // Every tracer is gone.
                return true;
            }
        }
        false
    }

    async fn send(&mut self, spans: Vec<Ended>) {
        let count = spans.len();
        match self.collector.export(messages::request(self.resource.clone(), spans)).await {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.metrics.spans_ended("rejected", rejected);
                self.metrics.spans_ended("exported", count - rejected);
            }
            Err(error) => {
                self.metrics.spans_ended("failed", count);
                self.tell(&error);
            }
        }
    }

    fn tell(&mut self, error: &ExportError) {
        let endpoint = self.collector.endpoint();
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(%endpoint, %error, "spans are not taken and are dropped");
        } else {
            tracing::debug!(%endpoint, %error, "spans are not taken and are dropped");
        }
    }
}
