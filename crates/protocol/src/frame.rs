//! Reads the five kinds of OCPP-J messages from text.
//!
//! Owns the envelope: the JSON array, its type number, id and length. Payloads are opaque here and
//! stay the sender's bytes. If a text is not a message, [`Malformed`] says why. Writing is in `write`.
//!
//! Reading borrows from the text, allocates nothing for an ordinary message, and never recurses
//! on its input: depth is limited to [`MAX_DEPTH`] so that later readers may recurse.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::literal;
use crate::malformed::{Envelope, Malformed, MalformedKind, scan_prefix};
use crate::message_id::{IdProblem, IdRules, MessageId};
use crate::version::Version;

/// The deepest nesting of a payload. The deepest official schema nests 13 levels; `customData` and
/// DataTransfer are free to nest, and 64 levels fit on the stack of any common JSON parser.
pub const MAX_DEPTH: usize = 64;

/// A message whose envelope is valid in the version it was read for.
#[derive(Debug)]
pub enum Frame<'a> {
    /// Type 2: a request, to be answered under its id.
    Call(Call<'a>),
    /// Type 3: the answer to a CALL.
    CallResult(CallResult<'a>),
    /// Type 4: the refusal of a CALL. Never answered.
    CallError(CallError<'a>),
    /// Type 5, 2.1 only: the refusal of a CALLRESULT. Never answered.
    CallResultError(CallError<'a>),
    /// Type 6, 2.1 only: a message that is never answered.
    Send(Call<'a>),
}

impl Frame<'_> {
    /// Its message id.
    pub fn id(&self) -> &MessageId<'_> {
        match self {
            Self::Call(call) | Self::Send(call) => &call.id,
            Self::CallResult(result) => &result.id,
            Self::CallError(error) | Self::CallResultError(error) => &error.id,
        }
    }
}

/// A CALL or SEND.
#[derive(Debug)]
pub struct Call<'a> {
    /// The id that the sender chose.
    pub id: MessageId<'a>,
    /// The action as sent; see [`classify_call`](crate::classify_call).
    pub action: Cow<'a, str>,
    /// The payload as sent: an object, or `null` if `payload_was_null`.
    pub payload: &'a RawValue,
    /// Whether the payload was `null`. Some stations send that for `{}`.
    pub payload_was_null: bool,
}

/// A CALLRESULT.
#[derive(Debug)]
pub struct CallResult<'a> {
    /// The id of the CALL it answers.
    pub id: MessageId<'a>,
    /// The payload as sent: an object, or `null` if `payload_was_null`.
    pub payload: &'a RawValue,
    /// Whether the payload was `null`. Some stations send that for `{}`.
    pub payload_was_null: bool,
}

/// A CALLERROR or CALLRESULTERROR. Only the id is required. Refusing an error message would help
/// nobody, so any other element that is missing or of the wrong type is read as empty.
#[derive(Debug)]
pub struct CallError<'a> {
    /// The id of the refused message; `-1` if the sender could not read it.
    pub id: MessageId<'a>,
    /// The code as sent; see [`ErrorCode::recognise`](crate::ErrorCode::recognise).
    pub code: Cow<'a, str>,
    /// The description as sent, of any length.
    pub description: Cow<'a, str>,
    /// The details as sent. The specification asks for an object; stations send other things too.
    pub details: Option<&'a RawValue>,
}

/// Reads one message from a station.
///
/// # Errors
/// [`Malformed`] if the text is not a message of this version. It says what to send back, if
/// anything, and which of our own CALLs it ends, if any.
pub fn parse(version: Version, text: &str) -> Result<Frame<'_>, Malformed<'_>> {
    parse_with(version, IdRules::default(), text)
}

/// Reads one message from a station whose message ids may deviate.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(version: Version, ids: IdRules, text: &str) -> Result<Frame<'_>, Malformed<'_>> {
    let Some(elements) = Elements::read(text) else {
        return Err(refuse_text(text));
    };
    let Some(envelope) = elements.message_type() else {
        return Err(Malformed::new(MalformedKind::BadMessageType, Envelope::Unreadable, None));
    };
    let envelope = envelope.in_version(version);
    let id = elements.id(ids);
    if envelope == Envelope::Unknown {
        return Err(Malformed::new(MalformedKind::UnknownMessageType, envelope, id.ok()));
    }
    if is_deeper_than(text, MAX_DEPTH + 1) {
        return Err(Malformed::new(MalformedKind::TooDeep, envelope, id.ok()));
    }
    elements.into_frame(envelope, id).map_err(|(kind, id)| Malformed::new(kind, envelope, id))
}

fn refuse_text(text: &str) -> Malformed<'_> {
    if text.trim_ascii().is_empty() {
        return Malformed::new(MalformedKind::Empty, Envelope::Unreadable, None);
    }
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return Malformed::new(MalformedKind::NotAnArray, Envelope::Unreadable, None);
    }
    let (envelope, id) = scan_prefix(text);
    Malformed::new(MalformedKind::NotJson, envelope, id)
}

