//! Spans on their way to a collector: OTLP over HTTP, in JSON (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! Owns the one task that gathers and sends them. A batch that the collector does not take is dropped and counted, never kept:
//! spans are worth less than memory. Nothing waits for this but the drain, and that not beyond its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::SpanMetrics;
use super::{Ended, Tracer};
use crate::config;
use crate::http_client::{ClientError, Origin};

mod json;

/// Spans in one request.
const BATCH: usize = 512;
/// The largest answer that is read.
const LARGEST_ANSWER: usize = 64 * 1024;
/// The last spans have so long.
const FAREWELL: Duration = Duration::from_secs(3);
/// A collector that is away is named once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// Sends spans until the drain.
#[derive(Debug)]
pub struct Exporter {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// The batch is no JSON, or the request no request.
    #[error("cannot be written: {0}")]
    Unwritable(String),
    /// The collector is away.
    #[error("{}", ocpp_bus::chain(.0))]
    Unreachable(#[from] ClientError),
    /// It does not want them.
    #[error("the collector answers {status}: {body}")]
    Refused { status: hyper::StatusCode, body: String },
}

impl Exporter {
    /// Starts sending spans, if the configuration names a collector.
    ///
    /// # Errors
    /// When the endpoint is no address (which the configuration's checks rule out).
    pub fn start(
        telemetry: &config::Telemetry,
        node: &str,
        metrics: Arc<SpanMetrics>,
    ) -> Result<(Self, Tracer), ClientError> {
        let exporter = Self { tasks: TaskTracker::new(), stop: CancellationToken::new() };
        if telemetry.otlp_endpoint.is_empty() {
            return Ok((exporter, Tracer::off(metrics)));
        }
        let endpoint: Origin = telemetry.otlp_endpoint.parse()?;
        tracing::info!(%endpoint, sampling = telemetry.sampling, "spans are exported");
        let (sender, queue) = mpsc::channel(telemetry.queue_spans);
        let tracer = Tracer::on(Arc::clone(&metrics), sender, telemetry.sampling);
        let sending = Sending {
            endpoint,
            resource: json::Resource::of(node),
            interval: telemetry.export_interval,
            timeout: telemetry.export_timeout,
            metrics,
            stop: exporter.stop.clone(),
            said: None,
        };
        drop(exporter.tasks.spawn(sending.run(queue)));
        Ok((exporter, tracer))
    }

    /// Sends what has been gathered, until a deadline, and not for long: a collector that hangs must not hold the gateway.
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
    endpoint: Origin,
    resource: json::Resource,
    interval: Duration,
    timeout: Duration,
    metrics: Arc<SpanMetrics>,
    stop: CancellationToken,
    /// When a failure was last named.
    said: Option<Instant>,
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

    /// Fills a batch, or takes what has come after `interval`. Says whether this is the end: then nothing is waited for.
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
                // Nobody is left who makes any.
                return true;
            }
        }
        false
    }

    async fn send(&mut self, spans: Vec<Ended>) {
        let count = spans.len();
        match self.post(&spans).await {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.metrics.spans_ended("rejected", rejected);
                self.metrics.spans_ended("exported", count - rejected);
            }
            Err(error) => {
                self.metrics.spans_ended("failed", count);
                if self.said.is_none_or(|said| said.elapsed() >= QUIET) {
                    self.said = Some(Instant::now());
                    tracing::warn!(endpoint = %self.endpoint, %error, "spans are not taken and are dropped");
                } else {
                    tracing::debug!(%error, "spans are not taken and are dropped");
                }
            }
        }
    }

    /// How many of the spans the collector has taken and thrown away.
    async fn post(&self, spans: &[Ended]) -> Result<usize, ExportError> {
        let unwritable = |error: &dyn std::error::Error| ExportError::Unwritable(error.to_string());
        let body = json::request(&self.resource, spans).map_err(|error| unwritable(&error))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static("/v1/traces");
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.endpoint.send(request, self.timeout).await?;
        let status = response.status;
        let body = response.collect(LARGEST_ANSWER, self.timeout).await?;
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(ExportError::Refused { status, body });
        }
        // An answer that says nothing of the kind means that all were taken.
        Ok(serde_json::from_slice::<Answer>(&body).map_or(0, |answer| answer.partial_success.rejected()))
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    partial_success: PartialSuccess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// A 64-bit number: in protobuf's JSON a text, from some a number.
    rejected_spans: serde_json::Value,
}

impl PartialSuccess {
    fn rejected(&self) -> usize {
        let number = self.rejected_spans.as_u64();
        let text = || self.rejected_spans.as_str().and_then(|text| text.parse().ok());
        number.or_else(text).and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_threw_away_is_read_however_it_is_spelled() {
        for (text, rejected) in [
            ("{}", 0),
            (r#"{"partialSuccess":{}}"#, 0),
            (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#, 3),
            (r#"{"partialSuccess":{"rejectedSpans":4}}"#, 4),
        ] {
            let answer: Answer = serde_json::from_str(text).unwrap();
            assert_eq!(answer.partial_success.rejected(), rejected, "{text}");
        }
    }
}
