//! `ocpp-gateway send`: sends a command to a station and prints its outcome.

use std::io::Read;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Failure;
use super::http::{Api, encoded};
use super::line::compact;
use super::output::{Colour, Output, Paint, plain};

/// How much longer than the command's own timeout to wait for the gateway's response.
const MARGIN: Duration = Duration::from_secs(30);
/// How long to wait when the gateway's configuration sets the timeout: longer than it is likely to be.
const LONGEST: Duration = Duration::from_secs(3600);

/// The options of `send`.
#[derive(Args)]
pub struct Options {
    /// The station's identity.
    station: String,
    /// The OCPP action, for example Reset.
    action: String,
    /// The payload: a JSON object, `@FILE`, or `-` for the standard input. `{}` if not given.
    payload: Option<String>,
    /// How long it may take; the gateway's `commands.default_timeout` if not given.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// The same in milliseconds.
    #[arg(long, value_name = "MILLISECONDS", conflicts_with = "timeout", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: Option<u64>,
    /// What to do while the station is away.
    #[arg(long, value_enum)]
    if_offline: Option<IfOffline>,
    /// The command's id; the gateway makes one if not given.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The gateway's answer as it is.
    #[arg(long)]
    json: bool,
}

/// What to do while the station is away.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum IfOffline {
    /// End at once.
    Fail,
    /// Keep the command and send it when the station is back.
    Queue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CommandRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<&'a str>,
    action: &'a str,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_offline: Option<IfOffline>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommandResponse {
    command_id: String,
    /// The outcome, or the state of a command that has not ended.
    #[serde(alias = "state")]
    status: String,
    payload: Option<Box<RawValue>>,
    error: Option<CommandError>,
}

#[derive(Deserialize)]
struct CommandError {
    code: String,
    description: String,
    details: Box<RawValue>,
}

pub(super) async fn run(api: &Api, options: &Options, mut output: Output) -> Result<u8, Failure> {
    let payload = payload(options.payload.as_deref())?;
    let timeout = options.timeout.or_else(|| options.timeout_ms.map(Duration::from_millis));
    let command = CommandRequest {
        command_id: options.id.as_deref(),
        action: &options.action,
        payload: &payload,
        timeout_ms: timeout
            .map(|timeout| u64::try_from(timeout.as_millis()))
            .transpose()
            .map_err(|_| Failure::Usage("--timeout is too long".to_owned()))?,
        if_offline: options.if_offline,
    };
    let body = serde_json::to_vec(&command).map_err(|error| Failure::Usage(error.to_string()))?;
    let path = format!("/api/v1/stations/{}/commands", encoded(&options.station));
    let limit = timeout.map_or(LONGEST, |timeout| timeout.saturating_add(MARGIN));
    let (status, answer) = api.post(&path, body, limit).await?;
    let outcome: CommandResponse =
        serde_json::from_slice(&answer).map_err(|error| Failure::NotUnderstood(error.to_string()))?;
    if options.json {
        output.line(&String::from_utf8_lossy(&answer))?;
    } else {
        let line = outcome_line(&outcome, output.paint());
        output.line(&line)?;
    }
    Ok(exit_code(status, &outcome.status))
}

fn payload(argument: Option<&str>) -> Result<Box<RawValue>, Failure> {
    let text = match argument {
        None => "{}".to_owned(),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure::Usage(format!("cannot read the payload: {error}")))?;
            text
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("cannot read the payload from {file}: {error}")))?,
            None => text.to_owned(),
        },
    };
    if text.trim().is_empty() {
        return Err(Failure::Usage(
            r#"the payload is empty; it must be a JSON object like {"type":"Soft"}"#.to_owned(),
        ));
    }
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Failure::Usage(format!("the payload is not JSON: {error}")))
}

fn outcome_line(outcome: &CommandResponse, paint: Paint) -> String {
    let colour = if outcome.error.is_none() { Colour::Good } else { Colour::Bad };
    let mut line = paint.text(colour, &plain(&outcome.status));
    match (&outcome.error, &outcome.payload) {
        (Some(error), _) => {
            // When the station did not answer, the code repeats the status.
            if error.code != outcome.status {
                line.push(' ');
                line.push_str(&plain(&error.code));
            }
            line.push_str(": ");
            line.push_str(&plain(&error.description));
            // Those of the gateway are in the description, for people.
            if outcome.status == "error" && error.details.get() != "{}" {
                line.push(' ');
                line.push_str(&compact(error.details.get()));
            }
        }
        (None, Some(payload)) => {
            line.push(' ');
            line.push_str(&compact(payload.get()));
        }
        (None, None) => {
            line.push_str(" as ");
            line.push_str(&plain(&outcome.command_id));
        }
    }
    line
}

/// What the status means to a script. A queued command is a success.
fn exit_code(http: StatusCode, status: &str) -> u8 {
    match (http, status) {
        (StatusCode::ACCEPTED, _) | (_, "answered") => 0,
        (_, "error") => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> String {
        outcome_line(&serde_json::from_str(text).unwrap(), Paint { colours: false })
    }

    #[test]
    fn an_outcome_is_one_line() {
        assert_eq!(
            line(
                r#"{"commandId":"c","stationId":"s","status":"answered","payload":{"status" : "Accepted"}}"#
            ),
            r#"answered {"status":"Accepted"}"#
        );
        assert_eq!(
            line(
                r#"{"commandId":"c","status":"error","error":{"code":"NotSupported","description":"no\u001b[2J","details":{"a": 1}}}"#
            ),
            r#"error NotSupported: no\u001b[2J {"a":1}"#
        );
        assert_eq!(
            line(
                r#"{"commandId":"c","status":"offline","error":{"code":"offline","description":"not here","details":{"known":false}}}"#
            ),
            "offline: not here"
        );
        assert_eq!(line(r#"{"commandId":"c-1","status":"queued"}"#), "queued as c-1");
    }

    #[test]
    fn each_outcome_has_its_exit_code() {
        assert_eq!(exit_code(StatusCode::OK, "answered"), 0);
        assert_eq!(exit_code(StatusCode::ACCEPTED, "queued"), 0);
        assert_eq!(exit_code(StatusCode::OK, "error"), 3);
        assert_eq!(exit_code(StatusCode::OK, "timeout"), 4);
    }

    #[test]
    fn a_payload_must_be_json() {
        assert_eq!(payload(None).unwrap().get(), "{}");
        assert_eq!(payload(Some(" {\"a\": 1.50}\n")).unwrap().get(), "{\"a\": 1.50}");
        let error = payload(Some(" \n")).unwrap_err();
        assert!(error.to_string().starts_with("the payload is empty"), "{error}");
        let error = payload(Some("{type:Soft}")).unwrap_err();
        assert!(error.to_string().starts_with("the payload is not JSON"), "{error}");
        assert_eq!(error.code(), 2);
    }
}
