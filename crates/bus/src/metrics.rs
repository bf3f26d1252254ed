//! The metrics of one bus or journal: what it counts (`counters.rs`) and what its status is (`status.rs`). Owns only their common
//! registration, which comes before the bus starts.

use std::sync::Arc;

use crate::counters::Counters;
use crate::registrar::Registrar;
use crate::status::StatusGauges;

/// What one bus or journal reports. Every name starts with `ocpp_gateway_bus_` and carries the label `bus` (`events`, `stations` or
/// `commands`).
#[derive(Clone, Debug)]
pub struct BusMetrics {
    pub(crate) name: &'static str,
    pub(crate) counters: Counters,
    pub(crate) status: Arc<StatusGauges>,
}

impl BusMetrics {
    /// Registers the metrics of the bus of this name.
    ///
    /// # Errors
    /// When a bus of the same name is registered already.
    pub fn register(registrar: &Registrar, name: &'static str) -> Result<Self, prometheus::Error> {
        let registrar = registrar.within("bus_").labelled("bus", name);
        let counters = Counters::register(&registrar)?;
        let status = StatusGauges::register(&registrar)?;
        Ok(Self { name, counters, status })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::{BusState, HealthCell, SpoolHealth};
    use crate::queue::{Queue, QueueLimits};
    use crate::registrar::Kind;
    use crate::status::Status;

    /// The value of a gauge, by its name without the prefix and by the value of its label `state`.
    fn gauge(registrar: &Registrar, name: &str, state: Option<&str>) -> f64 {
        let families = registrar.registry().gather();
        let family = families.iter().find(|family| family.name() == format!("ocpp_gateway_bus_{name}"));
        let metrics = family.unwrap_or_else(|| panic!("{name} is missing")).get_metric();
        let found = metrics.iter().find(|metric| {
            state.is_none_or(|state| metric.get_label().iter().any(|label| label.value() == state))
        });
        found.unwrap().get_gauge().get_value()
    }

    #[test]
    fn gathering_shows_the_status_as_it_is() {
        let registrar = Registrar::default();
        let metrics = BusMetrics::register(&registrar, "events").unwrap();
        assert_eq!(gauge(&registrar, "queue_capacity_records", None), 0.0, "not started");

        let limits = QueueLimits { records: 7, bytes: 4096 };
        let queue = Arc::new(Queue::new(limits, metrics.counters.clone()));
        let health = Arc::new(HealthCell::new("events"));
        metrics.status.show(&Status::new(queue, Arc::clone(&health)));
        assert_eq!(gauge(&registrar, "queue_capacity_records", None), 7.0);
        assert_eq!(gauge(&registrar, "state", Some("starting")), 1.0);
        assert_eq!(gauge(&registrar, "flowing", None), 0.0);

        let spool = SpoolHealth {
            records: 3,
            bytes: 300,
            capacity_bytes: 400,
            oldest: Duration::from_secs(2),
            alarm: true,
            time_to_drain: None,
        };
        health.report_with(BusState::Spooling, Some("Kafka is away".into()), || Some(spool));
        assert_eq!(gauge(&registrar, "state", Some("starting")), 0.0);
        assert_eq!(gauge(&registrar, "state", Some("spooling")), 1.0);
        assert_eq!(gauge(&registrar, "flowing", None), 1.0);
        assert_eq!(gauge(&registrar, "spool_records", None), 3.0);
        assert_eq!(gauge(&registrar, "spool_alarm", None), 1.0);
    }

    #[test]
    fn a_state_and_its_figures_are_of_one_moment() {
        let registrar = Registrar::default();
        let metrics = BusMetrics::register(&registrar, "events").unwrap();
        let limits = QueueLimits { records: 7, bytes: 4096 };
        let queue = Arc::new(Queue::new(limits, metrics.counters.clone()));
        let health = Arc::new(HealthCell::new("events"));
        let status = Status::new(queue, Arc::clone(&health));
        metrics.status.show(&status);
        let spool = |records, alarm| {
            let (bytes, oldest) = (100 * records, Duration::from_secs(records));
            move || {
                Some(SpoolHealth { records, bytes, capacity_bytes: 400, oldest, alarm, time_to_drain: None })
            }
        };
        health.report_with(BusState::Direct, None, spool(0, false));
        let reader = std::thread::spawn(move || {
            for _ in 0..2000 {
                let families = registrar.registry().gather();
                let value = |name: &str, state: Option<&str>| {
                    let name = format!("ocpp_gateway_bus_{name}");
                    let family = families.iter().find(|family| family.name() == name).unwrap();
                    let metric = family.get_metric().iter().find(|metric| {
                        state
                            .is_none_or(|state| metric.get_label().iter().any(|label| label.value() == state))
                    });
                    metric.unwrap().get_gauge().get_value()
                };
                let spooling = value("state", Some("spooling"));
                assert_eq!(value("state", Some("direct")), 1.0 - spooling);
                assert_eq!(value("spool_alarm", None), spooling);
                assert_eq!(value("spool_records", None), 3.0 * spooling);
                assert_eq!(value("spool_bytes", None), 300.0 * spooling);
                assert_eq!(value("spool_oldest_seconds", None), 3.0 * spooling);
                let shown = status.health();
                assert_eq!(shown.state == BusState::Spooling, shown.spool.unwrap().alarm);
            }
        });
        while !reader.is_finished() {
            health.report_with(BusState::Spooling, Some("Kafka is away".into()), spool(3, true));
            health.report_with(BusState::Direct, None, spool(0, false));
        }
        reader.join().unwrap();
    }

    #[test]
    fn the_gauges_are_listed_like_every_other_metric() {
        let registrar = Registrar::default();
        BusMetrics::register(&registrar, "events").unwrap();
        let families = registrar.families();
        let state = families.iter().find(|family| family.name == "ocpp_gateway_bus_state").unwrap();
        assert_eq!(
            (state.kind, &state.labels[..]),
            (Kind::Gauge, &["bus".to_owned(), "state".to_owned()][..])
        );
        assert!(BusMetrics::register(&registrar, "events").is_err(), "registered once");
        BusMetrics::register(&registrar, "stations").unwrap();
    }
}
