//! Health, statistics and metrics: `/livez`, `/readyz`, `/health`, `/stats`, `/metrics`.
//!
//! Owns how they are written. What is ready says `readiness.rs`, how a bus is says the bus.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use ocpp_bus::health;
use ocpp_protocol::Version;
use prometheus::TextEncoder;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::Json;
use super::problem::Problem;
use crate::readiness::{Readiness, Report};
use crate::registry::Registry;
use crate::stations::Stations;
use ocpp_station::time::millis;

/// Where health, statistics and metrics are read.
pub(crate) struct Sources {
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) stations: Arc<Stations>,
    /// Every metric of this process.
    pub(crate) metrics: prometheus::Registry,
}

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
    /// The journal of the command store.
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
    /// The journal of the command store.
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

impl Sources {
    pub(super) fn operations(self) -> Vec<Operation> {
        let sources = Arc::new(self);
        [routes!(livez), routes!(readyz), routes!(health), routes!(stats), routes!(metrics)]
            .map(|operation| operation.with_state(Arc::clone(&sources)))
            .into()
    }
}

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
async fn livez() -> &'static str {
    "ok\n"
}

/// Stations are accepted and events become durable.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Ready", body = String, content_type = "text/plain"),
    (status = 503, description = "Not ready, and why", body = String, content_type = "text/plain"),
))]
async fn readyz(State(sources): State<Arc<Sources>>) -> Response {
    match sources.readiness.check() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

/// The same, with the state of both buses.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "Ready", body = Health),
    (status = 503, description = "Not ready", body = Health),
))]
async fn health(State(sources): State<Arc<Sources>>) -> (StatusCode, Json<Health>) {
    let Report { reason, events, stations, commands } = sources.readiness.report();
    let (code, status) = match reason {
        None => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let health = Health {
        status,
        reason,
        version: env!("CARGO_PKG_VERSION"),
        bus: events.into(),
        stations_journal: stations.into(),
        commands_journal: commands.into(),
    };
    (code, Json(health))
}

/// Sessions, stations known, and what is in flight.
#[utoipa::path(get, path = "/stats", tag = "health",
    responses((status = 200, description = "At this moment", body = Stats)))]
async fn stats(State(sources): State<Arc<Sources>>) -> Json<Stats> {
    let mut by_version: BTreeMap<&str, usize> =
        Version::ALL.iter().map(|version| (version.as_str(), 0)).collect();
    let sessions = sources.registry.all();
    for session in &sessions {
        *by_version.entry(session.admission.version.as_str()).or_default() += 1;
    }
    let Report { events, stations, commands, .. } = sources.readiness.report();
    Json(Stats {
        version: env!("CARGO_PKG_VERSION"),
        started_at: ocpp_station::envelope::rfc3339(sources.readiness.started_at),
        uptime_seconds: sources.readiness.started.elapsed().as_secs(),
        sessions: sessions.len(),
        sessions_by_version: by_version,
        stations_known: sources.stations.len(),
        bus: events.into(),
        stations_journal: stations.into(),
        commands_journal: commands.into(),
    })
}

/// Everything that is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus's text format", body = String, content_type = "text/plain"),
    (status = 500, description = "A metric cannot be written"),
))]
async fn metrics(State(sources): State<Arc<Sources>>) -> Result<Response, Problem> {
    let page = TextEncoder::new()
        .encode_to_string(&sources.metrics.gather())
        .map_err(|error| Problem::internal("metrics cannot be written", error.to_string()))?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
}

impl From<health::BusHealth> for BusHealth {
    fn from(health: health::BusHealth) -> Self {
        Self {
            state: health.state.as_str(),
            detail: health.detail,
            oldest_unacknowledged_ms: millis(health.oldest_unacknowledged),
            in_flight_records: health.in_flight_records,
            in_flight_bytes: health.in_flight_bytes,
            holding_ms: health.holding_for.map(millis),
            spool: health.spool.map(SpoolHealth::from),
        }
    }
}

impl From<health::SpoolHealth> for SpoolHealth {
    fn from(spool: health::SpoolHealth) -> Self {
        Self {
            records: spool.records,
            bytes: spool.bytes,
            capacity_bytes: spool.capacity_bytes,
            oldest_ms: millis(spool.oldest),
            alarm: spool.alarm,
            time_to_drain_ms: spool.time_to_drain.map(millis),
        }
    }
}
