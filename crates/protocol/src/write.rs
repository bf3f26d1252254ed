//! Writes OCPP-J messages, appending to a string.
//!
//! Ids and payloads are copied byte for byte; the caller ensures that they are valid JSON. All other
//! text is escaped here, so the message is valid too.

use serde_json::value::RawValue;

use crate::error_code::ErrorCode;
use crate::literal;
use crate::version::Version;

/// The longest error description that is written, in characters: the limit of 2.x, used for 1.6 too.
pub const MAX_DESCRIPTION_CHARS: usize = 255;

/// Appends a CALL. `payload` must be a JSON object; `id` and `action` may be any text.
pub fn write_call(out: &mut String, id: &str, action: &str, payload: &str) {
    out.reserve(payload.len() + id.len() + action.len() + 16);
    out.push_str("[2,");
    literal::push(out, id);
    out.push(',');
    literal::push(out, action);
    out.push(',');
    out.push_str(payload);
    out.push(']');
}

/// Appends a CALLRESULT. `id_json` is the JSON literal of the CALL's id ([`MessageId::as_json`](crate::MessageId::as_json)),
/// `payload` a JSON object; both are copied unchanged.
pub fn write_call_result(out: &mut String, id_json: &str, payload: &str) {
    out.reserve(payload.len() + id_json.len() + 8);
    out.push_str("[3,");
    out.push_str(id_json);
    out.push(',');
    out.push_str(payload);
    out.push(']');
}

/// Appends a CALLERROR with empty details. `id_json` is a JSON literal: the CALL's id
/// ([`MessageId::as_json`](crate::MessageId::as_json)) or [`UNREADABLE_ID`](crate::UNREADABLE_ID). The description is cut to
/// [`MAX_DESCRIPTION_CHARS`].
pub fn write_call_error(
    out: &mut String,
    version: Version,
    id_json: &str,
    code: ErrorCode,
    description: &str,
) {
    write_error(out, '4', version, id_json, code, description, "{}");
}

/// Like [`write_call_error`], with details: a JSON object, which is copied unchanged.
pub fn write_call_error_with_details(
    out: &mut String,
    version: Version,
    id_json: &str,
    code: ErrorCode,
    description: &str,
    details: &RawValue,
) {
    write_error(out, '4', version, id_json, code, description, details.get());
}

/// Appends a CALLRESULTERROR, which only 2.1 has; otherwise like [`write_call_error`].
pub fn write_call_result_error(
    out: &mut String,
    version: Version,
    id_json: &str,
    code: ErrorCode,
    description: &str,
) {
    write_error(out, '5', version, id_json, code, description, "{}");
}

fn write_error(
    out: &mut String,
    message_type: char,
    version: Version,
    id_json: &str,
    code: ErrorCode,
    description: &str,
    details: &str,
) {
    let end = description.char_indices().nth(MAX_DESCRIPTION_CHARS).map_or(description.len(), |(at, _)| at);
    out.push('[');
    out.push(message_type);
    out.push(',');
    out.push_str(id_json);
    out.push_str(",\"");
    out.push_str(code.as_str(version));
    out.push_str("\",");
    literal::push(out, &description[..end]);
    out.push(',');
    out.push_str(details);
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_go_out_as_they_are() {
        let mut out = String::new();
        let details = serde_json::from_str(r#"{ "a" : 1.50 }"#).unwrap();
        let code = ErrorCode::OccurrenceConstraintViolation;
        write_call_error_with_details(&mut out, Version::V16, "\"1\"", code, "why", details);
        assert_eq!(out, r#"[4,"1","OccurenceConstraintViolation","why",{ "a" : 1.50 }]"#);
    }

    #[test]
    fn ids_and_payloads_are_copied_and_names_escaped() {
        let mut out = String::new();
        write_call(&mut out, "a\"b", "Reset", r#"{"type":"Soft"}"#);
        assert_eq!(out, r#"[2,"a\"b","Reset",{"type":"Soft"}]"#);
        out.clear();
        write_call_result(&mut out, r#""a\u0062""#, "{}");
        assert_eq!(out, r#"[3,"a\u0062",{}]"#);
        out.clear();
        write_call_error(&mut out, Version::V16, "\"1\"", ErrorCode::FormatViolation, "a\nb");
        assert_eq!(out, r#"[4,"1","FormationViolation","a\nb",{}]"#);
        out.clear();
        write_call_result_error(&mut out, Version::V21, "\"1\"", ErrorCode::FormatViolation, "");
        assert_eq!(out, r#"[5,"1","FormatViolation","",{}]"#);
    }

    #[test]
    fn descriptions_are_cut_between_characters() {
        let mut out = String::new();
        write_call_error(
            &mut out,
            Version::V201,
            "\"1\"",
            ErrorCode::GenericError,
            &"\u{20ac}".repeat(1_000),
        );
        let cut = "\u{20ac}".repeat(MAX_DESCRIPTION_CHARS);
        assert_eq!(out, format!(r#"[4,"1","GenericError","{cut}",{{}}]"#));
    }
}
