//! An event as one readable line: `time arrow type action id payload`.
//!
//! Owns the layout. An event of an unknown type is shown with all its data.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::output::{Colour, Paint, plain};

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    data: Box<RawValue>,
}

/// The members of `data` (`docs/asyncapi.yaml`) of all event types together.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    message_type: Option<String>,
    message_id: Option<String>,
    action: Option<String>,
    payload: Option<Box<RawValue>>,
    error_code: Option<String>,
    error_description: Option<String>,
    error_details: Option<Box<RawValue>>,
    raw: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    remote_address: Option<String>,
    ocpp_version: Option<String>,
    replaced: Option<String>,
    close_code: Option<u16>,
    duration_ms: Option<u64>,
    http_status: Option<u16>,
    path: Option<String>,
    command_id: Option<String>,
    status: Option<String>,
    error: Option<CommandError>,
}

#[derive(Deserialize)]
struct CommandError {
    code: String,
    description: String,
}

/// Formats an event as a line; `named` adds the station's identity, for when several stations are shown.
///
/// # Errors
/// When the text is not an event.
pub(super) fn event_line(text: &str, named: bool, paint: Paint) -> Result<String, serde_json::Error> {
    let event: Event = serde_json::from_str(text)?;
    let data: Data = serde_json::from_str(event.data.get())?;
    let faint = |text: &str| paint.text(Colour::Faint, text);
    let mut parts = vec![faint(&event.time)];
    if named {
        parts.push(plain(&event.subject).into_owned());
    }
    match event.kind.as_str() {
        "ocpp.message.received" => {
            parts.push(paint.text(Colour::Inbound, "←"));
            message(&mut parts, data, paint);
        }
        "ocpp.message.sent" => {
            parts.push(paint.text(Colour::Outbound, "→"));
            message(&mut parts, data, paint);
        }
        "ocpp.station.connected" => {
            parts.push(paint.text(Colour::Good, "connected"));
            parts.extend(data.ocpp_version.map(|version| format!("OCPP {version}")));
            parts.extend(data.remote_address.map(|remote| format!("from {remote}")));
            parts.extend(data.replaced.map(|session| format!("replacing session {session}")));
        }
        "ocpp.station.disconnected" => {
            parts.push(paint.text(Colour::Bad, "disconnected"));
            parts.extend(data.reason);
            parts.extend(data.close_code.map(|code| code.to_string()));
            parts.extend(data.duration_ms.map(|lasted| format!("after {}", seconds(lasted))));
            parts.extend(data.note.map(|note| plain(&note).into_owned()));
        }
        "ocpp.station.rejected" => {
            parts.push(paint.text(Colour::Bad, "rejected"));
            parts.extend(data.reason);
            parts.extend(data.http_status.map(|status| status.to_string()));
            parts.extend(data.remote_address.map(|remote| format!("from {remote}")));
            parts.extend(data.path.map(|path| format!("at {}", plain(&path))));
        }
        "ocpp.command.result" => {
            let colour = if data.error.is_none() { Colour::Good } else { Colour::Bad };
            parts.push("command".to_owned());
            parts.push(paint.text(colour, &data.status.unwrap_or_default()));
            parts.extend(data.action.map(|action| plain(&action).into_owned()));
            parts.extend(data.command_id.map(|id| faint(&plain(&id))));
            parts.extend(data.payload.map(|payload| compact(payload.get())));
            parts.extend(data.error.map(|error| error_text(&error.code, &error.description)));
        }
        other => {
            parts.push(plain(other).into_owned());
            parts.push(compact(event.data.get()));
        }
    }
    Ok(parts.join(" "))
}

