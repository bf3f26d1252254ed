//! Refusals: which answers can say no, in which words, and which requests ask for nothing that could be refused.
//!
//! Owns the words. Does not write answers (`answer`), and does not decide that one is a refusal.

use serde_json::value::RawValue;

use crate::action::Action;
use crate::literal;
use crate::shape;
use crate::version::Version;

/// Refuses a token, in every version.
const INVALID: &str = "Invalid";
/// The statuses that refuse nothing.
const CONSENTS: [&str; 2] = ["Accepted", "Good"];

/// The statuses with which an answer to this action may refuse. Empty if the answer only acknowledges: a report, such as
/// StopTransaction or MeterValues, cannot be refused.
pub fn refusals(version: Version, action: &'static Action) -> Vec<&'static str> {
    let Some((place, _)) = decision(version, action) else { return Vec::new() };
    let words = shape::response_words(version, action, place).iter().copied();
    words.filter(|word| !CONSENTS.contains(word)).collect()
}

/// The status that refuses this request: the chosen one if the version has it, else the usual one. `None` if the
/// request asks for no decision, as a TransactionEvent without a token does, or one that tells of the end.
pub fn refusal(
    version: Version,
    action: &'static Action,
    request: &RawValue,
    chosen: Option<&str>,
) -> Option<&'static str> {
    let (_, usual) = decision(version, action)?;
    if action.name == "TransactionEvent" {
        let [token, event] = literal::fields(request, ["idToken", "eventType"]);
        let is_over = event.and_then(literal::decode).is_some_and(|event| event == "Ended");
        if token.is_none() || is_over {
            return None;
        }
    }
    let chosen = chosen.and_then(|chosen| refusals(version, action).into_iter().find(|word| *word == chosen));
    chosen.or(Some(usual))
}

/// The status that refuses a request that is about a token and names none: nobody may charge as nobody, whether or not
/// payloads are validated. `None` for every other request.
pub fn nobody(version: Version, action: &Action, request: &RawValue) -> Option<&'static str> {
    let token = |name| {
        let [token] = literal::fields(request, [name]);
        token
    };
    let names_nobody = match action.name {
        "Authorize" if version.is_2x() => token("idToken").is_none_or(is_empty),
        // Without a token it asks for nothing.
        "TransactionEvent" => token("idToken").is_some_and(is_empty),
        "Authorize" | "StartTransaction" => token("idTag").is_none_or(is_empty),
        _ => false,
    };
    names_nobody.then_some(INVALID)
}

/// Whether a token, a text in 1.6 and an object in 2.x, has no id. In 2.x the token of a station that authorises nobody
/// (`NoAuthorization`, C02) has an empty one.
fn is_empty(token: &str) -> bool {
    const EMPTY: &str = "\"\"";
    if !token.starts_with('{') {
        return token == EMPTY;
    }
    let Ok(token) = serde_json::from_str::<&RawValue>(token) else { return true };
    let [id, kind] = literal::fields(token, ["idToken", "type"]);
    match id {
        None => true,
        Some(EMPTY) => kind.and_then(literal::decode).is_none_or(|kind| kind != "NoAuthorization"),
        Some(_) => false,
    }
}

