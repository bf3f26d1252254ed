//! What an answer to a station says. Does not decide it and does not send it.

use ocpp_protocol::{Action, ErrorCode, Version};
use serde_json::value::RawValue;

use crate::response::Response;

/// What an answer says.
#[derive(Clone, Debug)]
pub enum Content {
    /// CALLRESULT with this payload.
    Result(String),
    /// CALLRESULT that carries the time and nothing from the request: written when it leaves, so that a station that had
    /// to wait does not set its clock back by the wait.
    ResultWithTime(&'static Action),
    /// CALLERROR.
    Error(ErrorCode, String),
    /// CALLERROR with details, a JSON object.
    ErrorWithDetails(ErrorCode, String, Box<RawValue>),
    /// CALLRESULTERROR (2.1).
    ResultError(ErrorCode, String),
}

impl Content {
    /// How the CALL ended, for its metric: `answered`, or the error code.
    pub fn outcome(&self, version: Version) -> &'static str {
        match self {
            Self::Result(_) | Self::ResultWithTime(_) => "answered",
            Self::Error(code, _) | Self::ErrorWithDetails(code, ..) | Self::ResultError(code, _) => {
                code.as_str(version)
            }
        }
    }
}

impl From<Response> for Content {
    fn from(response: Response) -> Self {
        match response {
            Response::Payload(payload) => Self::Result(Box::<str>::from(payload).into_string()),
            Response::Error { code, description, details: Some(details) } => {
                Self::ErrorWithDetails(code, description, details)
            }
            Response::Error { code, description, details: None } => Self::Error(code, description),
        }
    }
}
