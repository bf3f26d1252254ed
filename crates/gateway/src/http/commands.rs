//! Commands over HTTP: sending one and waiting for its outcome or not, asking for it later, calling it back.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use ocpp_protocol::Identity;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Admin, Answer, Body, Problem, body_of, json};
use crate::command::book::{Begun, Ended, Progress, Shown, TooLate};
use crate::command::request::{CommandRequest, Flaw};
use crate::command::router::Submitted;

/// How a command ended.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandOutcome)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome<'a> {
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
    /// As the station sent it; an object if it keeps to the specification.
    #[serde(serialize_with = "object_at_least")]
    #[schema(value_type = serde_json::Value)]
    details: Option<&'a RawValue>,
}

/// A command that has not ended.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandState)]
#[serde(rename_all = "camelCase")]
pub(super) struct Running<'a> {
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
#[derive(ToSchema)]
#[schema(as = KnownCommand)]
#[serde(untagged)]
#[allow(dead_code, reason = "only its schema is used: each answer is one of the two")]
pub(super) enum Known<'a> {
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

impl Admin {
    /// Sends a command. 200 with its outcome; 202 when it is kept for a station that is away, or with
    /// `Prefer: respond-async` (RFC 7240) as soon as it is taken in, durably.
    pub(super) async fn send_command(&self, station: &str, request: Request<Incoming>) -> Answer {
        let respond_async = prefers_async(request.headers());
        let header = traceparent(request.headers());
        let body = body_of(request).await?;
        let mut stated: CommandRequest =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        stated.traceparent = stated.traceparent.or(header);
        if stated.station_id.as_deref().is_some_and(|named| named != station) {
            return Err(Problem::bad_request("stationId is not the station of the path"));
        }
        if station.len() > 4 * Identity::MAX_CHARS {
            return Err(Problem::bad_request("no such station: the name is too long"));
        }
        let id = || Uuid::now_v7().to_string();
        let command =
            self.router.limits.command(stated, Some(station), id, SystemTime::now()).map_err(problem)?;
        let (id, station) = (Arc::clone(&command.id), command.station.clone());
        let progress = match self.router.submit(command) {
            Submitted::New { saved, progress, .. } => {
                if respond_async {
                    saved.await.map_err(|_| leaving())?;
                    return Ok(accepted(&id, &station, "waiting"));
                }
                progress
            }
            Submitted::Known(Begun::Running(_)) if respond_async => {
                self.router.note_again(&id).await;
                return Ok(accepted(&id, &station, "waiting"));
            }
            Submitted::Known(Begun::Running(progress)) => progress,
            Submitted::Known(Begun::Kept(_)) => {
                self.router.note_again(&id).await;
                return Ok(accepted(&id, &station, "kept"));
            }
            Submitted::Known(Begun::Ended(ended)) => return outcome(&ended),
            Submitted::Known(Begun::Crowded(_)) | Submitted::Busy => {
                let detail = "commands.max_in_flight is reached, or too many wait for this one";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many commands", detail));
            }
            Submitted::Known(Begun::Conflict(_)) => {
                let detail = format!("commandId {id:?} is another command's");
                return Err(Problem::new(StatusCode::CONFLICT, "the commandId is taken", detail));
            }
            // `submit` never gives these as known.
            Submitted::Known(Begun::New(..)) => return Err(leaving()),
        };
        match progress.await.map_err(|_| leaving())? {
            Progress::Ended(ended) => outcome(&ended),
            Progress::Kept => Ok(accepted(&id, &station, "kept")),
        }
    }

    /// What is known of a command: its outcome, or how far it is.
    pub(super) fn show_command(&self, id: &str) -> Answer {
        match self.router.book.show(id) {
            Some(Shown::Running(state, command)) => {
                let send_by = Some(ocpp_bus::event::rfc3339(command.send_by()));
                let (station_id, action) = (command.station.as_str(), Some(command.action.as_str()));
                let running = Running { command_id: id, station_id, action, state, send_by };
                Ok(json(StatusCode::OK, &running))
            }
            // Nobody hears of an end before it is durable.
            Some(Shown::Ending(ended)) => {
                let (station_id, state) = (ended.station.as_str(), "sending");
                let running = Running { command_id: id, station_id, action: None, state, send_by: None };
                Ok(json(StatusCode::OK, &running))
            }
            Some(Shown::Ended(ended)) => outcome(&ended),
            None => Err(unknown(id)),
        }
    }

    /// Calls a command back that has not left. 200 with its outcome; 409 when it is too late.
    pub(super) async fn call_command_back(&self, id: &str) -> Answer {
        match self.router.call_back(id).await {
            Ok(ended) => outcome(&ended),
            Err(TooLate::Unknown) => Err(unknown(id)),
            Err(TooLate::Ended) => Err(too_late("the command has ended")),
            Err(_) => Err(too_late("the command is being sent")),
        }
    }
}

fn unknown(id: &str) -> Problem {
    Problem::not_found(format!("no command {id:?} is known; ended ones are forgotten after a while"))
}

fn too_late(detail: &'static str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "too late", detail)
}

fn leaving() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gateway is leaving", "ask for the command later")
}

pub(super) fn problem(flaw: Flaw) -> Problem {
    match flaw {
        Flaw::TooLarge(_) | Flaw::TooMany(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the command is too large", flaw.to_string())
        }
        other => Problem::bad_request(other.to_string()),
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

fn accepted(command_id: &str, station_id: &str, state: &str) -> Response<Body> {
    let running = Running { command_id, station_id, action: None, state, send_by: None };
    let mut response = json(StatusCode::ACCEPTED, &running);
    let place = format!("/api/v1/commands/{}", utf8_percent_encode(command_id, NON_ALPHANUMERIC));
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// The outcome, the station's answer spliced in byte for byte.
fn outcome(ended: &Ended) -> Answer {
    let outcome = ended.outcome().ok_or_else(|| {
        let detail = format!("the result of {:?} is not readable", ended.id);
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not readable", detail)
    })?;
    let error = outcome.error.as_ref().map(|error| OutcomeError {
        code: &error.code,
        description: &error.description,
        details: error.details.as_deref(),
    });
    let written = Outcome {
        command_id: &ended.id,
        station_id: &ended.station,
        status: outcome.status.as_str(),
        sent: outcome.sent.as_str(),
        payload: outcome.payload.as_deref(),
        error,
    };
    Ok(json(StatusCode::OK, &written))
}
