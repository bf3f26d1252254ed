//! A backend's answer as it arrives: JSON over HTTP, or on the topic of commands.
//!
//! Owns reading and the limits of what is read. Whether a CALL waits for it is for `backend.rs` to find out. The payload
//! stays the backend's text and goes to the station byte for byte.

use ocpp_protocol::{ErrorCode, Identity, MAX_DESCRIPTION_CHARS, MessageId};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use ocpp_station::{Response, SessionId};

/// A backend's answer to a station's CALL.
#[derive(Debug)]
pub struct BackendAnswer {
    /// The station, in any spelling.
    pub station: String,
    /// The session in which the CALL came, as its event says. Without it the message id alone decides.
    pub session: Option<SessionId>,
    /// The CALL's message id, decoded.
    pub message_id: String,
    /// What is answered.
    pub response: Response,
}

/// Why a text is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not JSON, or not of this shape.
    #[error("{0}")]
    NotAnAnswer(#[from] serde_json::Error),
    /// A member that is needed.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A member with a value that it cannot have.
    #[error("{member} {problem}")]
    Wrong {
        /// Which one.
        member: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// A backend's answer to a station's CALL. Either `payload` or `error` is there.
#[derive(Deserialize, ToSchema)]
#[schema(as = Answer)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Written {
    /// The station; over HTTP it is in the path.
    station_id: Option<String>,
    /// The session in which the CALL came, as its event says. Without it the message id alone decides.
    session_id: Option<String>,
    /// The CALL's message id.
    #[schema(required, max_length = 255)]
    message_id: Option<String>,
    /// A CALLRESULT's, sent byte for byte.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// A CALLERROR.
    error: Option<WrittenError>,
}

/// A CALLERROR for a station.
#[derive(Deserialize, ToSchema)]
#[schema(as = AnswerError)]
#[serde(deny_unknown_fields)]
struct WrittenError {
    /// An OCPP error code; written in the spelling of the station's version.
    code: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 255)]
    description: String,
    /// `{}` if there is none.
    #[schema(value_type = Option<Object>)]
    details: Option<Box<RawValue>>,
}

impl BackendAnswer {
    /// Reads `{"stationId","messageId","sessionId"?,"payload"|"error"}`, as it is on the topic of commands.
    ///
    /// # Errors
    /// What is wrong, for whoever sent it.
    pub fn parse(json: &[u8]) -> Result<Self, AnswerError> {
        let written: Written = serde_json::from_slice(json)?;
        let station = written.station_id.clone().ok_or(AnswerError::Missing("stationId"))?;
        Self::of(station, written)
    }

    /// Reads the same less `stationId`, as it is posted to a station.
    ///
    /// # Errors
    /// What is wrong, for whoever sent it.
    pub fn parse_for(station: &str, json: &[u8]) -> Result<Self, AnswerError> {
        let written: Written = serde_json::from_slice(json)?;
        if written.station_id.as_deref().is_some_and(|id| !id.eq_ignore_ascii_case(station)) {
            return Err(AnswerError::Wrong {
                member: "stationId",
                problem: "is not the station of the path",
            });
        }
        Self::of(station.to_owned(), written)
    }

    fn of(station: String, written: Written) -> Result<Self, AnswerError> {
        if station.is_empty() || station.chars().count() > Identity::MAX_CHARS {
            return Err(AnswerError::Wrong { member: "stationId", problem: "is not a station's identity" });
        }
        let Written { session_id, message_id, payload, error, .. } = written;
        let message_id = message_id.ok_or(AnswerError::Missing("messageId"))?;
        if message_id.chars().count() > MessageId::MAX_TOLERATED_CHARS {
            return Err(AnswerError::Wrong { member: "messageId", problem: "is longer than OCPP allows" });
        }
        let session = match session_id.as_deref().map(SessionId::parse) {
            Some(None) => {
                return Err(AnswerError::Wrong { member: "sessionId", problem: "is not a session's number" });
            }
            known => known.flatten(),
        };
        Ok(Self { station, session, message_id, response: response(payload, error)? })
    }
}

/// Reads `{"payload":…}` or `{"error":…}`, as a hook responds.
///
/// # Errors
/// What is wrong.
pub(super) fn parse_response(json: &[u8]) -> Result<Response, AnswerError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        payload: Option<Box<RawValue>>,
        error: Option<WrittenError>,
    }
    let Written { payload, error } = serde_json::from_slice(json)?;
    response(payload, error)
}

fn response(payload: Option<Box<RawValue>>, error: Option<WrittenError>) -> Result<Response, AnswerError> {
    match (payload, error) {
        (Some(payload), None) if is_object(&payload) => Ok(Response::Payload(payload)),
        (Some(_), None) => Err(AnswerError::Wrong { member: "payload", problem: "is not an object" }),
        (None, Some(error)) => error.read(),
        (Some(_), Some(_)) => Err(AnswerError::Wrong { member: "error", problem: "stands beside payload" }),
        (None, None) => Err(AnswerError::Missing("payload, or error,")),
    }
}

