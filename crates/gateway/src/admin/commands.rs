//! Commands over HTTP: sending one and waiting for its outcome or not, asking for it later, calling it back.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use ocpp_bus::event::json_string;
use ocpp_protocol::Identity;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::{Admin, Answer, Body, Problem, body_of, typed};
use crate::command::book::{Begun, CalledBack, Ended, Progress, Shown};
use crate::command::request::{CommandRequest, Flaw};
use crate::command::router::Submitted;
use crate::command::{Command, Outcome};

impl Admin {
    /// Sends a command. 200 with its outcome; 202 when it is kept for a station that is away, or with
    /// `Prefer: respond-async` (RFC 7240) as soon as it is taken in, durably.
    pub(super) async fn send_command(&self, station: &str, request: Request<Incoming>) -> Answer {
        let respond_async = prefers_async(request.headers());
        let body = body_of(request).await?;
        let stated: CommandRequest =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
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
                return Ok(accepted(&id, &station, "waiting"));
            }
            Submitted::Known(Begun::Running(progress)) => progress,
            Submitted::Known(Begun::Kept) => return Ok(accepted(&id, &station, "kept")),
            Submitted::Known(Begun::Ended(ended)) => return ended_as_json(&ended),
            Submitted::Known(Begun::Crowded) | Submitted::Busy => {
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
            Progress::Ended(ended) => ended_as_json(&ended),
            Progress::Kept => Ok(accepted(&id, &station, "kept")),
        }
    }

    /// What is known of a command.
    pub(super) fn show_command(&self, id: &str) -> Answer {
        match self.router.book.show(id) {
            Some(Shown::Running(state, command)) => {
                let text = state_as_json(&command, state);
                Ok(typed(StatusCode::OK, "application/json", Bytes::from(text)))
            }
            Some(Shown::Ended(ended)) => ended_as_json(&ended),
            None => Err(unknown(id)),
        }
    }

    /// Calls a command back that has not left. 200 with its outcome; 409 when it is too late.
    pub(super) async fn call_command_back(&self, id: &str) -> Answer {
        match self.router.call_back(id).await {
            Ok(ended) => ended_as_json(&ended),
            Err(CalledBack::Unknown) => Err(unknown(id)),
            Err(CalledBack::Ended) => Err(too_late("the command has ended")),
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

fn problem(flaw: Flaw) -> Problem {
    match flaw {
        Flaw::TooLarge(_) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the payload is too large", flaw.to_string())
        }
        other => Problem::bad_request(other.to_string()),
    }
}

/// RFC 7240 section 4.1.
fn prefers_async(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("prefer").into_iter().filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split([',', ';']))
        .any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
}

fn accepted(id: &str, station: &str, state: &str) -> Response<Body> {
    let text = format!(
        r#"{{"commandId":{},"stationId":{},"state":"{state}"}}"#,
        json_string(id),
        json_string(station)
    );
    let mut response = typed(StatusCode::ACCEPTED, "application/json", Bytes::from(text));
    let place = format!("/api/v1/commands/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

fn state_as_json(command: &Command, state: &str) -> String {
    format!(
        r#"{{"commandId":{},"stationId":{},"action":{},"state":"{state}","sendBy":"{}"}}"#,
        json_string(&command.id),
        json_string(&command.station),
        json_string(&command.action),
        ocpp_bus::event::rfc3339(command.send_by())
    )
}

fn ended_as_json(ended: &Ended) -> Answer {
    let outcome = ended.outcome().ok_or_else(|| {
        let detail = format!("the result of {:?} is not readable", ended.id);
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not readable", detail)
    })?;
    let text = written(&ended.id, &ended.station, &outcome);
    Ok(typed(StatusCode::OK, "application/json", Bytes::from(text)))
}

/// The outcome as JSON, the station's answer spliced in byte for byte.
fn written(id: &str, station: &str, outcome: &Outcome) -> String {
    let mut text = format!(
        r#"{{"commandId":{},"stationId":{},"status":"{}","sent":"{}""#,
        json_string(id),
        json_string(station),
        outcome.status.as_str(),
        outcome.sent.as_str()
    );
    if let Some(payload) = &outcome.payload {
        text.push_str(r#","payload":"#);
        text.push_str(payload.get());
    }
    if let Some(error) = &outcome.error {
        text.push_str(r#","error":"#);
        text.push_str(&error.to_json());
    }
    text.push('}');
    text
}
