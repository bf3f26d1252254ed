//! Texts that are not messages: what is wrong, what to send back, and which of our CALLs they end.
//!
//! Owns the rules of OCPP-J sections 4.1.3, 4.2.3 and 4.4 (1.6, 2.0.1, 2.1), where the versions
//! differ most. Two invariants: an answer is never answered with a CALLERROR, and a SEND is never
//! answered at all.

use crate::error_code::ErrorCode;
use crate::message_id::{IdRules, MessageId, UNREADABLE_ID};
use crate::version::Version;
use crate::write::{write_call_error, write_call_result_error};

/// A text that is not a message of the version it was read for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed<'a> {
    /// What is wrong.
    pub kind: MalformedKind,
    /// The id, if it could be read and is valid.
    pub id: Option<MessageId<'a>>,
    /// The type of message that it was meant to be.
    pub envelope: Envelope,
}

/// What is wrong with a text. If several things are, the first of these is reported: the text as a
/// whole, the message type, the depth, the length and elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum MalformedKind {
    /// Nothing but white space, which some stations send to keep their connection alive.
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
    /// Every kind, in the order of [`MalformedKind::index`].
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

    /// The word for it in metric labels and logs, which never changes.
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

    /// The position in [`MalformedKind::ALL`], for arrays of counters.
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

/// The type of message that a text was meant to be, as far as that can be read.
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
    /// An integer that is not a message type of the version.
    Unknown,
    /// No integer could be read.
    Unreadable,
}

impl Envelope {
    /// The type that an integer stands for in the newest version; `number` is JSON.
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

    /// The type in a given version: 5 and 6 are new in 2.1.
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
    /// Which message it is.
    pub kind: ReplyKind,
    /// The JSON literal of its id: the peer's, or [`UNREADABLE_ID`].
    pub id_json: &'a str,
    /// The error code.
    pub code: ErrorCode,
    /// What is wrong. Never quotes the peer, whose text may be broken.
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

    /// What is wrong with the text.
    pub fn kind(&self) -> MalformedKind {
        self.kind
    }

    /// What to send back in this version, if anything.
    ///
    /// Where the specifications leave a choice:
    ///
    /// * 1.6 does not say how to answer a text whose id is unreadable. The answer has the id `-1`, as
    ///   in 2.x, so that whoever debugs the station sees an error instead of a timeout.
    /// * 2.0.1 contradicts itself on unknown message types; section 4.4, which is more specific, says
    ///   to answer. 1.6 and 2.1 say to ignore them.
    /// * In 2.1 a CALLRESULT that is not valid JSON is not answered: CALLRESULTERROR refuses a
    ///   CALLRESULT, and this is not one. Neither is a CALLRESULT whose id is unreadable, since the
    ///   peer could not pair `-1` with anything.
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

    /// The id of our own CALL that this was meant to answer. Whoever waits for that answer can be
    /// told that none will come.
    pub fn answers_our_call(&self) -> Option<MessageId<'a>> {
        match self.envelope {
            Envelope::CallResult | Envelope::CallError => self.id,
            _ => None,
        }
    }
}

/// Reads the type and the id from the start of a text that is broken after them: `[2,"id"`.
pub(crate) fn scan_prefix(text: &str) -> (Envelope, Option<MessageId<'_>>) {
    let Some(rest) = text.trim_ascii_start().strip_prefix('[') else {
        return (Envelope::Unreadable, None);
    };
    let rest = rest.trim_ascii_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    // The type must be complete: `[2` may be the start of `[25`.
    let Some(rest) = rest.trim_ascii_start().strip_prefix(',') else {
        return (Envelope::Unreadable, None);
    };
    match Envelope::of_number(number) {
        // No number, or one that says nothing about the broken rest.
        Envelope::Unknown => (Envelope::Unreadable, None),
        envelope => {
            let id = leading_string(rest.trim_ascii_start())
                .and_then(|json| MessageId::read(json, IdRules::default()).ok());
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
