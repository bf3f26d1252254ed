//! Texts that are not messages: what is wrong, what to send back, and whose wait they end.
//!
//! Owns the table of OCPP-J sections 4.1.3, 4.2.3 and 4.4 (1.6, 2.0.1, 2.1), where versions
//! differ most. Two rules stand above the rest: an answer is never answered with a CALLERROR,
//! and a SEND is never answered at all.

use crate::error_code::ErrorCode;
use crate::message_id::{MessageId, UNREADABLE_ID};
use crate::version::Version;
use crate::write::{write_call_error, write_call_result_error};

/// A text that is not a message of the version it was read for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed<'a> {
    /// What is wrong.
    pub kind: MalformedKind,
    /// The id, if it could be read and is a legal one.
    pub id: Option<MessageId<'a>>,
    /// The type of message it set out to be.
    pub envelope: Envelope,
}

/// What is wrong with a text. When several things are, what concerns the whole text comes before
/// the message type, that before the depth, and that before length and elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum MalformedKind {
    /// Nothing but space. Some stations keep their connection alive with it.
    Empty,
    /// Not one JSON value.
    NotJson,
    /// JSON, but not an array.
    NotAnArray,
    /// An integer message type that this version does not have.
    UnknownMessageType,
    /// The message type is missing or not an integer.
    BadMessageType,
    /// A CALL or SEND without exactly four elements.
    BadLength,
    /// The id is missing or not a string.
    BadId,
    /// The id is longer than [`MessageId::MAX_CHARS`].
    IdTooLong,
    /// The action is not a string.
    BadAction,
    /// The payload of a CALL or SEND is neither an object nor `null`.
    PayloadNotObject,
    /// Nested deeper than [`MAX_DEPTH`](crate::MAX_DEPTH).
    TooDeep,
    /// A CALLRESULT without exactly three elements or without an object as payload.
    InvalidResult,
}

impl MalformedKind {
    /// Every kind; the position is [`MalformedKind::index`].
    pub const ALL: [Self; 12] = [
        Self::Empty,
        Self::NotJson,
        Self::NotAnArray,
        Self::UnknownMessageType,
        Self::BadMessageType,
        Self::BadLength,
        Self::BadId,
        Self::IdTooLong,
        Self::BadAction,
        Self::PayloadNotObject,
        Self::TooDeep,
        Self::InvalidResult,
    ];

    /// A word for metric labels and logs; stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotJson => "not_json",
            Self::NotAnArray => "not_an_array",
            Self::UnknownMessageType => "unknown_message_type",
            Self::BadMessageType => "bad_message_type",
            Self::BadLength => "bad_length",
            Self::BadId => "bad_id",
            Self::IdTooLong => "id_too_long",
            Self::BadAction => "bad_action",
            Self::PayloadNotObject => "payload_not_object",
            Self::TooDeep => "too_deep",
            Self::InvalidResult => "invalid_result",
        }
    }

    /// Position in [`MalformedKind::ALL`]; for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    fn description(self) -> &'static str {
        match self {
            Self::Empty => "the message is empty",
            Self::NotJson => "the message is not valid JSON",
            Self::NotAnArray => "the message is not a JSON array",
            Self::UnknownMessageType => "the message type number is not supported",
            Self::BadMessageType => "the message type is not an integer",
            Self::BadLength => "the array has the wrong number of elements",
            Self::BadId => "the message id is not a string",
            Self::IdTooLong => "the message id is longer than 36 characters",
            Self::BadAction => "the action is not a string",
            Self::PayloadNotObject => "the payload is not an object",
            Self::TooDeep => "the message is nested too deeply",
            Self::InvalidResult => "the result is not an array of type, id and object",
        }
    }
}

/// The type of message a text set out to be, as far as it can be told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Envelope {
    /// Type 2.
    Call,
    /// Type 3.
    CallResult,
    /// Type 4.
    CallError,
    /// Type 5.
    CallResultError,
    /// Type 6.
    Send,
    /// An integer that is no message type of the version.
    Unknown,
    /// No integer could be read.
    Unreadable,
}

impl Envelope {
    /// The type an integer in JSON stands for, in the newest version.
    pub(crate) fn of_number(number: &str) -> Self {
        match number {
            "2" => Self::Call,
            "3" => Self::CallResult,
            "4" => Self::CallError,
            "5" => Self::CallResultError,
            "6" => Self::Send,
            _ => Self::Unknown,
        }
    }

    /// The same in a given version: 5 and 6 came with 2.1.
    pub(crate) fn in_version(self, version: Version) -> Self {
        match self {
            Self::CallResultError | Self::Send if version != Version::V21 => Self::Unknown,
            known => known,
        }
    }
}

/// The message that answers a malformed one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// CALLERROR or CALLRESULTERROR.
    pub kind: ReplyKind,
    /// The JSON literal of the id to answer under, echoed or [`UNREADABLE_ID`].
    pub id_json: &'a str,
    /// The code; its spelling depends on the version.
    pub code: ErrorCode,
    /// What was wrong. Never contains text of the peer's, which may be broken.
    pub description: &'static str,
}

/// Which message a [`Reply`] is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ReplyKind {
    /// Type 4.
    CallError,
    /// Type 5, 2.1 only.
    CallResultError,
}

impl Reply<'_> {
    /// Appends the reply as a message of this version.
    pub fn write(&self, out: &mut String, version: Version) {
        let write = match self.kind {
            ReplyKind::CallError => write_call_error,
            ReplyKind::CallResultError => write_call_result_error,
        };
        write(out, version, self.id_json, self.code, self.description);
    }
}

