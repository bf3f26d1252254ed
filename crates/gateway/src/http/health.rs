//! `/readyz`, `/health`, `/stats`, `/metrics`.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::{Response, StatusCode};
use ocpp_bus::Bus;
use ocpp_protocol::Version;
use prometheus::TextEncoder;
use serde::Serialize;
use utoipa::ToSchema;

use crate::events::millis;

use super::{Admin, Answer, Body, Problem, json, typed};

/// Whether the gateway is ready, and how its buses are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// `ok` or `unavailable`.
    #[schema(pattern = "^(ok|unavailable)$")]
    status: &'static str,
    /// Why it is not ready.
    reason: Option<String>,
    /// The gateway's own.
    version: &'static str,
    /// The bus of the events.
    bus: BusHealth,
    /// The bus of the stations' states.
    stations_journal: BusHealth,
    /// The bus of the book of commands.
    commands_journal: BusHealth,
}

/// What the gateway holds at this moment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    /// The gateway's own.
    version: &'static str,
    /// When the process started.
    #[schema(format = DateTime)]
    started_at: String,
    /// Since then.
    uptime_seconds: u64,
    /// Stations that are connected.
    sessions: usize,
    /// The same by OCPP version.
    sessions_by_version: BTreeMap<&'static str, usize>,
    /// Stations whose state is kept, connected or not.
    stations_known: usize,
    /// The bus of the events.
    bus: BusHealth,
    /// The bus of the stations' states.
    stations_journal: BusHealth,
    /// The bus of the book of commands.
    commands_journal: BusHealth,
}

/// How a bus is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BusHealth {
    /// `starting`, `direct`, `spooling`, `draining` or `holding`.
    #[schema(pattern = "^(starting|direct|spooling|draining|holding)$")]
    state: &'static str,
    /// What storage said last, if it is not well.
    detail: Option<String>,
    /// Age of the oldest record that is not durable.
    oldest_unacknowledged_ms: u64,
    /// Records accepted and not yet durable.
    in_flight_records: usize,
    /// Their bytes.
    in_flight_bytes: usize,
    /// Nothing could be stored for so long.
    holding_ms: Option<u64>,
    /// Of the Kafka bus, if it has one.
    spool: Option<SpoolHealth>,
}

/// What is in the spool.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SpoolHealth {
    /// Records in it.
    records: u64,
    /// Their bytes on disk.
    bytes: u64,
    /// How many it may hold.
    capacity_bytes: u64,
    /// Age of the oldest record.
    oldest_ms: u64,
    /// It is filled to `bus.spool.alarm_level`.
    alarm: bool,
    /// How long until it is empty at the present rates; null if it does not shrink.
    time_to_drain_ms: Option<u64>,
}

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
        let body = Health {
            status: if readiness.is_ok() { "ok" } else { "unavailable" },
            reason: readiness.err(),
            version: env!("CARGO_PKG_VERSION"),
            bus: bus_health(&self.shared.bus),
            stations_journal: bus_health(&self.shared.journal),
            commands_journal: bus_health(&self.shared.router.journal),
        };
        json(status, &body)
    }

    pub(super) fn stats(&self) -> Response<Body> {
        let mut by_version: BTreeMap<&str, usize> =
            Version::ALL.iter().map(|version| (version.as_str(), 0)).collect();
        let sessions = self.registry.all();
        for session in &sessions {
            *by_version.entry(session.admission.version.as_str()).or_default() += 1;
        }
        let body = Stats {
            version: env!("CARGO_PKG_VERSION"),
            started_at: ocpp_bus::event::rfc3339(self.readiness.started_at),
            uptime_seconds: self.readiness.started.elapsed().as_secs(),
            sessions: sessions.len(),
            sessions_by_version: by_version,
            stations_known: self.shared.stations.len(),
            bus: bus_health(&self.shared.bus),
            stations_journal: bus_health(&self.shared.journal),
            commands_journal: bus_health(&self.shared.router.journal),
        };
        json(StatusCode::OK, &body)
    }

    pub(super) fn metrics(&self) -> Answer {
        let stations = self.shared.stations.len();
        self.stations_known.set(i64::try_from(stations).unwrap_or(i64::MAX));
        // Reading readiness brings the buses' gauges up to date.
        drop(self.readiness.check());
        self.shared.bus.health();
        self.shared.journal.health();
        self.shared.router.journal.health();
        match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
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

fn bus_health(bus: &Bus) -> BusHealth {
    let health = bus.health();
    BusHealth {
        state: health.state.as_str(),
        detail: health.detail,
        oldest_unacknowledged_ms: millis(health.oldest_unacknowledged),
        in_flight_records: health.in_flight_records,
        in_flight_bytes: health.in_flight_bytes,
        holding_ms: health.holding_for.map(millis),
        spool: health.spool.map(|spool| SpoolHealth {
            records: spool.records,
            bytes: spool.bytes,
            capacity_bytes: spool.capacity_bytes,
            oldest_ms: millis(spool.oldest),
            alarm: spool.alarm,
            time_to_drain_ms: spool.time_to_drain.map(millis),
        }),
    }
}