/// Pads the message type, so that the actions of consecutive lines are aligned.
fn message(parts: &mut Vec<String>, data: Data, paint: Paint) {
    let kind = data.message_type.unwrap_or_default();
    let colour = if kind.contains("ERROR") || kind == "MALFORMED" { Some(Colour::Bad) } else { None };
    let column = format!("{kind:<10}");
    parts.push(colour.map_or_else(|| column.clone(), |colour| paint.text(colour, &column)));
    parts.push(data.action.map_or_else(|| "-".to_owned(), |action| plain(&action).into_owned()));
    parts.push(paint.text(Colour::Faint, &plain(data.message_id.as_deref().unwrap_or("-"))));
    parts.extend(data.payload.map(|payload| compact(payload.get())));
    if let Some(code) = data.error_code {
        parts.push(error_text(&code, &data.error_description.unwrap_or_default()));
        parts.extend(data.error_details.filter(|it| it.get() != "{}").map(|it| compact(it.get())));
    }
    if let Some(raw) = data.raw {
        parts.extend(data.reason.map(|reason| format!("{reason}:")));
        parts.push(plain(&raw).into_owned());
    }
}

fn error_text(code: &str, description: &str) -> String {
    format!("{}: {}", plain(code), plain(description))
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}s", milliseconds / 1000, milliseconds % 1000)
}

/// Removes the white space between the tokens of JSON. Everything else, numbers and escapes included, stays as it was sent.
pub(super) fn compact(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for character in json.chars() {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
        } else if character.is_ascii_whitespace() {
            continue;
        } else {
            in_string = character == '"';
        }
        compact.push(character);
    }
    plain(&compact).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &str, data: &str, named: bool) -> String {
        let event = format!(
            r#"{{"specversion":"1.0","id":"i","source":"/ocpp-gateway/gw-1","type":"{kind}","subject":"CP-1","time":"T","data":{data}}}"#
        );
        event_line(&event, named, Paint { colours: false }).unwrap()
    }

    #[test]
    fn every_event_type_has_its_line() {
        let cases = [
            (
                "ocpp.message.received",
                r#"{"messageType":"CALL","messageId":"42","action":"Heartbeat","payload":{ },"answeredBy":"gateway"}"#,
                "T ← CALL       Heartbeat 42 {}",
            ),
            (
                "ocpp.message.sent",
                r#"{"messageType":"CALLRESULT","messageId":"42","action":"Heartbeat","payload":{"currentTime": "N"}}"#,
                r#"T → CALLRESULT Heartbeat 42 {"currentTime":"N"}"#,
            ),
            (
                "ocpp.message.sent",
                r#"{"messageType":"CALLERROR","messageId":"-1","errorCode":"GenericError","errorDescription":"bad","errorDetails":{}}"#,
                "T → CALLERROR  - -1 GenericError: bad",
            ),
            (
                "ocpp.message.received",
                r#"{"messageType":"MALFORMED","reason":"not_json","raw":"[2,\n"}"#,
                "T ← MALFORMED  - - not_json: [2,\\u000a",
            ),
            (
                "ocpp.station.connected",
                r#"{"ocppVersion":"1.6","remoteAddress":"[::1]:5","replaced":"s-0"}"#,
                "T connected OCPP 1.6 from [::1]:5 replacing session s-0",
            ),
            (
                "ocpp.station.disconnected",
                r#"{"reason":"operator","note":"a new key","closeCode":1000,"durationMs":1234,"messagesIn":1,"messagesOut":1}"#,
                "T disconnected operator 1000 after 1.234s a new key",
            ),
            (
                "ocpp.station.rejected",
                r#"{"reason":"unknownStation","remoteAddress":"[::1]:5","httpStatus":404,"path":"/ocpp/T"}"#,
                "T rejected unknownStation 404 from [::1]:5 at /ocpp/T",
            ),
            (
                "ocpp.command.result",
                r#"{"commandId":"c-1","action":"Reset","status":"timeout","error":{"code":"timeout","description":"no answer","details":{}}}"#,
                "T command timeout Reset c-1 timeout: no answer",
            ),
            ("ocpp.new", r#"{"a": 1}"#, r#"T ocpp.new {"a":1}"#),
        ];
        for (kind, data, expected) in cases {
            assert_eq!(shown(kind, data, false), expected);
        }
        assert_eq!(shown("ocpp.new", "{}", true), "T CP-1 ocpp.new {}");
    }

    #[test]
    fn only_space_between_tokens_is_removed() {
        assert_eq!(
            compact("{ \"a b\\\" \" :\t1.50 ,\n\"c\\\\\" : [ \"\\u00e9\" ] }"),
            r#"{"a b\" ":1.50,"c\\":["\u00e9"]}"#
        );
    }
}
