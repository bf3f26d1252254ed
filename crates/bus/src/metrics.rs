//! The bus's metrics. Owns their names and help texts; every other file of the crate only counts.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, IntGaugeVec};

use crate::health::{BusState, SpoolHealth};
use crate::registrar::{Buckets, Registrar};

/// What one bus counts. Every name starts with `ocpp_gateway_` and carries the label `bus` (`events`, `stations` or `commands`).
#[derive(Clone, Debug)]
pub struct BusMetrics {
    /// Records accepted into the queue.
    pub accepted: IntCounter,
    /// Records that became durable.
    pub durable: IntCounter,
    /// Places in the queue, counted in records.
    pub queue_capacity_records: IntGauge,
    /// Places in the queue, counted in bytes.
    pub queue_capacity_bytes: IntGauge,
    /// Records accepted and not yet durable.
    pub queue_records: IntGauge,
    /// Their bytes.
    pub queue_bytes: IntGauge,
    /// How long a publisher waited for a place, when it had to wait.
    pub wait_seconds: Histogram,
    /// From acceptance to durable.
    pub latency_seconds: Histogram,
    /// Records written or sent together.
    pub batch_records: Histogram,
    /// Failed attempts to write, sync or send; every one is tried again or set aside.
    pub failures: IntCounter,
    /// Records that can never be delivered and were set aside on disk.
    pub set_aside: IntCounter,
    /// 1 while records become durable as they should, 0 while the bus holds them back.
    pub flowing: IntGauge,
    /// 1 for the state the bus is in, 0 for the others.
    pub state: IntGaugeVec,
    /// Records stored in the spool.
    pub spooled: IntCounter,
    /// Records sent from the spool to Kafka.
    pub drained: IntCounter,
    spool_records: IntGauge,
    spool_bytes: IntGauge,
    spool_capacity_bytes: IntGauge,
    spool_oldest_seconds: Gauge,
    spool_alarm: IntGauge,
    /// Age of the oldest record that is not durable.
    pub oldest_seconds: Gauge,
    /// Bytes of the local log on disk.
    pub log_bytes: IntGauge,
    /// Damaged regions found in the local log.
    pub log_damaged: IntCounter,
}

impl BusMetrics {
    /// Registers the metrics of the bus of this name.
    ///
    /// # Errors
    /// When a bus of the same name is registered already.
    pub fn register(registrar: &Registrar, bus: &str) -> Result<Self, prometheus::Error> {
        const RECORDS: Buckets = Buckets { start: 1.0, factor: 4.0, count: 9 };
        let registrar = registrar.within("bus_").labelled("bus", bus);
        let counter = |name, help| registrar.counter(name, help);
        let gauge = |name, help| registrar.gauge(name, help);
        let age = |name, help| registrar.fraction(name, help);
        let histogram = |name, help, buckets| registrar.histogram(name, help, buckets);
        Ok(Self {
            accepted: counter("accepted_total", "Records accepted into the queue")?,
            durable: counter("durable_total", "Records that became durable")?,
            queue_capacity_records: gauge(
                "queue_capacity_records",
                "Most records accepted and not yet durable",
            )?,
            queue_capacity_bytes: gauge("queue_capacity_bytes", "Most bytes accepted and not yet durable")?,
            queue_records: gauge("queue_records", "Records accepted and not yet durable")?,
            queue_bytes: gauge("queue_bytes", "Bytes accepted and not yet durable")?,
            wait_seconds: histogram("wait_seconds", "Time a publisher waited for a place", Buckets::SECONDS)?,
            latency_seconds: histogram(
                "latency_seconds",
                "Time from acceptance to durable",
                Buckets::SECONDS,
            )?,
            batch_records: histogram("batch_records", "Records written or sent together", RECORDS)?,
            failures: counter(
                "failures_total",
                "Failed attempts to write, sync or send, each tried again or set aside",
            )?,
            set_aside: counter("set_aside_total", "Records that can never be delivered, set aside on disk")?,
            flowing: gauge(
                "flowing",
                "1 while records become durable as they should, 0 while they are held back",
            )?,
            state: registrar.gauges(
                "state",
                "1 for the state the bus is in, 0 for the others",
                &["state"],
            )?,
            oldest_seconds: age(
                "oldest_unacknowledged_seconds",
                "Age of the oldest record that is not durable yet",
            )?,
            spooled: counter("spooled_total", "Records stored in the spool")?,
            drained: counter("drained_total", "Records sent from the spool to Kafka")?,
            spool_records: gauge("spool_records", "Records in the spool that Kafka does not have yet")?,
            spool_bytes: gauge("spool_bytes", "Bytes of the spool on disk")?,
            spool_capacity_bytes: gauge("spool_capacity_bytes", "Bytes that the spool may take")?,
            spool_oldest_seconds: age("spool_oldest_seconds", "Age of the oldest record in the spool")?,
            spool_alarm: gauge("spool_alarm", "1 while the spool is filled to its alarm level")?,
            log_bytes: gauge("log_bytes", "Bytes of the local log on disk")?,
            log_damaged: counter("log_damaged_regions_total", "Damaged regions found in the local log")?,
        })
    }

    pub(crate) fn show_state(&self, state: BusState) {
        self.flowing.set(i64::from(state.is_flowing()));
        for one in BusState::ALL {
            self.state.with_label_values(&[one.as_str()]).set(i64::from(one == state));
        }
    }

    pub(crate) fn show_spool(&self, spool: &SpoolHealth) {
        self.spool_records.set(i64::try_from(spool.records).unwrap_or(i64::MAX));
        self.spool_bytes.set(i64::try_from(spool.bytes).unwrap_or(i64::MAX));
        self.spool_capacity_bytes.set(i64::try_from(spool.capacity_bytes).unwrap_or(i64::MAX));
        self.spool_oldest_seconds.set(spool.oldest.as_secs_f64());
        self.spool_alarm.set(i64::from(spool.alarm));
    }
}
