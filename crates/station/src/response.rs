//! What a backend responds to a station's CALL, whoever brings it. Does not read it from JSON and does not check it
//! against a schema.

use ocpp_protocol::ErrorCode;
use serde_json::value::RawValue;

/// A backend's response to a CALL. The payload stays the backend's text and goes to the station byte for byte.
#[derive(Clone, Debug)]
pub enum Response {
    /// CALLRESULT with this JSON object.
    Payload(Box<RawValue>),
    /// CALLERROR.
    Error {
        /// Written in the spelling of the station's version.
        code: ErrorCode,
        /// For people, at most 255 characters.
        description: String,
        /// A JSON object; `{}` if there is none.
        details: Option<Box<RawValue>>,
    },
}

impl Response {
    /// Bytes of JSON in it that are the backend's.
    pub fn size(&self) -> usize {
        match self {
            Self::Payload(payload) => payload.get().len(),
            Self::Error { details, .. } => details.as_deref().map_or(0, |details| details.get().len()),
        }
    }
}