/// The most elements that a message has. Further ones are only counted.
const MAX_ELEMENTS: usize = 5;

/// The elements of the outer array, not parsed yet.
struct Elements<'a> {
    first: [Option<&'a RawValue>; MAX_ELEMENTS],
    count: usize,
}

type Problem<'a> = (MalformedKind, Option<MessageId<'a>>);

impl<'a> Elements<'a> {
    /// `None` unless the text is one JSON array and nothing else.
    fn read(text: &'a str) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let elements = reader.deserialize_seq(ElementsVisitor).ok()?;
        reader.end().ok()?;
        Some(elements)
    }

    fn text(&self, at: usize) -> Option<&'a str> {
        self.first.get(at).copied().flatten().map(RawValue::get)
    }

    /// `None` unless the first element is an integer.
    fn message_type(&self) -> Option<Envelope> {
        let number = self.text(0)?;
        let digits = number.strip_prefix('-').unwrap_or(number);
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| Envelope::of_number(number))
    }

    fn id(&self, rules: IdRules) -> Result<MessageId<'a>, IdProblem> {
        self.text(1).map_or(Err(IdProblem::Unreadable), |json| MessageId::read(json, rules))
    }

    fn into_frame(
        self,
        envelope: Envelope,
        id: Result<MessageId<'a>, IdProblem>,
    ) -> Result<Frame<'a>, Problem<'a>> {
        match envelope {
            Envelope::Call => self.into_call(id).map(Frame::Call),
            Envelope::Send => self.into_call(id).map(Frame::Send),
            Envelope::CallResult => self.into_result(id).map(Frame::CallResult),
            Envelope::CallError => self.into_error(id).map(Frame::CallError),
            Envelope::CallResultError => self.into_error(id).map(Frame::CallResultError),
            Envelope::Unknown | Envelope::Unreadable => Err((MalformedKind::UnknownMessageType, id.ok())),
        }
    }

    fn into_call(self, id: Result<MessageId<'a>, IdProblem>) -> Result<Call<'a>, Problem<'a>> {
        if self.count != 4 {
            return Err((MalformedKind::BadLength, id.ok()));
        }
        let id = id.map_err(id_problem)?;
        let action = self.string(2).ok_or((MalformedKind::BadAction, Some(id)))?;
        let (payload, payload_was_null) =
            self.payload(3).ok_or((MalformedKind::PayloadNotObject, Some(id)))?;
        Ok(Call { id, action, payload, payload_was_null })
    }

    fn into_result(self, id: Result<MessageId<'a>, IdProblem>) -> Result<CallResult<'a>, Problem<'a>> {
        let id = id.map_err(id_problem)?;
        match self.payload(2) {
            Some((payload, payload_was_null)) if self.count == 3 => {
                Ok(CallResult { id, payload, payload_was_null })
            }
            _ => Err((MalformedKind::InvalidResult, Some(id))),
        }
    }

    fn into_error(self, id: Result<MessageId<'a>, IdProblem>) -> Result<CallError<'a>, Problem<'a>> {
        let id = id.map_err(id_problem)?;
        Ok(CallError {
            id,
            code: self.string(2).unwrap_or_default(),
            description: self.string(3).unwrap_or_default(),
            details: self.first[4],
        })
    }

    fn string(&self, at: usize) -> Option<Cow<'a, str>> {
        self.text(at).and_then(literal::decode)
    }

    /// The payload and whether it was `null`.
    fn payload(&self, at: usize) -> Option<(&'a RawValue, bool)> {
        let payload = self.first.get(at).copied().flatten()?;
        let is_null = payload.get() == "null";
        (is_null || is_object(payload)).then_some((payload, is_null))
    }
}

fn id_problem<'a>(problem: IdProblem) -> Problem<'a> {
    match problem {
        IdProblem::Unreadable => (MalformedKind::BadId, None),
        IdProblem::TooLong => (MalformedKind::IdTooLong, None),
    }
}

/// Raw values have no surrounding space, so the first byte decides.
fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

struct ElementsVisitor;

impl<'de> Visitor<'de> for ElementsVisitor {
    type Value = Elements<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an OCPP-J message")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Elements { first: [None; MAX_ELEMENTS], count: 0 };
        while let Some(slot) = elements.first.get_mut(elements.count) {
            let Some(value) = seq.next_element::<&'de RawValue>()? else {
                return Ok(elements);
            };
            *slot = Some(value);
            elements.count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            elements.count += 1;
        }
        Ok(elements)
    }
}

