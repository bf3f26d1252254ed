//! The status of a bus or a journal: its queue, and what its writer reports.
//!
//! Owns reading the two together, for people (`Status`) and for Prometheus (`StatusGauges`). Nothing is kept up to date in
//! between: the gauges are computed when the metrics are gathered, from one reading, so they always agree with one another.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntGauge, IntGaugeVec};

use crate::health::{BusHealth, BusState, HealthCell};
use crate::queue::Queue;
use crate::registrar::{Kind, Registrar};

/// Reads the health of a bus or a journal. Clones read the same.
#[derive(Clone, Debug)]
pub struct Status {
    queue: Arc<Queue>,
    health: Arc<HealthCell>,
}

impl Status {
    pub(crate) fn new(queue: Arc<Queue>, health: Arc<HealthCell>) -> Self {
        Self { queue, health }
    }

    /// The health at this moment.
    pub fn health(&self) -> BusHealth {
        let (in_flight_records, in_flight_bytes) = self.queue.in_flight();
        let reported = self.health.read();
        let oldest = reported.oldest.or_else(|| self.queue.oldest_waiting());
        let oldest_unacknowledged = match oldest {
            Some(accepted_at) if in_flight_records > 0 => accepted_at.elapsed(),
            _ => Duration::ZERO,
        };
        BusHealth {
            state: reported.state,
            detail: reported.detail,
            oldest_unacknowledged,
            in_flight_records,
            in_flight_bytes,
            holding_for: reported.holding_since.map(|since| since.elapsed()),
            spool: reported.spool,
        }
    }
}

/// The gauges of a bus that is registered before it starts. Until then they are 0.
#[derive(Debug)]
pub(crate) struct StatusGauges {
    status: OnceLock<Status>,
    /// Gatherings may overlap; each sets the gauges and reads them under this lock.
    gauges: Mutex<Gauges>,
    descriptions: Vec<Desc>,
}

impl StatusGauges {
    pub(crate) fn register(registrar: &Registrar) -> Result<Arc<Self>, prometheus::Error> {
        let gauges = Gauges::new(registrar)?;
        let descriptions = gauges.all().iter().flat_map(|gauge| gauge.desc()).cloned().collect();
        let status = Arc::new(Self { status: OnceLock::new(), gauges: Mutex::new(gauges), descriptions });
        registrar.collector(Kind::Gauge, Shared(Arc::clone(&status)))?;
        Ok(status)
    }

    /// From here on the gauges show this. The first bus that starts with these metrics is the one that they show.
    pub(crate) fn show(&self, status: &Status) {
        self.status.get_or_init(|| status.clone());
    }
}

/// What the registry holds.
struct Shared(Arc<StatusGauges>);

impl Collector for Shared {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauges = self.0.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(status) = self.0.status.get() {
            gauges.set(status);
        }
        gauges.all().iter().flat_map(|gauge| gauge.collect()).collect()
    }
}

#[derive(Debug)]
struct Gauges {
    queue_capacity_records: IntGauge,
    queue_capacity_bytes: IntGauge,
    queue_records: IntGauge,
    queue_bytes: IntGauge,
    flowing: IntGauge,
    state: IntGaugeVec,
    oldest_seconds: Gauge,
    spool_records: IntGauge,
    spool_bytes: IntGauge,
    spool_capacity_bytes: IntGauge,
    spool_oldest_seconds: Gauge,
    spool_alarm: IntGauge,
}

impl Gauges {
    fn new(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| IntGauge::with_opts(registrar.options(name, help));
        let age = |name, help| Gauge::with_opts(registrar.options(name, help));
        let state = registrar.options("state", "1 for the state the bus is in, 0 for the others");
        Ok(Self {
            queue_capacity_records: gauge(
                "queue_capacity_records",
                "Most records accepted and not yet durable",
            )?,
            queue_capacity_bytes: gauge("queue_capacity_bytes", "Most bytes accepted and not yet durable")?,
            queue_records: gauge("queue_records", "Records accepted and not yet durable")?,
            queue_bytes: gauge("queue_bytes", "Bytes accepted and not yet durable")?,
            flowing: gauge(
                "flowing",
                "1 while records become durable as they should, 0 while they are held back",
            )?,
            state: IntGaugeVec::new(state, &["state"])?,
            oldest_seconds: age(
                "oldest_unacknowledged_seconds",
                "Age of the oldest record that is not durable yet",
            )?,
            spool_records: gauge("spool_records", "Records in the spool that Kafka does not have yet")?,
            spool_bytes: gauge("spool_bytes", "Bytes of the spool on disk")?,
            spool_capacity_bytes: gauge("spool_capacity_bytes", "Bytes that the spool may take")?,
            spool_oldest_seconds: age("spool_oldest_seconds", "Age of the oldest record in the spool")?,
            spool_alarm: gauge("spool_alarm", "1 while the spool is filled to its alarm level")?,
        })
    }

    fn all(&self) -> [&dyn Collector; 12] {
        [
            &self.queue_capacity_records,
            &self.queue_capacity_bytes,
            &self.queue_records,
            &self.queue_bytes,
            &self.flowing,
            &self.state,
            &self.oldest_seconds,
            &self.spool_records,
            &self.spool_bytes,
            &self.spool_capacity_bytes,
            &self.spool_oldest_seconds,
            &self.spool_alarm,
        ]
    }

    fn set(&self, status: &Status) {
        let (health, limits) = (status.health(), status.queue.limits());
        self.queue_capacity_records.set(i64::try_from(limits.records).unwrap_or(i64::MAX));
        self.queue_capacity_bytes.set(i64::from(limits.bytes));
        self.queue_records.set(i64::try_from(health.in_flight_records).unwrap_or(i64::MAX));
        self.queue_bytes.set(i64::try_from(health.in_flight_bytes).unwrap_or(i64::MAX));
        self.flowing.set(i64::from(health.state.is_flowing()));
        for state in BusState::ALL {
            self.state.with_label_values(&[state.as_str()]).set(i64::from(state == health.state));
        }
        self.oldest_seconds.set(health.oldest_unacknowledged.as_secs_f64());
        if let Some(spool) = health.spool {
            self.spool_records.set(i64::try_from(spool.records).unwrap_or(i64::MAX));
            self.spool_bytes.set(i64::try_from(spool.bytes).unwrap_or(i64::MAX));
            self.spool_capacity_bytes.set(i64::try_from(spool.capacity_bytes).unwrap_or(i64::MAX));
            self.spool_oldest_seconds.set(spool.oldest.as_secs_f64());
            self.spool_alarm.set(i64::from(spool.alarm));
        }
    }
}
