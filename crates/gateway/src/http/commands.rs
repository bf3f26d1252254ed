//! Commands over HTTP: sending one and waiting for its outcome or not, asking for it later, cancelling it.
//!
//! Owns what a request may say in its headers and the status of each outcome. What becomes of a command is decided in
//! `ocpp_commands`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{HeaderMap, LOCATION};
use ocpp_commands::dispatcher::{Dispatcher, Submitted};
use ocpp_commands::request::{self, CommandRequest, InvalidCommand};
use ocpp_commands::store::{Accepted, Ended, Progress, Shown, TooLate};
use ocpp_protocol::Identity;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;
use uuid::Uuid;

use super::document::Operation;
use super::extract::{Json, RequestBody};
use super::problem::Problem;

/// How a command ended.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandOutcome)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    /// The sender's name for it, or the gateway's.
    command_id: &'a str,
    /// The station, in its registered spelling.
    station_id: &'a str,
    /// `answered`, `error`, `timeout`, `offline`, `expired`, `queueFull`, `invalid` or `replaced`.
    #[schema(pattern = "^(answered|error|timeout|offline|expired|queueFull|invalid|replaced)$")]
    status: &'a str,
    /// Whether it went onto the wire, once: `no`, `yes`, or `unknown` where the gateway stopped at that moment.
    #[schema(pattern = "^(no|yes|unknown)$")]
    sent: &'a str,
    /// Of `answered`: the station's answer, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    payload: Option<&'a RawValue>,
    /// Of `answered`: how the answer violates its schema, with `validation.mode` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    violation: Option<&'a str>,
    /// Of the others: what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<OutcomeError<'a>>,
}

/// What went wrong with a command.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandError)]
struct OutcomeError<'a> {
    /// Of `error`, the station's error code; else the status again, or `calledBack`.
    code: &'a str,
    /// For people.
    description: &'a str,
    /// As the station sent it; an object if it keeps to the specification. Of `offline`, `{"known":false}` if the gateway knows
    /// no such station, with `nearest` if it knows one of a similar identity.
    #[serde(serialize_with = "object_at_least")]
    #[schema(value_type = serde_json::Value)]
    details: Option<&'a RawValue>,
}

/// A command that has not ended.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandState)]
#[serde(rename_all = "camelCase")]
struct Running<'a> {
    /// The sender's name for it, or the gateway's.
    command_id: &'a str,
    /// The station, as the command named it.
    station_id: &'a str,
    /// The OCPP action.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'a str>,
    /// `waiting` for its station's session, `kept` while the station is away, or `sending`: sent and not answered.
    #[schema(pattern = "^(waiting|kept|sending)$")]
    state: &'a str,
    /// It is not sent after this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    send_by: Option<String>,
}