/// Whether valid JSON nests more than `limit` levels.
///
/// Most messages have at most `limit` opening brackets, and the compiler vectorises counting them.
/// Only a text with more is walked.
fn is_deeper_than(text: &str, limit: usize) -> bool {
    let openings = text.bytes().filter(|byte| byte | 0x20 == b'{').count();
    if openings <= limit {
        return false;
    }
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_the_bytes_of_its_payload() {
        let text = " [ 2 , \"19223201\" , \"BootNotification\" , { \"a\" : 1.50, \"b\":\"\\u00e9\" } ] ";
        let Ok(Frame::Call(call)) = parse(Version::V16, text) else { panic!("not a call") };
        assert_eq!(call.id.as_json(), "\"19223201\"");
        assert_eq!(call.action, "BootNotification");
        assert_eq!(call.payload.get(), "{ \"a\" : 1.50, \"b\":\"\\u00e9\" }");
        assert!(!call.payload_was_null);
    }

    #[test]
    fn null_stands_for_an_empty_payload() {
        let Ok(Frame::Call(call)) = parse(Version::V21, r#"[2,"1","Heartbeat",null]"#) else { panic!() };
        assert!(call.payload_was_null && call.payload.get() == "null");
        let Ok(Frame::CallResult(result)) = parse(Version::V21, r#"[3,"1",null]"#) else { panic!() };
        assert!(result.payload_was_null && result.payload.get() == "null");
    }

    #[test]
    fn errors_are_read_however_odd() {
        let error = |text| match parse(Version::V16, text) {
            Ok(Frame::CallError(error)) => error,
            other => panic!("{text}: {other:?}"),
        };
        let full = error(r#"[4,"1","GenericError","it \"broke\"",{"a":1}]"#);
        assert_eq!((&*full.code, &*full.description), ("GenericError", "it \"broke\""));
        assert_eq!(full.details.map(RawValue::get), Some(r#"{"a":1}"#));
        for (text, details) in [
            (r#"[4,"1"]"#, None),
            (r#"[4,"1",null,null,null]"#, Some("null")),
            (r#"[4,"1",5,{},"details"]"#, Some("\"details\"")),
            (r#"[4,"1",["a"],1,[],6,7]"#, Some("[]")),
        ] {
            let odd = error(text);
            assert_eq!((&*odd.code, &*odd.description), ("", ""), "{text}");
            assert_eq!(odd.details.map(RawValue::get), details, "carried as the station sent them: {text}");
        }
    }

    #[test]
    fn ids_deviate_where_they_may_and_are_echoed_as_they_came() {
        let text = r#"[2,42,"Heartbeat",{}]"#;
        assert_eq!(parse(Version::V16, text).unwrap_err().kind, MalformedKind::BadId);
        let ids = IdRules { numeric: true, long: true };
        let frame = parse_with(Version::V16, ids, text).unwrap();
        assert_eq!((frame.id().as_json(), &*frame.id().decoded()), ("42", "42"));
        let mut answer = String::new();
        crate::write_call_result(&mut answer, frame.id().as_json(), "{}");
        assert_eq!(answer, "[3,42,{}]");
        let long = format!(r#"[2,"{}","Heartbeat",{{}}]"#, "x".repeat(37));
        assert_eq!(parse(Version::V16, &long).unwrap_err().kind, MalformedKind::IdTooLong);
        assert!(parse_with(Version::V16, ids, &long).unwrap().id().is_long());
    }

    #[test]
    fn types_5_and_6_are_of_2_1() {
        let send = r#"[6,"1","NotifyPeriodicEventStream",{}]"#;
        let refusal = r#"[5,"1","FormatViolation","",{}]"#;
        assert!(matches!(parse(Version::V21, send), Ok(Frame::Send(call)) if call.id.decoded() == "1"));
        assert!(matches!(parse(Version::V21, refusal), Ok(Frame::CallResultError(_))));
        for version in [Version::V16, Version::V201] {
            for text in [send, refusal] {
                let kind = parse(version, text).unwrap_err().kind;
                assert_eq!(kind, MalformedKind::UnknownMessageType);
            }
        }
    }

    fn nested(levels: usize) -> String {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"[2,"1","DataTransfer",{{"data":{open}{close}}}]"#)
    }

    #[test]
    fn depth_is_limited_and_brackets_in_text_do_not_count() {
        assert!(parse(Version::V16, &nested(MAX_DEPTH)).is_ok());
        let kind = |text: &str| parse(Version::V16, text).unwrap_err().kind;
        assert_eq!(kind(&nested(MAX_DEPTH + 1)), MalformedKind::TooDeep);
        assert_eq!(kind(&nested(100_000)), MalformedKind::TooDeep);
        assert_eq!(kind(&"[".repeat(100_000)), MalformedKind::NotJson);
        let text = format!(r#"[2,"1","DataTransfer",{{"data":"\"{}"}}]"#, "[{".repeat(1_000));
        assert!(parse(Version::V16, &text).is_ok());
        let wide = format!(r#"[2,"1","DataTransfer",{{"data":[{}]}}]"#, vec!["{}"; 1_000].join(","));
        assert!(parse(Version::V16, &wide).is_ok());
    }
}
