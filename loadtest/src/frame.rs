//! OCPP-J frames as a station needs them: parsing what a CSMS sends, writing what a station sends.
//!
//! Owns the envelope only. Deliberately not `ocpp-protocol`: what tests the gateway must not share its mistakes.

use serde_json::value::RawValue;

/// A frame from the gateway.
#[derive(Debug)]
pub enum Frame<'a> {
    /// `[3, id, payload]`
    CallResult {
        /// The id of the station's CALL.
        id: &'a str,
        /// Its payload.
        payload: &'a RawValue,
    },
    /// `[4, id, code, description, details]`
    CallError {
        /// The id of the station's CALL.
        id: &'a str,
        /// The error code.
        code: &'a str,
    },
    /// `[2, id, action, payload]`
    Call {
        /// The gateway's id.
        id: &'a str,
        /// What the station should do.
        action: &'a str,
    },
    /// Not OCPP: a fault of the gateway.
    Invalid,
}

/// Parses one text. Ids, codes and actions that contain escapes count as invalid: the gateway writes none.
pub fn parse(text: &str) -> Frame<'_> {
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) else { return Frame::Invalid };
    let string = |at: usize| -> Option<&str> { serde_json::from_str(elements.get(at)?.get()).ok() };
    let frame = match (elements.first().map(|first| first.get()), elements.len()) {
        (Some("3"), 3) => string(1).map(|id| Frame::CallResult { id, payload: elements[2] }),
        (Some("4"), 5) => string(1).zip(string(2)).map(|(id, code)| Frame::CallError { id, code }),
        (Some("2"), 4) => string(1).zip(string(2)).map(|(id, action)| Frame::Call { id, action }),
        _ => None,
    };
    frame.unwrap_or(Frame::Invalid)
}

/// Writes a CALL. `id` and `action` must need no escapes; `payload` is JSON.
pub fn call(id: &str, action: &str, payload: &str) -> String {
    format!("[2,\"{id}\",\"{action}\",{payload}]")
}

/// Writes the answer to a command: that of the simplest station, or NotImplemented.
pub fn answer(id: &str, action: &str) -> String {
    let payload = match action {
        "GetConfiguration" => r#"{"configurationKey":[],"unknownKey":[]}"#,
        "UnlockConnector" => r#"{"status":"Unlocked"}"#,
        "ChangeAvailability"
        | "ChangeConfiguration"
        | "ClearCache"
        | "ClearChargingProfile"
        | "DataTransfer"
        | "GetBaseReport"
        | "GetReport"
        | "RemoteStartTransaction"
        | "RemoteStopTransaction"
        | "RequestStartTransaction"
        | "RequestStopTransaction"
        | "Reset"
        | "SetChargingProfile"
        | "TriggerMessage" => r#"{"status":"Accepted"}"#,
        _ => {
            return format!(
                "[4,\"{id}\",\"NotImplemented\",\"a simulated station does not know this\",{{}}]"
            );
        }
    };
    format!("[3,\"{id}\",{payload}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_gateway_are_parsed() {
        assert!(
            matches!(parse(r#"[3,"r-7",{"a":[1, 2]}]"#), Frame::CallResult { id: "r-7", payload } if payload.get() == r#"{"a":[1, 2]}"#)
        );
        assert!(matches!(
            parse(r#"[4,"r-8","SecurityError","no",{}]"#),
            Frame::CallError { id: "r-8", code: "SecurityError" }
        ));
        assert!(matches!(
            parse(r#"[2,"x","Reset",{"type":"Soft"}]"#),
            Frame::Call { id: "x", action: "Reset" }
        ));
        for nonsense in ["", "{}", "[3]", "[3,1,{}]", r#"[9,"a",{}]"#, r#"[3,"a"]"#] {
            assert!(matches!(parse(nonsense), Frame::Invalid), "{nonsense}");
        }
    }

    #[test]
    fn answers_are_frames() {
        for action in ["DataTransfer", "GetConfiguration", "UnlockConnector", "NoSuchThing"] {
            let text = answer("5", action);
            assert!(serde_json::from_str::<Vec<serde_json::Value>>(&text).is_ok(), "{text}");
        }
    }
}