/// A command, whether it has ended or not.
#[derive(Serialize, ToSchema)]
#[schema(as = KnownCommand)]
#[serde(untagged)]
enum Known<'a> {
    Running(Running<'a>),
    Ended(Outcome<'a>),
}

/// Details that are missing are an empty object, as in the event.
fn object_at_least<S: Serializer>(details: &Option<&RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    match details {
        Some(details) => details.serialize(serializer),
        None => serializer.serialize_map(Some(0))?.end(),
    }
}

impl RequestBody for CommandRequest {
    const EXAMPLE: &'static str = request::EXAMPLE;
}

pub(super) fn operations(dispatcher: &Arc<Dispatcher>) -> Vec<Operation> {
    [routes!(send_command), routes!(show_command), routes!(cancel_command)]
        .map(|operation| operation.with_state(Arc::clone(dispatcher)))
        .into()
}

/// Sends a command to a station and waits for its outcome.
///
/// Whatever the outcome, its `ocpp.command.result` event is durable when this is answered. With `Prefer: respond-async` it is
/// answered as soon as the command is taken in, durably. A `commandId` that is known gets the first outcome, and nothing is
/// sent.
#[utoipa::path(post, path = "/api/v1/stations/{id}/commands", tag = "commands",
    params(
        ("id" = String, Path, description = "The station's identity, in any case"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context: the trace that the command belongs to"),
    ),
    request_body = CommandRequest,
    responses(
        (status = 200, description = "The command ended; `status` says how", body = Outcome<'static>),
        (status = 202, description = "It is kept while the station is away, or taken in", body = Running<'static>),
        (status = 400, description = "This is no command"),
        (status = 409, description = "The commandId is another command's"),
        (status = 413, description = "The payload is larger than a station's messages may be"),
        (status = 503, description = "Too many commands are under way, or the gateway is leaving"),
    ))]
async fn send_command(
    State(dispatcher): State<Arc<Dispatcher>>,
    Path(station): Path<String>,
    headers: HeaderMap,
    Json(mut request): Json<CommandRequest>,
) -> Result<Response, Problem> {
    request.traceparent = request.traceparent.or_else(|| traceparent(&headers));
    if request.station_id.as_deref().is_some_and(|named| named != station) {
        return Err(Problem::bad_request("stationId is not the station of the path"));
    }
    if station.len() > 4 * Identity::MAX_CHARS {
        return Err(Problem::bad_request("no such station: the name is too long"));
    }
    let id = || Uuid::now_v7().to_string();
    let command = dispatcher.limits.command(request, Some(&station), id, SystemTime::now())?;
    let (id, station) = (Arc::clone(&command.id), command.station.clone());
    let respond_async = prefers_async(&headers);
    let progress = match dispatcher.submit(command) {
        Submitted::New { saved, .. } if respond_async => {
            saved.await.map_err(|_| leaving())?;
            return Ok(accepted(&id, &station, "waiting"));
        }
        Submitted::New { progress, .. } => progress,
        Submitted::Known(Accepted::Running(_)) if respond_async => {
            dispatcher.save_again(&id).await;
            return Ok(accepted(&id, &station, "waiting"));
        }
        Submitted::Known(Accepted::Running(progress)) => progress,
        Submitted::Known(Accepted::Queued(_)) => {
            dispatcher.save_again(&id).await;
            return Ok(accepted(&id, &station, "kept"));
        }
        Submitted::Known(Accepted::Ended(ended)) => return outcome(&ended),
        Submitted::Known(Accepted::Crowded(_)) | Submitted::Busy => {
            let detail = "commands.max_in_flight is reached, or too many wait for this one";
            return Err(Problem::unavailable("too many commands", detail));
        }
        Submitted::Known(Accepted::Conflict(_)) => {
            let detail = format!("commandId {id:?} is another command's");
            return Err(Problem::conflict("the commandId is taken", detail));
        }
        // `submit` never gives these as known.
        Submitted::Known(Accepted::New(..)) => return Err(leaving()),
    };
    match progress.await.map_err(|_| leaving())? {
        Progress::Ended(ended) => outcome(&ended),
        Progress::Queued => Ok(accepted(&id, &station, "kept")),
    }
}

/// A command, and its outcome if it has ended.
#[utoipa::path(get, path = "/api/v1/commands/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its commandId")),
    responses(
        (status = 200, description = "Its outcome, or how far it is", body = Known<'static>),
        (status = 404, description = "It is not known, or was forgotten"),
    ))]
async fn show_command(
    State(dispatcher): State<Arc<Dispatcher>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let known = |running| Ok(Json(Known::Running(running)).into_response());
    match dispatcher.store.show(&id) {
        Some(Shown::Running(state, command)) => known(Running {
            command_id: &id,
            station_id: &command.station,
            action: Some(&command.action),
            state,
            send_by: Some(ocpp_station::envelope::rfc3339(command.send_by())),
        }),
        // Nobody hears of an end before it is durable.
        Some(Shown::Ending(ended)) => known(Running {
            command_id: &id,
            station_id: &ended.station,
            action: None,
            state: "sending",
            send_by: None,
        }),
        Some(Shown::Ended(ended)) => outcome(&ended),
        None => Err(unknown(&id)),
    }
}

/// Calls a command back that has not been sent.
#[utoipa::path(delete, path = "/api/v1/commands/{id}", tag = "commands", operation_id = "call_command_back",
    params(("id" = String, Path, description = "Its commandId")),
    responses(
        (status = 200, description = "It has ended so", body = Outcome<'static>),
        (status = 404, description = "It is not known, or was forgotten"),
        (status = 409, description = "It is being sent, or has ended"),
    ))]
async fn cancel_command(
    State(dispatcher): State<Arc<Dispatcher>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match dispatcher.cancel(&id).await {
        Ok(ended) => outcome(&ended),
        Err(TooLate::Unknown) => Err(unknown(&id)),
        Err(TooLate::Ended) => Err(Problem::conflict("too late", "the command has ended")),
        Err(_) => Err(Problem::conflict("too late", "the command is being sent")),
    }
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("no command {id:?} is known; ended ones are forgotten after a while"))
}

fn leaving() -> Problem {
    Problem::unavailable("the gateway is leaving", "ask for the command later")
}

impl From<InvalidCommand> for Problem {
    fn from(invalid: InvalidCommand) -> Self {
        match invalid {
            InvalidCommand::TooLarge(_) | InvalidCommand::TooMany(_) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "the command is too large", invalid.to_string())
            }
            other => Self::bad_request(other.to_string()),
        }
    }
}

/// The trace that a request belongs to (W3C Trace Context, section 3.2).
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    headers.get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// RFC 7240 section 4.1.
fn prefers_async(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("prefer").into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split([',', ';']))
        .any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
}

fn accepted(command_id: &str, station_id: &str, state: &str) -> Response {
    let location = format!("/api/v1/commands/{}", utf8_percent_encode(command_id, NON_ALPHANUMERIC));
    let running = Running { command_id, station_id, action: None, state, send_by: None };
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(running)).into_response()
}

/// The outcome, the station's answer spliced in byte for byte.
fn outcome(ended: &Ended) -> Result<Response, Problem> {
    let outcome = ended.outcome.as_ref().ok_or_else(|| {
        Problem::internal("not readable", format!("the result of {:?} is not readable", ended.id))
    })?;
    let error = outcome.error.as_ref().map(|error| OutcomeError {
        code: &error.code,
        description: &error.description,
        details: error.details.as_deref(),
    });
    let written = Known::Ended(Outcome {
        command_id: &ended.id,
        station_id: &ended.station,
        status: outcome.status.as_str(),
        sent: outcome.sent.as_str(),
        payload: outcome.payload.as_deref(),
        violation: outcome.violation.as_deref(),
        error,
    });
    Ok(Json(written).into_response())
}
