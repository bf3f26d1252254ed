//! Properties of reading and writing frames that hold for every text.

use std::borrow::Cow;

use ocpp_protocol::{
    ErrorCode, Frame, MAX_DESCRIPTION_CHARS, MessageId, UNREADABLE_ID, Version, parse, write_call,
    write_call_error, write_call_result, write_call_result_error,
};
use proptest::prelude::*;
use serde_json::Value;

fn version() -> impl Strategy<Value = Version> {
    prop::sample::select(Version::ALL.to_vec())
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop::sample::select(ErrorCode::ALL.to_vec())
}

/// Any text of at most 36 characters.
fn id() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..=MessageId::MAX_CHARS).prop_map(String::from_iter)
}

/// A JSON object of modest depth, as text.
fn payload() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop::collection::btree_map(any::<String>(), value, 0..4)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()).to_string())
}

/// A valid message of any kind, then a few bytes of it replaced, removed, repeated or added.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0..4_u8,
        prop::sample::select(br#"[]{}",:\0123456789un-e. "#.to_vec()),
    );
    let whole = (2..7_u8, id(), payload()).prop_map(|(number, id, payload)| {
        let id = Value::from(id);
        match number {
            3 => format!("[3,{id},{payload}]"),
            4 | 5 => format!(r#"[{number},{id},"GenericError","",{payload}]"#),
            _ => format!(r#"[{number},{id},"DataTransfer",{payload}]"#),
        }
    });
    (whole, prop::collection::vec(edit, 1..6)).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        for (at, sort, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match sort {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether a text is JSON by its grammar (RFC 8259). The oracle builds values, and so refuses two things that the grammar
/// allows and that are the station's own affair: a number larger than a float holds, and half a surrogate pair.
fn is_json(text: &str) -> bool {
    const VALUES_ONLY: [&str; 3] =
        ["number out of range", "lone leading surrogate", "unexpected end of hex escape"];
    match serde_json::from_str::<Value>(text) {
        Ok(_) => true,
        Err(error) => VALUES_ONLY.iter().any(|refusal| error.to_string().contains(refusal)),
    }
}

/// What must hold of any text a station may send.
fn check(version: Version, text: &str) -> Result<(), TestCaseError> {
    let malformed = match parse(version, text) {
        Ok(frame) => {
            // What was accepted is JSON to others too, and is within the limits.
            prop_assert!(is_json(text), "{text}");
            let id = match &frame {
                Frame::Call(call) | Frame::Send(call) => call.id,
                Frame::CallResult(result) => result.id,
                Frame::CallError(error) | Frame::CallResultError(error) => error.id,
            };
            prop_assert!(id.decoded().chars().count() <= MessageId::MAX_CHARS);
            prop_assert!(text.contains(id.as_json()));
            return Ok(());
        }
        Err(malformed) => malformed,
    };
    let Some(reply) = malformed.reply(version) else {
        return Ok(());
    };
    let mut answer = String::new();
    reply.write(&mut answer, version);
    let elements: Vec<Value> = serde_json::from_str(&answer).unwrap_or_default();
    prop_assert_eq!(elements.len(), 5, "a reply is an array of five: {}", answer);
    prop_assert!(elements[3].as_str().is_some_and(|text| text.chars().count() <= MAX_DESCRIPTION_CHARS));
    prop_assert_eq!(&elements[4], &serde_json::json!({}));
    // The id is the station's, byte for byte, or the one for unreadable ids.
    match malformed.id {
        Some(id) => prop_assert!(reply.id_json == id.as_json() && text.contains(reply.id_json)),
        None => prop_assert_eq!(reply.id_json, UNREADABLE_ID),
    }
    // The peer reads it as an error message, which nobody answers.
    match parse(version, &answer) {
        Ok(Frame::CallError(error)) => prop_assert_eq!(error.id.as_json(), reply.id_json),
        Ok(Frame::CallResultError(error)) => {
            prop_assert_eq!((version, error.id.as_json()), (Version::V21, reply.id_json));
        }
        other => return Err(TestCaseError::fail(format!("{answer}: {other:?}"))),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_survive_a_round_trip(version in version(), id in id(), action in any::<String>(), payload in payload()) {
        let mut text = String::new();
        write_call(&mut text, &id, &action, &payload);
        let Ok(Frame::Call(call)) = parse(version, &text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(call.id.decoded(), Cow::Borrowed(id.as_str()));
        prop_assert_eq!(call.action, action);
        prop_assert_eq!(call.payload.get(), payload);
    }

    #[test]
    fn answers_echo_the_id_byte_for_byte(version in version(), id in id(), payload in payload(), space in " {0,2}") {
        // Escapes a writer would not use, and space around everything.
        let escaped: String = id.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let call = format!(r#"{space}[{space}2,{space}"{escaped}"{space},"Heartbeat",{space}{payload}{space}]"#);
        let Ok(Frame::Call(call)) = parse(version, &call) else {
            return Err(TestCaseError::fail(call));
        };
        prop_assert_eq!(call.id.as_json(), format!("\"{escaped}\""));
        prop_assert_eq!(call.id.decoded(), id.as_str());
        prop_assert_eq!(call.payload.get(), payload.as_str());

        let mut answer = String::new();
        write_call_result(&mut answer, call.id.as_json(), call.payload.get());
        let Ok(Frame::CallResult(result)) = parse(version, &answer) else {
            return Err(TestCaseError::fail(answer));
        };
        prop_assert_eq!(result.id.as_json(), call.id.as_json());
        prop_assert_eq!(result.payload.get(), payload);
    }

    #[test]
    fn errors_survive_a_round_trip(version in version(), code in code(), description in "\\PC{0,300}|.{0,300}") {
        let mut text = String::new();
        write_call_error(&mut text, version, "\"1\"", code, &description);
        let Ok(Frame::CallError(error)) = parse(version, &text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(&error.code, code.as_str(version));
        let cut: String = description.chars().take(MAX_DESCRIPTION_CHARS).collect();
        prop_assert_eq!(&error.description, &cut);

        text.clear();
        write_call_result_error(&mut text, Version::V21, "\"1\"", code, &description);
        prop_assert!(matches!(parse(Version::V21, &text), Ok(Frame::CallResultError(_))));
    }

    #[test]
    fn any_text_is_read_or_refused(version in version(), text in any::<String>()) {
        check(version, &text)?;
    }

    #[test]
    fn any_brackets_are_read_or_refused(version in version(), text in r#"[\[\]{}",:0-9a-z\\ ]{0,80}"#) {
        check(version, &text)?;
    }

    #[test]
    fn damaged_messages_are_read_or_refused(version in version(), text in mutated()) {
        check(version, &text)?;
    }
}

#[test]
fn numbers_and_escapes_are_the_stations_own_affair() {
    for payload in [r#"{"a":9e308}"#, r#"{"a":-1e999}"#, r#"{"a":"\ud800"}"#, r#"{"a":1.50}"#] {
        let text = format!(r#"[2,"1","DataTransfer",{payload}]"#);
        assert!(is_json(&text));
        assert!(
            matches!(parse(Version::V16, &text), Ok(Frame::Call(call)) if call.payload.get() == payload),
            "{text}"
        );
    }
    assert!(!is_json("[2,"));
}
