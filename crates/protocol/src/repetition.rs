//! Whether a message can only be a repetition when its station sends the same again.
//!
//! Stations deliver at least once, and message ids tell copies from new messages within one connection only (1.6,
//! 4.1.4): many stations count from 1 on each. What holds beyond it is in the content: a time or a number in a sequence
//! that the station gives no other message. Owns how that is read; which member it is stands in the table of actions.

use serde_json::value::RawValue;

use crate::action::{Action, Mark};
use crate::literal;

/// Whether the station can send this content once only, so that the same content is the same message, whatever its id and
/// connection.
///
/// A missing or empty mark says nothing, and neither does the time of a clock that was never set (1970, or the year 1):
/// such a message may be a new one.
pub fn is_unmistakable(action: &Action, payload: &RawValue) -> bool {
    action.marks().iter().any(|mark| match *mark {
        Mark::Time(member) => has_time(payload, member),
        Mark::TimeIn(list, member) => {
            let [elements] = literal::fields(payload, [list]);
            let first = elements.and_then(|elements| literal::elements(elements, 1).first().copied());
            first.is_some_and(|element| has_time(element, member))
        }
        Mark::Number(member) => {
            let [number] = literal::fields(payload, [member]);
            number.is_some_and(|json| json.bytes().all(|byte| byte.is_ascii_digit()))
        }
    })
}

fn has_time(object: &RawValue, member: &str) -> bool {
    let [time] = literal::fields(object, [member]);
    let Some(time) = time.and_then(literal::decode) else { return false };
    let year = time.get(..4).filter(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
    year.is_some_and(|year| year > LAST_YEAR_OF_UNSET_CLOCKS)
}

/// Clocks that were never set begin in the year 1, in 1970 or in 2000.
const LAST_YEAR_OF_UNSET_CLOCKS: &str = "2000";

#[cfg(test)]
mod tests {
    use super::*;

    fn told_apart(action: &str, payload: &str) -> bool {
        is_unmistakable(Action::find(action).unwrap(), serde_json::from_str(payload).unwrap())
    }

    #[test]
    fn a_time_or_a_number_of_its_own_makes_a_message_unmistakable() {
        for (action, payload) in [
            ("StartTransaction", r#"{"connectorId":1,"timestamp":"2026-01-01T00:00:00Z"}"#),
            ("StopTransaction", r#"{"timestamp":"2026-01-01T00:00:00+02:00","transactionId":7}"#),
            ("StatusNotification", r#"{"connectorId":1,"timestamp":"2026-01-01T00:00:00"}"#),
            ("MeterValues", r#"{"meterValue":[{"sampledValue":[],"timestamp":"2026-01-01T00:00:00Z"},{}]}"#),
            ("TransactionEvent", r#"{"timestamp":"2026-01-01T00:00:00Z"}"#),
            ("TransactionEvent", r#"{"timestamp":"1970-01-01T00:00:00Z","seqNo":0}"#),
            ("SecurityEventNotification", r#"{"type":"x","timestamp":"\u0032026-01-01T00:00:00Z"}"#),
            ("NotifyReport", r#"{"requestId":1,"seqNo":0,"generatedAt":"2026-01-01T00:00:00Z"}"#),
        ] {
            assert!(told_apart(action, payload), "{action} {payload}");
        }
    }

    #[test]
    fn without_one_a_message_may_be_a_new_one() {
        let in_vain = r#""timestamp":"2026-01-01T00:00:00Z","generatedAt":"2026-01-01T00:00:00Z","seqNo":1"#;
        for action in
            ["Authorize", "BootNotification", "DataTransfer", "Heartbeat", "FirmwareStatusNotification"]
        {
            assert!(!told_apart(action, &format!("{{{in_vain}}}")), "{action}");
        }
        let times = ["null", "7", "[]", r#""""#, r#""now""#, r#""éé26-01-01""#, r#""0001-01-01T00:00:00Z""#];
        let unset = [r#""1970-01-01T00:00:00Z""#, r#""2000-01-01T00:00:00.000Z""#];
        for time in times.into_iter().chain(unset) {
            for action in ["StatusNotification", "StartTransaction", "TransactionEvent"] {
                assert!(!told_apart(action, &format!(r#"{{"connectorId":1,"timestamp":{time}}}"#)), "{time}");
            }
            assert!(!told_apart("MeterValues", &format!(r#"{{"meterValue":[{{"timestamp":{time}}}]}}"#)));
        }
        for payload in [r#"{"meterValue":[]}"#, r#"{"meterValue":{}}"#, "{}", "[]", "null"] {
            assert!(!told_apart("MeterValues", payload), "{payload}");
        }
        // The number of a part begins anew with each report, that of a transaction does not.
        assert!(!told_apart("NotifyEvent", r#"{"seqNo":0}"#));
        assert!(!told_apart("TransactionEvent", r#"{"seqNo":null}"#));
        assert!(!told_apart("TransactionEvent", r#"{"seqNo":"1"}"#));
    }
}
