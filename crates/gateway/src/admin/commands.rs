//! `POST /api/v1/stations/{id}/commands`: a command over HTTP, answered with its outcome.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use ocpp_bus::event::json_string;
use ocpp_protocol::Identity;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Admin, Answer, Problem, body_of, typed};
use crate::command::{Outcome, Request as CommandRequest};

const LONGEST_ID: usize = 128;
/// The longest name in OCPP has 33 characters.
const LONGEST_ACTION: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Command {
    command_id: Option<String>,
    action: String,
    payload: Option<Box<RawValue>>,
    timeout_ms: Option<u64>,
    expires_at: Option<String>,
    if_offline: Option<IfOffline>,
}

/// What to do while the station is away. Keeping the command for later is not offered here.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum IfOffline {
    Fail,
}

impl Admin {
    pub(super) async fn send_command(&self, station: &str, request: Request<Incoming>) -> Answer {
        let body = body_of(request).await?;
        let command: Command =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        let Command {
            command_id,
            action,
            payload,
            timeout_ms,
            expires_at,
            if_offline: Some(IfOffline::Fail) | None,
        } = command;
        let id = command_id.unwrap_or_else(|| Uuid::now_v7().to_string());
        if id.is_empty() || id.len() > LONGEST_ID {
            return Err(Problem::bad_request(format!("commandId must have 1 to {LONGEST_ID} bytes")));
        }
        if action.len() > LONGEST_ACTION || station.len() > 4 * Identity::MAX_CHARS {
            return Err(Problem::bad_request("no such action or station: the name is too long"));
        }
        let most = self.shared.limits.max_message_size.as_u64();
        if payload.as_ref().is_some_and(|payload| payload.get().len() as u64 > most) {
            let detail = format!("the payload may have {most} bytes (session.max_message_size)");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the payload is too large", detail));
        }
        let payload = match payload {
            None => RawValue::from_string("{}".to_owned())
                .map_err(|error| Problem::bad_request(error.to_string()))?,
            Some(payload) if payload.get().starts_with('{') => payload,
            Some(_) => return Err(Problem::bad_request("payload must be an object")),
        };
        let request = CommandRequest {
            id: id.clone(),
            action,
            payload,
            timeout: timeout_ms.map(Duration::from_millis),
            expires_at: expires_at.map(|text| time(&text)).transpose()?,
        };
        let outcome = self.router.send(station, request).await;
        Ok(typed(StatusCode::OK, "application/json", Bytes::from(written(&id, station, &outcome))))
    }
}

fn time(text: &str) -> Result<SystemTime, Problem> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|_| Problem::bad_request(format!("expiresAt {text:?} is not an RFC 3339 time in UTC")))
}

/// The outcome as JSON, the station's answer spliced in byte for byte.
fn written(id: &str, station: &str, outcome: &Outcome) -> String {
    let mut text = format!(
        r#"{{"commandId":{},"stationId":{},"status":"{}""#,
        json_string(id),
        json_string(station),
        outcome.status.as_str()
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