impl WrittenError {
    fn read(self) -> Result<Response, AnswerError> {
        let Self { code, description, details } = self;
        let code = ErrorCode::recognise(&code)
            .ok_or(AnswerError::Wrong { member: "error.code", problem: "is not an error code of OCPP" })?;
        if description.chars().count() > MAX_DESCRIPTION_CHARS {
            return Err(AnswerError::Wrong {
                member: "error.description",
                problem: "is longer than OCPP allows",
            });
        }
        if details.as_deref().is_some_and(|details| !is_object(details)) {
            return Err(AnswerError::Wrong { member: "error.details", problem: "is not an object" });
        }
        Ok(Response::Error { code, description, details })
    }
}

/// A raw value has no space around it, and is whole.
fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0199e0c4-7e0b-7cc1-a1b2-000000000001";

    #[test]
    fn a_payload_keeps_its_spelling() {
        let text = r#"{"stationId":"CP-1","messageId":"a\u0062","payload": { "x" : 1.50,"y":"\u00e9" } }"#;
        let answer = BackendAnswer::parse(text.as_bytes()).unwrap();
        assert_eq!((answer.station.as_str(), answer.message_id.as_str()), ("CP-1", "ab"));
        assert!(answer.session.is_none());
        match answer.response {
            Response::Payload(payload) => assert_eq!(payload.get(), r#"{ "x" : 1.50,"y":"\u00e9" }"#),
            Response::Error { .. } => panic!("a payload"),
        }
    }

    #[test]
    fn an_error_has_a_code_of_ocpp_in_either_spelling() {
        for word in ["InternalError", "FormationViolation", "FormatViolation"] {
            let text = format!(
                r#"{{"messageId":"1","sessionId":"{SESSION}","error":{{"code":"{word}","details":{{"a":[1]}}}}}}"#
            );
            let answer = BackendAnswer::parse_for("CP-1", text.as_bytes()).unwrap();
            assert_eq!(answer.session.unwrap().to_string(), SESSION);
            match answer.response {
                Response::Error { code, description, details } => {
                    assert_eq!(Some(code), ErrorCode::recognise(word));
                    assert_eq!((description.as_str(), details.unwrap().get()), ("", r#"{"a":[1]}"#));
                }
                Response::Payload(_) => panic!("an error"),
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_with_a_reason() {
        let long = "x".repeat(256);
        let with = |rest: &str| format!(r#"{{"stationId":"CP-1","messageId":"1",{rest}}}"#);
        for (text, reason) in [
            ("{".to_owned(), "EOF"),
            ("[]".to_owned(), "invalid"),
            (r#"{"messageId":"1","payload":{}}"#.to_owned(), "stationId is missing"),
            (r#"{"stationId":"","messageId":"1","payload":{}}"#.to_owned(), "stationId"),
            (r#"{"stationId":"CP-1","payload":{}}"#.to_owned(), "messageId is missing"),
            (r#"{"stationId":"CP-1","messageId":1,"payload":{}}"#.to_owned(), "string"),
            (format!(r#"{{"stationId":"CP-1","messageId":"{long}","payload":{{}}}}"#), "messageId"),
            (with(r#""payload":[]"#), "payload is not an object"),
            (with(r#""payload":{},"error":{"code":"GenericError"}"#), "beside payload"),
            (with(r#""error":{"code":"Odd"}"#), "error.code"),
            (with(r#""error":{"code":"GenericError","details":7}"#), "error.details"),
            (with(&format!(r#""error":{{"code":"GenericError","description":"{long}"}}"#)), "description"),
            (with(r#""payload":{},"extra":1"#), "extra"),
            (with(r#""action":"Reset""#), "action"),
            (with(r#""sessionId":"s","payload":{}"#), "sessionId"),
            (with(&format!(r#""sessionId":"{SESSION}""#)), "payload, or error, is missing"),
        ] {
            let error = BackendAnswer::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn the_path_names_the_station() {
        let body = |id: &str| format!(r#"{{"stationId":"{id}","messageId":"1","payload":{{}}}}"#);
        assert!(BackendAnswer::parse_for("CP-1", body("cp-1").as_bytes()).is_ok());
        assert!(BackendAnswer::parse_for("CP-1", body("CP-2").as_bytes()).is_err());
    }

    #[test]
    fn a_hook_responds_with_the_reply_alone() {
        assert!(matches!(parse_response(br#"{"payload":{"status":"Accepted"}}"#), Ok(Response::Payload(_))));
        assert!(matches!(
            parse_response(br#"{"error":{"code":"GenericError"}}"#),
            Ok(Response::Error { .. })
        ));
        for text in ["", "{}", "null", r#"{"payload":null}"#, r#"{"status":"Accepted"}"#] {
            assert!(parse_response(text.as_bytes()).is_err(), "{text}");
        }
    }
}
