//! What a bus counts as it happens. Owns the names and help texts; whoever counts does it directly.

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::registrar::{Buckets, Registrar};

/// What is counted as it happens.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(crate) accepted: IntCounter,
    pub(crate) durable: IntCounter,
    pub(crate) wait_seconds: Histogram,
    pub(crate) latency_seconds: Histogram,
    pub(crate) batch_records: Histogram,
    pub(crate) failures: IntCounter,
    pub(crate) dead_letters: IntCounter,
    pub(crate) spooled: IntCounter,
    pub(crate) drained: IntCounter,
    pub(crate) log_bytes: IntGauge,
    pub(crate) log_damaged: IntCounter,
}

impl Counters {
    pub(crate) fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        const RECORDS: Buckets = Buckets { start: 1.0, factor: 4.0, count: 9 };
        let counter = |name, help| registrar.counter(name, help);
        let histogram = |name, help, buckets| registrar.histogram(name, help, buckets);
        Ok(Self {
            accepted: counter("accepted_total", "Records accepted into the queue")?,
            durable: counter("durable_total", "Records that became durable")?,
            wait_seconds: histogram(
                "wait_seconds",
                "Time a publisher waited for room in the queue",
                Buckets::SECONDS,
            )?,
            latency_seconds: histogram(
                "latency_seconds",
                "Time from acceptance to durable",
                Buckets::SECONDS,
            )?,
            batch_records: histogram("batch_records", "Records written or sent together", RECORDS)?,
            failures: counter(
                "failures_total",
                "Failed writes, syncs and sends; each record is sent again or becomes a dead letter",
            )?,
            dead_letters: counter(
                "set_aside_total",
                "Dead letters: records that can never be delivered, kept on disk",
            )?,
            spooled: counter("spooled_total", "Records stored in the spool")?,
            drained: counter("drained_total", "Records sent from the spool to Kafka")?,
            log_bytes: registrar.gauge("log_bytes", "Bytes of the local log on disk")?,
            log_damaged: counter("log_damaged_regions_total", "Damaged regions found in the local log")?,
        })
    }
}