impl<'a> Malformed<'a> {
    pub(crate) fn new(kind: MalformedKind, envelope: Envelope, id: Option<MessageId<'a>>) -> Self {
        Self { kind, id, envelope }
    }

    /// What is wrong.
    pub fn kind(&self) -> MalformedKind {
        self.kind
    }

    /// What to send back in this version, if anything.
    ///
    /// Where the texts leave a choice:
    ///
    /// * 1.6 does not say what becomes of a text whose id is unreadable. It gets the id `-1` as
    ///   in 2.x, so that whoever debugs the station sees an error instead of a timeout.
    /// * 2.0.1 contradicts itself on unknown message types; section 4.4 (answer) is the more
    ///   specific one. 1.6 and 2.1 are clear: ignore.
    /// * A CALLRESULT in broken JSON is not answered in 2.1 either: CALLRESULTERROR is for a
    ///   CALLRESULT, and this is none. Nor is one whose id is unreadable, since nothing could be
    ///   paired with `-1`.
    pub fn reply(&self, version: Version) -> Option<Reply<'a>> {
        let description = self.kind.description();
        let call_error = |code| {
            let id_json = self.id.map_or(UNREADABLE_ID, |id| id.as_json());
            Some(Reply { kind: ReplyKind::CallError, id_json, code, description })
        };
        match self.envelope {
            _ if self.kind == MalformedKind::Empty => None,
            Envelope::Call | Envelope::Unreadable => call_error(self.code()),
            Envelope::Unknown if version == Version::V201 => call_error(ErrorCode::MessageTypeNotSupported),
            Envelope::Unknown => None,
            Envelope::CallResult if version == Version::V21 && self.kind != MalformedKind::NotJson => {
                let kind = ReplyKind::CallResultError;
                self.id.map(|id| Reply { kind, id_json: id.as_json(), code: self.code(), description })
            }
            Envelope::CallResult | Envelope::CallError | Envelope::CallResultError | Envelope::Send => None,
        }
    }

    fn code(&self) -> ErrorCode {
        match self.kind {
            MalformedKind::TooDeep => ErrorCode::FormatViolation,
            _ => ErrorCode::RpcFrameworkError,
        }
    }

    /// The id of our own CALL that this was meant to answer, so that whoever waits for the
    /// answer can be told that none will come.
    pub fn answers_our_call(&self) -> Option<MessageId<'a>> {
        match self.envelope {
            Envelope::CallResult | Envelope::CallError => self.id,
            _ => None,
        }
    }
}

/// Reads type and id from the start of a text that is broken further on: `[2,"id"`.
pub(crate) fn scan_prefix(text: &str) -> (Envelope, Option<MessageId<'_>>) {
    let Some(rest) = text.trim_ascii_start().strip_prefix('[') else {
        return (Envelope::Unreadable, None);
    };
    let rest = rest.trim_ascii_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    // The type must be complete: `[2` may have been going to be `[25`.
    let Some(rest) = rest.trim_ascii_start().strip_prefix(',') else {
        return (Envelope::Unreadable, None);
    };
    match Envelope::of_number(number) {
        // No number at all, or one that says nothing about the broken rest.
        Envelope::Unknown => (Envelope::Unreadable, None),
        envelope => {
            let id = leading_string(rest.trim_ascii_start()).and_then(|json| MessageId::read(json).ok());
            (envelope, id)
        }
    }
}

/// The string literal a text begins with, quotes included.
fn leading_string(text: &str) -> Option<&str> {
    let mut bytes = text.bytes().enumerate();
    if bytes.next()?.1 != b'"' {
        return None;
    }
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return text.get(..=at),
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> (Envelope, Option<&str>) {
        let (envelope, id) = scan_prefix(text);
        (envelope, id.map(|id| id.as_json()))
    }

    #[test]
    fn a_prefix_tells_type_and_id_once_they_are_complete() {
        assert_eq!(prefix(r#"[2,"a",broken"#), (Envelope::Call, Some("\"a\"")));
        assert_eq!(prefix(r#" [ 3 , "a\"b" "#), (Envelope::CallResult, Some(r#""a\"b""#)));
        assert_eq!(prefix(r#"[4,"-1""#), (Envelope::CallError, Some("\"-1\"")));
        assert_eq!(prefix(r#"[6,"\u0061","#), (Envelope::Send, Some(r#""\u0061""#)));
        for text in [r#"[2,"a"#, r#"[2,"a\"#, "[2,", r#"[2,a"#, r#"[2,"\x","#, "[2,\"a\nb\","] {
            assert_eq!(prefix(text), (Envelope::Call, None), "{text}");
        }
        for text in ["", "[", "[2", "[2 ", "2,\"a\"", "[,\"a\"", "[-2,\"a\"", "[2.0,\"a\"", "[9,\"a\"", "{"] {
            assert_eq!(prefix(text), (Envelope::Unreadable, None), "{text}");
        }
        let long = format!(r#"[2,"{}","#, "x".repeat(37));
        assert_eq!(prefix(&long), (Envelope::Call, None));
    }

    #[test]
    fn words_are_unique_and_numbered() {
        for (at, kind) in MalformedKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), at);
            let same = MalformedKind::ALL.into_iter().filter(|other| other.as_str() == kind.as_str()).count();
            assert_eq!(same, 1, "{}", kind.as_str());
        }
    }
}
