//! Messages of a station as events show them.

use ocpp_protocol::{Call, CallError};

use crate::events::{AnsweredBy, Body, Message};

pub(super) fn call_message<'a>(
    message_type: &'static str,
    call: &'a Call<'_>,
    answered_by: Option<AnsweredBy>,
) -> Message<'a> {
    Message {
        message_type,
        id_json: Some(call.id.as_json()),
        action: Some(&call.action),
        body: Body::Payload(call.payload.get()),
        answered_by,
        command_id: None,
        violation: None,
        traceparent: None,
    }
}

pub(super) fn error_message<'a>(
    message_type: &'static str,
    error: &'a CallError<'_>,
    action: Option<&'a str>,
) -> Message<'a> {
    Message {
        message_type,
        id_json: Some(error.id.as_json()),
        action,
        body: Body::Error {
            code: &error.code,
            description: &error.description,
            details: error.details.map(serde_json::value::RawValue::get),
        },
        answered_by: None,
        command_id: None,
        violation: None,
        traceparent: None,
    }
}
