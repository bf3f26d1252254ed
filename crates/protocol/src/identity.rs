//! A station's identity: the last segment of the URL it connects to.
//!
//! Owns decoding, which identities are refused, and when two spellings mean the same station. Does
//! not know which stations exist. Callers pass the path without the query string.
//!
//! The rules are those that all versions share (Part 4 / OCPP-J 3.1.1 and RFC 3986). The narrower
//! character set of 2.x is not enforced: the version is not known yet when the path is read, 1.6
//! defines no set, and 2.0.1 has a space in its own example.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// Why a path or text is not an identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The path does not begin with the listener's prefix.
    #[error("the path is not under the configured prefix")]
    NotUnderPrefix,
    /// More than one segment follows the prefix.
    #[error("more than one path segment follows the prefix")]
    TooManySegments,
    /// Nothing follows the prefix.
    #[error("the identity is empty")]
    Empty,
    /// More than [`Identity::MAX_CHARS`] characters.
    #[error("the identity is longer than 255 characters")]
    TooLong,
    /// A `%` without two hexadecimal digits after it.
    #[error("the identity has a broken percent escape")]
    BadEscape,
    /// The decoded bytes are not UTF-8.
    #[error("the identity is not UTF-8")]
    NotUtf8,
    /// A control character, which would corrupt logs and headers.
    #[error("the identity contains a control character")]
    ControlCharacter,
    /// An encoded `/`, which would make the identity look like a path.
    #[error("the identity contains a slash")]
    Slash,
    /// `.` or `..`, which URL libraries remove (RFC 3986, 5.2.4), so that no admin URL could name it.
    #[error("the identity is a relative path segment")]
    DotSegment,
}

/// A station's identity in the spelling it used. Cheap to clone.
///
/// Two identities are equal if they are spelled alike. To find out whether two spellings mean the
/// same station, compare [`Identity::folded`].
#[derive(Clone)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The longest identity, in characters. 1.6 sets no limit and 2.x sets 48; 255 fits the database
    /// columns and file names in which identities end up.
    pub const MAX_CHARS: usize = 255;

    /// Checks an identity that is already decoded.
    ///
    /// # Errors
    /// [`IdentityError`] says which rule it breaks.
    pub fn parse(decoded: &str) -> Result<Self, IdentityError> {
        if decoded.is_empty() {
            return Err(IdentityError::Empty);
        }
        if decoded.chars().nth(Self::MAX_CHARS).is_some() {
            return Err(IdentityError::TooLong);
        }
        if decoded.contains('/') {
            return Err(IdentityError::Slash);
        }
        if decoded.chars().any(char::is_control) {
            return Err(IdentityError::ControlCharacter);
        }
        if decoded == "." || decoded == ".." {
            return Err(IdentityError::DotSegment);
        }
        Ok(Self(Arc::from(decoded)))
    }

    /// Reads the identity from a request path, still percent-encoded and without its query.
    ///
    /// Exactly one segment must follow `prefix`. It is percent-decoded once, and `+` stays `+`.
    /// `lenient` ignores empty segments, and so accepts doubled and trailing slashes.
    ///
    /// # Errors
    /// [`IdentityError`] says which rule the path breaks.
    pub fn from_path(path: &str, prefix: &str, lenient: bool) -> Result<Self, IdentityError> {
        let segment = if lenient { last_segment_lenient(path, prefix)? } else { last_segment(path, prefix)? };
        if !escapes_are_complete(segment) {
            return Err(IdentityError::BadEscape);
        }
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| IdentityError::NotUtf8)?;
        Self::parse(&decoded)
    }

    /// The identity as the station spelled it, decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key that all spellings of this identity share.
    pub fn folded(&self) -> IdentityKey {
        if self.0.bytes().any(|byte| byte.is_ascii_uppercase()) {
            IdentityKey::of(&self.0)
        } else {
            IdentityKey(Arc::clone(&self.0))
        }
    }
}

fn last_segment<'p>(path: &'p str, prefix: &str) -> Result<&'p str, IdentityError> {
    let segment = path
        .strip_prefix(prefix.trim_end_matches('/'))
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or(IdentityError::NotUnderPrefix)?;
    if segment.contains('/') { Err(IdentityError::TooManySegments) } else { Ok(segment) }
}

fn last_segment_lenient<'p>(path: &'p str, prefix: &str) -> Result<&'p str, IdentityError> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    for expected in prefix.split('/').filter(|segment| !segment.is_empty()) {
        if segments.next() != Some(expected) {
            return Err(IdentityError::NotUnderPrefix);
        }
    }
    let segment = segments.next().ok_or(IdentityError::Empty)?;
    if segments.next().is_some() { Err(IdentityError::TooManySegments) } else { Ok(segment) }
}

