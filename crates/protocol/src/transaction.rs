//! Recognises a 1.6 StartTransaction that is sent again.
//!
//! Owns the key only, not the transaction ids allocated under it. Stations of 2.x choose transaction
//! ids themselves and need none of this.

use serde_json::value::RawValue;

use crate::literal;

/// Equal for two StartTransaction requests of one station that report the same start: connectorId,
/// idTag, timestamp and meterStart. The message id is not part of it, since a retry may have a new one.
///
/// Lenient: a missing field is empty, and a number equals the string that spells it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StartKey {
    fields: [String; 4],
}

impl StartKey {
    /// A stable text form, for hashing and storage: equal for equal keys only.
    pub fn canonical(&self) -> String {
        let mut out = String::from("[");
        for (at, field) in self.fields.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            literal::push(&mut out, field);
        }
        out.push(']');
        out
    }

    /// Whether the request has a timestamp. Without one, two different starts can look the same, and
    /// the key must not be used to recognise a retry.
    pub fn is_distinctive(&self) -> bool {
        let [_, _, timestamp, _] = &self.fields;
        !timestamp.is_empty()
    }
}

/// The key of a StartTransaction request, from its payload.
pub fn start_key(payload: &RawValue) -> StartKey {
    let values = literal::fields(payload, ["connectorId", "idTag", "timestamp", "meterStart"]);
    StartKey { fields: values.map(|value| value.map_or_else(String::new, text_of)) }
}

fn text_of(json: &str) -> String {
    literal::decode(json).map_or_else(|| json.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(payload: &str) -> StartKey {
        start_key(serde_json::from_str(payload).unwrap())
    }

    const START: &str =
        r#"{"connectorId":1,"idTag":"TAG","timestamp":"2026-11-20T10:00:00Z","meterStart":7}"#;

    #[test]
    fn order_spacing_and_other_fields_do_not_matter() {
        let other = r#"{ "meterStart": "7", "timestamp":"2026-11-20T10:00:00Z", "reservationId": 4,
            "idTag":"\u0054AG", "connectorId":1 }"#;
        assert_eq!(key(START), key(other));
        assert_eq!(key(START).canonical(), r#"["1","TAG","2026-11-20T10:00:00Z","7"]"#);
    }

    #[test]
    fn each_field_matters() {
        let changes = [("1,", "2,"), ("TAG", "TAH"), ("10:00:00", "10:00:01"), (":7", ":8")];
        for (from, to) in changes {
            let other = START.replacen(from, to, 1);
            assert_ne!(key(START).canonical(), key(&other).canonical(), "{other}");
        }
    }

    #[test]
    fn contents_cannot_imitate_separators() {
        let one = key(r#"{"connectorId":"1\",\"","idTag":"x"}"#);
        let two = key(r#"{"connectorId":"1","idTag":"\",\"x"}"#);
        assert_ne!(one.canonical(), two.canonical());
    }

    #[test]
    fn missing_fields_are_empty() {
        for payload in ["{}", "null", "[]", r#"{"idTag":null}"#] {
            assert_eq!(key(payload).canonical(), r#"["","","",""]"#, "{payload}");
            assert!(!key(payload).is_distinctive());
        }
        assert!(key(START).is_distinctive());
    }
}
