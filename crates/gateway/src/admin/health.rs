//! `/readyz`, `/health`, `/stats`, `/metrics`.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use ocpp_bus::Bus;
use ocpp_protocol::Version;
use serde_json::{Value, json};

use crate::events::millis;

use super::{Admin, Answer, Body, Problem, json as json_response, typed};

impl Admin {
    pub(super) fn readyz(&self) -> Response<Body> {
        match self.readiness.check() {
            Ok(()) => typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(b"ready\n")),
            Err(reason) => {
                let body = Bytes::from(format!("not ready: {reason}\n"));
                typed(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", body)
            }
        }
    }

    pub(super) fn health(&self) -> Response<Body> {
        let readiness = self.readiness.check();
        let status = if readiness.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = json!({
            "status": if readiness.is_ok() { "ok" } else { "unavailable" },
            "reason": readiness.err(),
            "version": env!("CARGO_PKG_VERSION"),
            "bus": bus_health(&self.shared.bus),
            "stationsJournal": bus_health(&self.shared.journal),
            "commandsJournal": bus_health(&self.shared.router.journal),
        });
        json_response(status, &body)
    }

    pub(super) fn stats(&self) -> Response<Body> {
        let mut by_version: BTreeMap<&str, usize> =
            Version::ALL.iter().map(|version| (version.as_str(), 0)).collect();
        let sessions = self.registry.all();
        for session in &sessions {
            *by_version.entry(session.admission.version.as_str()).or_default() += 1;
        }
        let body = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "startedAt": ocpp_bus::event::rfc3339(self.readiness.started_at),
            "uptimeSeconds": self.readiness.started.elapsed().as_secs(),
            "sessions": sessions.len(),
            "sessionsByVersion": by_version,
            "stationsKnown": self.shared.stations.len(),
            "bus": bus_health(&self.shared.bus),
            "stationsJournal": bus_health(&self.shared.journal),
            "commandsJournal": bus_health(&self.shared.router.journal),
        });
        json_response(StatusCode::OK, &body)
    }

    pub(super) fn metrics(&self) -> Answer {
        self.shared.metrics.stations_known(self.shared.stations.len());
        // Reading readiness brings the buses' gauges up to date.
        drop(self.readiness.check());
        self.shared.bus.health();
        self.shared.journal.health();
        self.shared.router.journal.health();
        match self.shared.metrics.page() {
            Ok(page) => {
                Ok(typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(page)))
            }
            Err(error) => Err(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics cannot be written",
                error.to_string(),
            )),
        }
    }
}

fn bus_health(bus: &Bus) -> Value {
    let health = bus.health();
    json!({
        "state": health.state.as_str(),
        "detail": health.detail,
        "oldestUnacknowledgedMs": millis(health.oldest_unacknowledged),
        "inFlightRecords": health.in_flight_records,
        "inFlightBytes": health.in_flight_bytes,
        "holdingMs": health.holding_for.map(millis),
        "spool": health.spool.map(|spool| json!({
            "records": spool.records,
            "bytes": spool.bytes,
            "capacityBytes": spool.capacity_bytes,
            "oldestMs": millis(spool.oldest),
            "alarm": spool.alarm,
            "timeToDrainMs": spool.time_to_drain.map(millis),
        })),
    })
}