/// The decoder would pass a stray `%` through, but a station that sends one meant something else.
fn escapes_are_complete(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'%').all(|(at, _)| {
        bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An identity with its ASCII case folded, to look stations up by, so that two spellings never have
/// two sessions. Identities are case-insensitive in 2.x (Part 2, 2.1.4); 1.6 says nothing and is
/// treated alike.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IdentityKey(Arc<str>);

impl IdentityKey {
    /// The key of this spelling, which is not checked: use it to look a station up.
    pub fn of(spelling: &str) -> Self {
        Self(Arc::from(spelling.to_ascii_lowercase()))
    }

    /// The folded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(path: &str) -> Result<String, IdentityError> {
        Identity::from_path(path, "/ocpp", false).map(|identity| identity.to_string())
    }

    fn lenient(path: &str) -> Result<String, IdentityError> {
        Identity::from_path(path, "/ocpp", true).map(|identity| identity.to_string())
    }

    #[test]
    fn decodes_the_examples_of_the_specification() {
        assert_eq!(strict("/ocpp/RDAM%20123").as_deref(), Ok("RDAM 123"));
        assert_eq!(strict("/ocpp/RDAM%7C123").as_deref(), Ok("RDAM|123"));
        assert_eq!(strict("/ocpp/CP-001").as_deref(), Ok("CP-001"));
    }

    #[test]
    fn decodes_once_and_keeps_plus() {
        assert_eq!(strict("/ocpp/a%2520b").as_deref(), Ok("a%20b"));
        assert_eq!(strict("/ocpp/a+b").as_deref(), Ok("a+b"));
        assert_eq!(strict("/ocpp/%E2%82%AC").as_deref(), Ok("\u{20ac}"));
    }

    #[test]
    fn refuses_what_cannot_be_an_identity() {
        let cases = [
            ("/ocpp/", IdentityError::Empty),
            ("/ocpp", IdentityError::NotUnderPrefix),
            ("/ocppx/CP1", IdentityError::NotUnderPrefix),
            ("/other/CP1", IdentityError::NotUnderPrefix),
            ("CP1", IdentityError::NotUnderPrefix),
            ("", IdentityError::NotUnderPrefix),
            ("/ocpp/a/b", IdentityError::TooManySegments),
            ("/ocpp/a/", IdentityError::TooManySegments),
            ("/ocpp//a", IdentityError::TooManySegments),
            ("/ocpp/a%2Fb", IdentityError::Slash),
            ("/ocpp/a%00b", IdentityError::ControlCharacter),
            ("/ocpp/a%0Ab", IdentityError::ControlCharacter),
            ("/ocpp/a%C2%85b", IdentityError::ControlCharacter),
            ("/ocpp/%", IdentityError::BadEscape),
            ("/ocpp/a%2", IdentityError::BadEscape),
            ("/ocpp/a%zz", IdentityError::BadEscape),
            ("/ocpp/%+1", IdentityError::BadEscape),
            ("/ocpp/%FF", IdentityError::NotUtf8),
            ("/ocpp/..", IdentityError::DotSegment),
            ("/ocpp/%2E", IdentityError::DotSegment),
        ];
        for (path, error) in cases {
            assert_eq!(strict(path), Err(error), "{path}");
        }
    }

    #[test]
    fn the_limit_counts_characters() {
        let longest = "\u{20ac}".repeat(Identity::MAX_CHARS);
        assert_eq!(Identity::parse(&longest).map(|identity| identity.to_string()), Ok(longest.clone()));
        assert_eq!(Identity::parse(&format!("{longest}x")).err(), Some(IdentityError::TooLong));
    }

    #[test]
    fn lenient_paths_ignore_empty_segments() {
        for path in ["/ocpp/CP1", "/ocpp/CP1/", "/ocpp//CP1", "//ocpp/CP1//"] {
            assert_eq!(lenient(path).as_deref(), Ok("CP1"), "{path}");
        }
        assert_eq!(lenient("/ocpp//"), Err(IdentityError::Empty));
        assert_eq!(lenient("/ocpp/a/b"), Err(IdentityError::TooManySegments));
        assert_eq!(lenient("/CP1"), Err(IdentityError::NotUnderPrefix));
    }

    #[test]
    fn prefixes_may_be_empty_nested_or_end_in_a_slash() {
        for (prefix, path) in [("", "/CP1"), ("/", "/CP1"), ("/a/b", "/a/b/CP1"), ("/a/", "/a/CP1")] {
            for lenient in [false, true] {
                let identity = Identity::from_path(path, prefix, lenient).unwrap();
                assert_eq!(identity.as_str(), "CP1", "{prefix} {path} {lenient}");
            }
        }
    }

    #[test]
    fn spellings_fold_to_one_key() {
        let upper = Identity::parse("CP-\u{c4}1").unwrap();
        let lower = Identity::parse("cp-\u{c4}1").unwrap();
        assert_ne!(upper, lower);
        assert_eq!(upper.folded(), lower.folded());
        assert_eq!(upper.folded(), IdentityKey::of("Cp-\u{c4}1"));
        assert_eq!(upper.folded().as_str(), "cp-\u{c4}1");
    }
}
