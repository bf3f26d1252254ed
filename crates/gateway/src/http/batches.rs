//! Batches over HTTP: one command for many stations.
//!
//! Owns what is answered; how a batch goes on is [`ocpp_commands::batch`].

use std::sync::Arc;

use axum::extract::{Path, State};
use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION};
use ocpp_commands::Dispatcher;
use ocpp_commands::batch::{Refused, Summary};
use ocpp_commands::request::BatchRequest;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;
use uuid::Uuid;

use super::commands::traceparent;
use super::document::Operation;
use super::extract::{Json, RequestBody};
use super::problem::Problem;

impl RequestBody for BatchRequest {
    const EXAMPLE: &'static str = r#"{"to":{"tag":"depot"},"action":"ClearCache","payload":{}}"#;
}

pub(super) fn operations(dispatcher: &Arc<Dispatcher>) -> Vec<Operation> {
    [routes!(send_batch), routes!(show_batch), routes!(cancel_batch)]
        .map(|operation| operation.with_state(Arc::clone(dispatcher)))
        .into()
}

/// Sends one command to many stations, at a pace.
///
/// Each has its own `ocpp.command.result`; an `ocpp.command.summary` follows the last. Taken in, durably, when it is answered. A
/// `batchId` that is known is not sent again.
#[utoipa::path(post, path = "/api/v1/commands", tag = "commands",
    params(("traceparent" = Option<String>, Header, description = "W3C Trace Context: the trace that the commands belong to")),
    request_body = BatchRequest,
    responses(
        (status = 202, description = "It is taken in", body = Summary),
        (status = 400, description = "This is no command for stations"),
        (status = 413, description = "Too many stations, or too large a payload"),
        (status = 503, description = "commands.max_batches is reached"),
    ))]
async fn send_batch(
    State(dispatcher): State<Arc<Dispatcher>>,
    headers: HeaderMap,
    Json(mut request): Json<BatchRequest>,
) -> Result<(StatusCode, [(hyper::header::HeaderName, String); 1], Json<Option<Summary>>), Problem> {
    request.traceparent = request.traceparent.or_else(|| traceparent(&headers));
    let id = || Uuid::now_v7().to_string();
    let plan = Arc::new(dispatcher.limits.plan(request, id, |to| dispatcher.addressed(to))?);
    match dispatcher.begin_batch(Arc::clone(&plan)).await {
        // One that is known is not sent again.
        Ok(()) | Err(Refused::Known) => {}
        Err(Refused::Busy) => {
            return Err(Problem::unavailable("too many batches", "commands.max_batches is reached"));
        }
    }
    let location = format!("/api/v1/batches/{}", utf8_percent_encode(&plan.id, NON_ALPHANUMERIC));
    Ok((StatusCode::ACCEPTED, [(LOCATION, location)], Json(dispatcher.store.batches.summary(&plan.id))))
}

/// How a command for many stations is going.
#[utoipa::path(get, path = "/api/v1/batches/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its batchId")),
    responses(
        (status = 200, description = "It is known", body = Summary),
        (status = 404, description = "It is not, or was forgotten"),
    ))]
async fn show_batch(
    State(dispatcher): State<Arc<Dispatcher>>,
    Path(id): Path<String>,
) -> Result<Json<Summary>, Problem> {
    dispatcher.store.batches.summary(&id).map(Json).ok_or_else(|| unknown(&id))
}

/// Calls back what has not been sent of a command for many stations.
#[utoipa::path(delete, path = "/api/v1/batches/{id}", tag = "commands", operation_id = "call_batch_back",
    params(("id" = String, Path, description = "Its batchId")),
    responses(
        (status = 202, description = "What has not been sent comes to its end", body = Summary),
        (status = 404, description = "It is not known, or was forgotten"),
        (status = 409, description = "It has ended"),
    ))]
async fn cancel_batch(
    State(dispatcher): State<Arc<Dispatcher>>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Summary>), Problem> {
    if let Some(summary) = dispatcher.cancel_batch(&id).await {
        return Ok((StatusCode::ACCEPTED, Json(summary)));
    }
    Err(match dispatcher.store.batches.summary(&id) {
        Some(_) => Problem::conflict("too late", "the batch has ended"),
        None => unknown(&id),
    })
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("no batch {id:?} is known"))
}