/// Where in an answer the decision is, and the status that refuses it unless another is chosen.
fn decision(version: Version, action: &Action) -> Option<(&'static [&'static str], &'static str)> {
    const STATUS: &[&str] = &["status"];
    Some(match action.name {
        "Authorize" | "TransactionEvent" if version.is_2x() => (&["idTokenInfo", "status"], INVALID),
        "Authorize" | "StartTransaction" => (&["idTagInfo", "status"], INVALID),
        "BootNotification" => (STATUS, "Pending"),
        "DataTransfer"
        | "NotifyEVChargingNeeds"
        | "NotifyEVChargingSchedule"
        | "OpenPeriodicEventStream"
        | "PullDynamicScheduleUpdate"
        | "SignCertificate"
        | "VatNumberValidation" => (STATUS, "Rejected"),
        "Get15118EVCertificate" | "GetCertificateStatus" => (STATUS, "Failed"),
        "GetCertificateChainStatus" => (&["certificateStatus", "status"], "Failed"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str) -> &'static Action {
        Action::find(name).unwrap()
    }

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_answer_with_a_required_status_can_refuse_and_no_report_can() {
        for version in Version::ALL {
            for action in Action::all().iter().filter(|action| action.station_may_call(version)) {
                let acknowledges = shape::validate_response(version, action, raw("{}")).is_ok();
                let words = refusals(version, action);
                // The answer to a TransactionEvent decides only if it is asked to.
                let decides = !acknowledges || action.name == "TransactionEvent";
                // A Heartbeat has the time in its answer, and no status.
                assert_eq!(
                    !words.is_empty(),
                    decides && action.name != "Heartbeat",
                    "{version:?} {} {words:?}",
                    action.name
                );
                let usual = decision(version, action).map(|(_, usual)| usual);
                assert!(usual.is_none_or(|usual| words.contains(&usual)), "{version:?} {}", action.name);
            }
        }
    }

    #[test]
    fn the_words_are_those_of_the_version() {
        assert_eq!(
            refusals(Version::V16, action("Authorize")),
            ["Blocked", "Expired", "Invalid", "ConcurrentTx"]
        );
        assert!(refusals(Version::V21, action("Authorize")).contains(&"NoCredit"));
        assert_eq!(refusals(Version::V201, action("BootNotification")), ["Pending", "Rejected"]);
        assert!(!refusals(Version::V21, action("GetCertificateChainStatus")).contains(&"Good"));
        let say = |version, chosen| refusal(version, action("Authorize"), raw("{}"), chosen);
        assert_eq!(say(Version::V201, Some("NoCredit")), Some("NoCredit"));
        assert_eq!(say(Version::V16, Some("NoCredit")), Some("Invalid"), "1.6 has no such word");
        assert_eq!(say(Version::V16, Some("Accepted")), Some("Invalid"));
        assert_eq!(say(Version::V16, None), Some("Invalid"));
    }

    #[test]
    fn a_transaction_is_refused_only_where_it_asks() {
        for (event, word) in [
            (r#"{"eventType":"Started","idToken":{"idToken":"A","type":"Central"}}"#, Some("Invalid")),
            (r#"{"eventType":"Updated","idToken":{}}"#, Some("Invalid")),
            (r#"{"eventType":"\u0045nded","idToken":{"idToken":"A","type":"Central"}}"#, None),
            (r#"{"eventType":"Updated"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(refusal(Version::V201, action("TransactionEvent"), raw(event), None), word, "{event}");
        }
        for report in ["StopTransaction", "MeterValues", "StatusNotification", "Heartbeat"] {
            assert_eq!(refusal(Version::V16, action(report), raw("{}"), Some("Invalid")), None, "{report}");
        }
    }

    #[test]
    fn nobody_is_whoever_has_no_token() {
        let is_nobody = |version, name: &str, request: &str| nobody(version, action(name), raw(request));
        for request in ["{}", "null", "[]", r#"{"idTag":null}"#, r#"{"idTag":""}"#, r#"{"idTag":{}}"#] {
            assert_eq!(is_nobody(Version::V16, "Authorize", request), Some("Invalid"), "{request}");
            assert_eq!(is_nobody(Version::V16, "StartTransaction", request), Some("Invalid"), "{request}");
        }
        for request in [r#"{"idTag":"A"}"#, r#"{"idTag":7}"#] {
            assert_eq!(is_nobody(Version::V16, "Authorize", request), None, "{request}");
        }
        for (token, word) in [
            (r#"{"idToken":"A","type":"Central"}"#, None),
            (r#"{"idToken":"","type":"NoAuthorization"}"#, None),
            (r#"{"idToken":"","type":"Central"}"#, Some("Invalid")),
            (r#"{"type":"Central"}"#, Some("Invalid")),
            ("{}", Some("Invalid")),
            (r#""A""#, None),
            (r#""""#, Some("Invalid")),
        ] {
            let request = format!(r#"{{"idToken":{token}}}"#);
            for name in ["Authorize", "TransactionEvent"] {
                assert_eq!(is_nobody(Version::V21, name, &request), word, "{name} {token}");
            }
        }
        assert_eq!(is_nobody(Version::V201, "Authorize", "{}"), Some("Invalid"));
        assert_eq!(is_nobody(Version::V201, "TransactionEvent", "{}"), None);
        assert_eq!(is_nobody(Version::V16, "StopTransaction", "{}"), None);
    }
}
