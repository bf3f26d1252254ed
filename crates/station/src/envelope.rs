//! The event envelope: one CloudEvents 1.0 JSON object in structured mode, written straight into bytes.
//!
//! Owns how an envelope is spelled. Does not know which event types exist or what a station said: a payload is handed
//! in as JSON text and spliced in byte for byte, never parsed and never re-encoded.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

/// The media type of every event: the `content-type` header of a Kafka record (CloudEvents Kafka binding, section 3.3).
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Writes one event. The envelope comes first, then the members of `data` in the order of the calls.
///
/// The result is valid JSON when every text given to [`EventWriter::raw`] is.
#[derive(Debug)]
pub struct EventWriter {
    buffer: Vec<u8>,
    first_member: bool,
    /// What follows `data`.
    extensions: String,
}

impl EventWriter {
    /// Room for the envelope and the fixed members of `data`; payloads come on top.
    const ENVELOPE_BYTES: usize = 448;

    /// Opens an event.
    ///
    /// `id` stays with the event however often it is stored or sent, so that consumers can deduplicate on it.
    /// `source_json` is the `source` attribute as a JSON string literal, escaped once by the caller because it never
    /// changes. `time` is when the gateway saw what the event tells of.
    pub fn open(
        id: Uuid,
        source_json: &str,
        event_type: &str,
        subject: &str,
        time: SystemTime,
        payload_bytes: usize,
    ) -> Self {
        let mut buffer = Vec::with_capacity(Self::ENVELOPE_BYTES + subject.len() + payload_bytes);
        buffer.extend_from_slice(br#"{"specversion":"1.0","id":""#);
        buffer.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        buffer.extend_from_slice(br#"","source":"#);
        buffer.extend_from_slice(source_json.as_bytes());
        buffer.extend_from_slice(br#","type":""#);
        buffer.extend_from_slice(event_type.as_bytes());
        buffer.extend_from_slice(br#"","subject":"#);
        write_string(&mut buffer, subject);
        buffer.extend_from_slice(br#","time":""#);
        buffer.extend_from_slice(&timestamp(time));
        buffer.extend_from_slice(br#"","datacontenttype":"application/json","data":{"#);
        Self { buffer, first_member: true, extensions: String::new() }
    }

    /// Adds a member whose value is a string.
    #[must_use]
    pub fn string(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        write_string(&mut self.buffer, value);
        self
    }

    /// Adds a member whose value is JSON text, byte for byte.
    #[must_use]
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.buffer.extend_from_slice(json.as_bytes());
        self
    }

    /// Adds a member whose value is a whole number.
    #[must_use]
    pub fn number(self, name: &str, value: u64) -> Self {
        self.raw(name, &value.to_string())
    }

    /// Adds a string member when there is a value, and nothing otherwise.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.string(name, value),
            None => self,
        }
    }

    /// Adds an extension attribute to the envelope when there is a value (CloudEvents 1.0, section 3.2). `name` has lower-case
    /// letters and digits only.
    #[must_use]
    pub fn extension(mut self, name: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.extensions.push_str(",\"");
            self.extensions.push_str(name);
            self.extensions.push_str("\":");
            self.extensions.push_str(&json_string(value));
        }
        self
    }

    /// Closes the event and gives its bytes.
    #[must_use]
    pub fn close(mut self) -> Vec<u8> {
        self.buffer.push(b'}');
        self.buffer.extend_from_slice(self.extensions.as_bytes());
        self.buffer.push(b'}');
        self.buffer
    }

    fn name(&mut self, name: &str) {
        if !self.first_member {
            self.buffer.push(b',');
        }
        self.first_member = false;
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(name.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }
}

/// A text as a JSON string literal.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A time as OCPP and CloudEvents want it: RFC 3339, UTC with `Z`, three fractional digits.
pub fn rfc3339(time: SystemTime) -> String {
    timestamp(time).iter().copied().map(char::from).collect()
}

/// The same without fractional digits: the second in which the time lies.
pub fn rfc3339_seconds(time: SystemTime) -> String {
    let mut text = rfc3339(time);
    text.truncate("2026-11-20T10:30:00".len());
    text.push('Z');
    text
}

/// The same in bytes, without a formatter: each event has a time. What is before 1970 or after 9999 becomes the nearest of these.
fn timestamp(time: SystemTime) -> [u8; 24] {
    const DAY: u64 = 24 * 3600;
    /// Days of 400 years, after which the calendar repeats.
    const CYCLE: u64 = 146_097;
    /// Days from 1 March of the year 0 to 1970: years that begin in March have their leap day at the end.
    const MARCH_0: u64 = 719_468;
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(LAST);
    let (days, second) = (since.as_secs() / DAY + MARCH_0, since.as_secs() % DAY);
    let day = days % CYCLE;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to July have 153 days, and so have August to December.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = days / CYCLE * 400 + year + next;

    let mut text = *b"0000-00-00T00:00:00.000Z";
    let parts = [
        (3, year),
        (6, month),
        (9, day),
        (12, second / 3600),
        (15, second / 60 % 60),
        (18, second % 60),
        (22, u64::from(since.subsec_millis())),
    ];
    for (last, mut value) in parts {
        for digit in text.iter_mut().take(last + 1).rev() {
            if value == 0 {
                break;
            }
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    text
}

/// A message id as the JSON string that events and hooks show. Stations that use numbers are let through where an operator says so.
pub fn id_text(id_json: &str) -> Cow<'_, str> {
    if id_json.starts_with('"') { Cow::Borrowed(id_json) } else { Cow::Owned(json_string(id_json)) }
}

fn write_string(buffer: &mut Vec<u8>, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        buffer.push(b'"');
        buffer.extend_from_slice(text.as_bytes());
        buffer.push(b'"');
    } else {
        buffer.extend_from_slice(json_string(text).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_another_library_writes_them() {
        let mut millis = 0_u64;
        for _ in 0..50_000 {
            let time = UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(rfc3339(time), humantime::format_rfc3339_millis(time).to_string());
            // A step of five years and something, folded into 1970 to 9999: comes by every kind of day.
            millis = (millis + 157_680_123_457) % 253_402_300_800_000;
        }
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(1_999)), "1970-01-01T00:00:01Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1 << 40)), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn an_event_is_one_cloudevents_object_with_the_payload_spliced_in() {
        let payload = r#"{"a" : 1.50,"b":"\u00e9"}"#;
        let time = UNIX_EPOCH + Duration::from_millis(1_795_170_600_123);
        let bytes = EventWriter::open(
            Uuid::now_v7(),
            "\"/ocpp-gateway/gw-1\"",
            "ocpp.message.received",
            "CP \"1\"",
            time,
            payload.len(),
        )
        .string("messageId", "4\n2")
        .optional("action", None)
        .number("count", 7)
        .extension("traceparent", Some("00-\"-1"))
        .extension("tracestate", None)
        .raw("payload", payload)
        .close();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(payload), "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["subject"], "CP \"1\"");
        assert_eq!(event["time"], "2026-11-20T10:30:00.123Z");
        assert_eq!(event["data"]["messageId"], "4\n2");
        assert_eq!(event["data"]["count"], 7);
        assert!(event["data"].get("action").is_none());
        assert_eq!(event["traceparent"], "00-\"-1");
        assert!(event.get("tracestate").is_none());
        assert_eq!(Uuid::parse_str(event["id"].as_str().unwrap()).unwrap().get_version_num(), 7);
    }

    #[test]
    fn an_event_without_members_is_still_valid() {
        let bytes = EventWriter::open(Uuid::nil(), "\"/s\"", "t", "x", UNIX_EPOCH, 0).close();
        let event: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(event["data"], serde_json::json!({}));
    }
}
