//! `GET /api/v1/deviations`: which models of stations deviate from OCPP, and how.
//!
//! Owns the page and its filters. What is counted, and how much, is `deviations.rs`'s.

use std::sync::Arc;

use axum::extract::State;
use ocpp_protocol::IdentityKey;
use ocpp_station::envelope::rfc3339;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::{FromQuery, Json, Query, Values};
use super::problem::Problem;
use crate::deviations::{Deviations, Shown};

const DEFAULT_ROWS: usize = 100;
const MOST_ROWS: usize = 10_000;

/// How stations deviate, the most frequent first.
#[derive(Serialize, ToSchema)]
#[schema(as = Deviations)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// When the gateway began to count.
    #[schema(format = DateTime)]
    since: String,
    /// Rows that there are; the filters and the limit may show fewer.
    total: usize,
    /// What stations of one model do.
    deviations: Vec<Row>,
}

/// What stations of one model do.
#[derive(Serialize, ToSchema)]
#[schema(as = Deviation)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// What the stations said in their BootNotification; none if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// What they speak.
    ocpp_version: &'static str,
    /// The type of the message, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<&'static str>,
    /// Its action, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    /// The path of the member without positions in lists, such as `meterValue[].sampledValue[].unit`; empty for the payload.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// What is wrong with it: a word of `validation.tolerate` or a graver one, or the kind of a leniency.
    kind: &'static str,
    /// How often.
    count: u64,
    /// How often it was in a message that was refused, and not tolerated.
    refused: u64,
    /// How many stations do it; beyond 1000 no more are counted.
    stations: usize,
    /// How often the station does it that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_station: Option<u64>,
    /// Some of the stations, the last one last.
    examples: Vec<String>,
    /// What was wrong the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<String>,
    /// When it was first seen.
    #[schema(format = DateTime)]
    first_seen: String,
    /// When it was last seen.
    #[schema(format = DateTime)]
    last_seen: String,
}

/// Which rows are shown.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only what this station does
    station: Option<String>,
    /// Only this action
    action: Option<String>,
    /// Only this kind
    kind: Option<String>,
    /// Rows, at most
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

impl FromQuery for Filter {
    fn from_query(mut values: Values) -> Result<Self, Problem> {
        Ok(Self {
            station: values.text("station"),
            action: values.text("action"),
            kind: values.text("kind"),
            limit: values.number("limit", 1..=MOST_ROWS)?,
        })
    }
}

impl Filter {
    fn passes(&self, row: &Shown) -> bool {
        self.action.as_deref().is_none_or(|wanted| row.deed.action == Some(wanted))
            && self.kind.as_deref().is_none_or(|wanted| row.deed.kind == wanted)
    }
}

impl From<Shown> for Row {
    fn from(row: Shown) -> Self {
        let (vendor, model) = row.model.map(|model| (model.vendor, model.model)).unzip();
        Self {
            vendor,
            model,
            ocpp_version: row.version.as_str(),
            message_type: row.deed.message_type,
            action: row.deed.action,
            member: row.deed.member,
            kind: row.deed.kind,
            count: row.count,
            refused: row.refused,
            stations: row.stations,
            by_station: row.by_station,
            examples: row.named,
            example: row.example,
            first_seen: rfc3339(row.first_seen),
            last_seen: rfc3339(row.last_seen),
        }
    }
}

pub(super) fn operations(deviations: Arc<Deviations>) -> Vec<Operation> {
    vec![routes!(show_deviations).with_state(deviations)]
}

/// How stations deviate from OCPP: what violates a schema, and what was let through.
///
/// Payloads are looked into with `validation.mode` `warn` or `enforce` only. Counted since the gateway started.
#[utoipa::path(get, path = "/api/v1/deviations", tag = "stations",
    params(Filter),
    responses(
        (status = 200, description = "The report", body = Report),
        (status = 400, description = "A parameter is wrong or unknown"),
    ))]
async fn show_deviations(
    State(deviations): State<Arc<Deviations>>,
    Query(filter): Query<Filter>,
) -> Json<Report> {
    let station = filter.station.as_deref().map(IdentityKey::of);
    let rows = deviations.report(station.as_ref());
    let total = rows.len();
    let shown = rows.into_iter().filter(|row| filter.passes(row));
    Json(Report {
        since: rfc3339(deviations.since()),
        total,
        deviations: shown.take(filter.limit.unwrap_or(DEFAULT_ROWS)).map(Row::from).collect(),
    })
}
