//! The id that pairs an answer with its CALL.
//!
//! Owns reading an id and its limit. Does not generate ids or check that they are unique.

use std::borrow::Cow;

use crate::literal;

/// The id of an error message when the peer's id cannot be read, as a JSON literal.
///
/// Part 4, 4.2.3 defines it for 2.x. 1.6 says nothing, and using it there is common practice.
pub const UNREADABLE_ID: &str = "\"-1\"";

/// A message id, kept as the JSON string literal the peer sent, quotes and escapes included, so
/// that echoing it is byte for byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageId<'a> {
    json: &'a str,
}

/// Why a JSON value is not a message id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IdProblem {
    /// Not a string, or one that is not Unicode once its escapes are decoded.
    Unreadable,
    TooLong,
}

impl<'a> MessageId<'a> {
    /// The longest id, in characters after decoding; the same in every version (OCPP-J 4.1.4).
    pub const MAX_CHARS: usize = 36;

    /// `json` is a complete JSON value without surrounding space.
    pub(crate) fn read(json: &'a str) -> Result<Self, IdProblem> {
        let decoded = literal::decode(json).ok_or(IdProblem::Unreadable)?;
        if decoded.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(IdProblem::TooLong);
        }
        Ok(Self { json })
    }

    /// The literal as sent, quotes included, ready to be copied into an answer.
    pub fn as_json(&self) -> &'a str {
        self.json
    }

    /// The id itself, without quotes and with escapes resolved; borrowed unless it had escapes.
    pub fn decoded(&self) -> Cow<'a, str> {
        literal::decode(self.json).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_literal_and_decodes_on_demand() {
        let id = MessageId::read(r#""a\u0062\"c""#).unwrap();
        assert_eq!(id.as_json(), r#""a\u0062\"c""#);
        assert_eq!(id.decoded(), "ab\"c");
        let plain = MessageId::read("\"19223201\"").unwrap();
        assert!(matches!(plain.decoded(), Cow::Borrowed("19223201")));
    }

    #[test]
    fn the_limit_counts_decoded_characters() {
        let quoted = |text: &str| format!("\"{text}\"");
        assert!(MessageId::read(&quoted(&"x".repeat(36))).is_ok());
        assert!(MessageId::read(&quoted(&"\u{20ac}".repeat(36))).is_ok());
        assert!(MessageId::read(&quoted(&"\\u0041".repeat(36))).is_ok());
        assert_eq!(MessageId::read(&quoted(&"x".repeat(37))), Err(IdProblem::TooLong));
        assert_eq!(MessageId::read(&quoted(&"\\u0041".repeat(37))), Err(IdProblem::TooLong));
    }

    #[test]
    fn refuses_what_is_not_a_unicode_string() {
        for json in ["1", "null", "[\"a\"]", "{}", "\"\\ud800\"", "\"", "", "\"a\" "] {
            assert_eq!(MessageId::read(json), Err(IdProblem::Unreadable), "{json}");
        }
    }

    #[test]
    fn an_empty_id_is_readable() {
        // No version sets a lower limit, and the answer can still be paired.
        assert_eq!(MessageId::read("\"\"").unwrap().decoded(), "");
    }
}
