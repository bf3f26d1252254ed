//! JSON string literals and object fields, read without building a tree.
//!
//! Owns how the other files look into raw JSON: in one pass over the input, without recursion.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer as _};
use serde_json::value::RawValue;

/// Decodes a complete JSON string literal; borrows if it has no escapes. `None` if the text is
/// anything else, or an escape in it is not Unicode (a lone surrogate).
pub(crate) fn decode(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if inner.bytes().all(is_plain) {
        return Some(Cow::Borrowed(inner));
    }
    // The parser would skip space around the literal; the check for quotes has excluded that.
    serde_json::from_str::<String>(json).ok().map(Cow::Owned)
}

/// Appends `text` as a JSON string literal.
pub(crate) fn push(out: &mut String, text: &str) {
    // Writing a string into memory cannot fail; if it did, an empty literal would keep the frame valid.
    out.push_str(&serde_json::to_string(text).unwrap_or_else(|_| String::from("\"\"")));
}

/// The values of the named fields of a JSON object, as raw JSON. `None` for a field that is
/// absent or `null`, and for all of them if the text is not an object. If a field is repeated, its
/// last value counts, as in most parsers.
pub(crate) fn fields<'a, const N: usize>(object: &'a RawValue, names: [&str; N]) -> [Option<&'a str>; N] {
    let mut reader = serde_json::Deserializer::from_str(object.get());
    reader.deserialize_map(Fields { names }).unwrap_or([None; N])
}

struct Fields<'n, const N: usize> {
    names: [&'n str; N],
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(Key(name)) = map.next_key()? {
            match self.names.iter().zip(&mut found).find(|(wanted, _)| **wanted == name) {
                Some((_, slot)) => {
                    let value = map.next_value::<&'de RawValue>()?.get();
                    *slot = (value != "null").then_some(value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// The first `limit` elements of a JSON array, as raw JSON; empty if the text is not an array.
pub(crate) fn elements(array: &str, limit: usize) -> Vec<&RawValue> {
    serde_json::from_str::<Vec<&RawValue>>(array)
        .map(|mut all| {
            all.truncate(limit);
            all
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn decodes_literals_only() {
        assert!(matches!(decode("\"abc\""), Some(Cow::Borrowed("abc"))));
        assert_eq!(decode(r#""a\nb""#).as_deref(), Some("a\nb"));
        for text in ["", "\"", "abc", "1", "\"a\"b\"", "\"a\\\"", "\"a\nb\"", " \"a\""] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn finds_fields_whatever_the_order() {
        let object = raw(r#"{"z":[1,{"a":0}],"b":null,"\u0061":"x","c":1,"c":2}"#);
        assert_eq!(fields(object, ["a", "b", "c", "d"]), [Some("\"x\""), None, Some("2"), None]);
        assert_eq!(fields(raw("[1]"), ["a"]), [None]);
        assert_eq!(fields(raw("null"), ["a"]), [None]);
    }

    #[test]
    fn deep_values_do_not_exhaust_the_stack() {
        let deep = format!(r#"{{"a":{}{},"b":1}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(fields(raw(&deep), ["b"]), [Some("1")]);
    }
}
