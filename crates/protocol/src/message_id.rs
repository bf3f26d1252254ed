//! The id that pairs an answer with its CALL.
//!
//! Owns reading an id and its limit. Does not generate ids or check that they are unique.

use std::borrow::Cow;

use crate::literal;

/// The id of an error message when the peer's id cannot be read, as a JSON literal.
///
/// Part 4, 4.2.3 defines it for 2.x. 1.6 says nothing, and using it there is common practice.
pub const UNREADABLE_ID: &str = "\"-1\"";

/// A message id, kept as the JSON literal the peer sent, quotes and escapes included, so that echoing it is byte for byte. It is
/// a string, or a number where [`IdRules`] say so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MessageId<'a> {
    json: &'a str,
}

/// Which message ids are read besides those of the specification: field deviations that an operator lets through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct IdRules {
    /// Up to [`MessageId::MAX_TOLERATED_CHARS`] characters.
    pub long: bool,
    /// JSON numbers.
    pub numeric: bool,
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

    /// The longest id that [`IdRules::long`] lets through: ids are kept while their CALLs are.
    pub const MAX_TOLERATED_CHARS: usize = 255;

    /// `json` is a complete JSON value without surrounding space.
    pub(crate) fn read(json: &'a str, rules: IdRules) -> Result<Self, IdProblem> {
        let decoded = match literal::decode(json) {
            Some(decoded) => decoded,
            None if rules.numeric && is_number(json) => Cow::Borrowed(json),
            None => return Err(IdProblem::Unreadable),
        };
        let most = if rules.long { Self::MAX_TOLERATED_CHARS } else { Self::MAX_CHARS };
        if decoded.chars().nth(most).is_some() {
            return Err(IdProblem::TooLong);
        }
        Ok(Self { json })
    }

    /// Whether it is a number.
    pub fn is_numeric(&self) -> bool {
        !self.json.starts_with('"')
    }

    /// Whether it is longer than the specification allows.
    pub fn is_long(&self) -> bool {
        self.json.len() > Self::MAX_CHARS && self.decoded().chars().nth(Self::MAX_CHARS).is_some()
    }

    /// The literal as sent, quotes included if it is a string, ready to be copied into an answer.
    pub fn as_json(&self) -> &'a str {
        self.json
    }

    /// The id itself, without quotes and with escapes resolved; borrowed unless it had escapes. Of a number its digits as sent.
    pub fn decoded(&self) -> Cow<'a, str> {
        literal::decode(self.json).unwrap_or(Cow::Borrowed(self.json))
    }
}

fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<MessageId<'_>, IdProblem> {
        MessageId::read(json, IdRules::default())
    }

    #[test]
    fn keeps_the_literal_and_decodes_on_demand() {
        let id = read(r#""a\u0062\"c""#).unwrap();
        assert_eq!(id.as_json(), r#""a\u0062\"c""#);
        assert_eq!(id.decoded(), "ab\"c");
        let plain = read("\"19223201\"").unwrap();
        assert!(matches!(plain.decoded(), Cow::Borrowed("19223201")));
    }

    #[test]
    fn the_limit_counts_decoded_characters() {
        let quoted = |text: &str| format!("\"{text}\"");
        assert!(read(&quoted(&"x".repeat(36))).is_ok());
        assert!(read(&quoted(&"\u{20ac}".repeat(36))).is_ok());
        assert!(read(&quoted(&"\\u0041".repeat(36))).is_ok());
        assert_eq!(read(&quoted(&"x".repeat(37))), Err(IdProblem::TooLong));
        assert_eq!(read(&quoted(&"\\u0041".repeat(37))), Err(IdProblem::TooLong));
    }

    #[test]
    fn refuses_what_is_not_a_unicode_string() {
        for json in ["1", "null", "[\"a\"]", "{}", "\"\\ud800\"", "\"", "", "\"a\" "] {
            assert_eq!(read(json), Err(IdProblem::Unreadable), "{json}");
        }
    }

    #[test]
    fn an_empty_id_is_readable() {
        // No version sets a lower limit, and the answer can still be paired.
        assert_eq!(read("\"\"").unwrap().decoded(), "");
    }

    #[test]
    fn what_the_field_sends_is_read_where_the_rules_say_so() {
        let long = format!("\"{}\"", "x".repeat(255));
        let longer = format!("\"{}\"", "x".repeat(256));
        let rules = |long, numeric| IdRules { long, numeric };
        for (json, rules, expected) in [
            (long.as_str(), rules(true, false), Ok((true, false))),
            (longer.as_str(), rules(true, true), Err(IdProblem::TooLong)),
            (long.as_str(), rules(false, true), Err(IdProblem::TooLong)),
            ("\"1\"", rules(true, true), Ok((false, false))),
            ("42", rules(false, true), Ok((false, true))),
            ("-1.5e3", rules(false, true), Ok((false, true))),
            ("42", rules(true, false), Err(IdProblem::Unreadable)),
            ("null", rules(true, true), Err(IdProblem::Unreadable)),
            ("[1]", rules(true, true), Err(IdProblem::Unreadable)),
        ] {
            let id = MessageId::read(json, rules);
            assert_eq!(id.map(|id| (id.is_long(), id.is_numeric())), expected, "{json}");
        }
        let number = MessageId::read("42", rules(false, true)).unwrap();
        assert_eq!((number.as_json(), &*number.decoded()), ("42", "42"));
    }
}
