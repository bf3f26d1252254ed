//! Built-in answers: what a gateway without a backend says to every request of a station.
//!
//! Owns one table of answers, as data. Every answer satisfies the official response schema and
//! decides as little as possible: acknowledgements are `{}`, and a decision that only a backend can
//! make gets the cautious answer (`Rejected`, `Failed`, `UnknownVendorId`). The operator's decisions
//! come in through [`AnswerContext`].

use serde_json::value::RawValue;

use crate::action::Action;
use crate::literal;
use crate::refusal;
use crate::shape;
use crate::version::Version;

/// The status a BootNotification is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Registration {
    /// In service.
    Accepted,
    /// Not in service yet; the CSMS may configure the station first.
    Pending,
    /// Refused. The station tries again after the interval.
    Rejected,
}

impl Registration {
    /// The word on the wire, the same in every version.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Pending => "Pending",
            Self::Rejected => "Rejected",
        }
    }

    /// The status that this word spells, exactly.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Accepted, Self::Pending, Self::Rejected].into_iter().find(|status| status.as_str() == word)
    }
}

/// What answers depend on besides the request.
#[derive(Clone, Copy)]
pub struct AnswerContext<'a> {
    /// Returns the current time: RFC 3339 in UTC, with at most three fractional digits. Called only
    /// for the few answers that contain the time.
    pub now: &'a dyn Fn() -> String,
    /// The status that answers a BootNotification.
    pub registration: Registration,
    /// Seconds between heartbeats once accepted, or before the next BootNotification otherwise.
    /// Written as at most `i32::MAX`, the largest integer that the schemas allow.
    pub interval_seconds: u32,
    /// The id of the transaction that a 1.6 StartTransaction begins; positive. A start needs one even
    /// when its idTag is refused. `None` is written as 0, which must never be allocated.
    pub transaction_id: Option<i32>,
    /// The status of every idTag and idToken in an answer: a value of the version's
    /// AuthorizationStatus, such as `Accepted` or `Invalid`.
    pub authorization: &'a str,
    /// The status that takes the place of every other: of the two above, and of the cautious ones of
    /// the table. [`crate::refusal()`] has words that refuse. A token that is not named is refused
    /// without it.
    pub status: Option<&'a str>,
}

/// The payload of the CALLRESULT that answers this request.
///
/// An action that no station may send has no answer. It gets `{}`, so that a caller that skipped
/// [`crate::classify_call`] still sends a well-formed message.
pub fn builtin(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
    context: &AnswerContext<'_>,
) -> String {
    let status = context.status.or_else(|| refusal::nobody(version, action, payload));
    let context = &AnswerContext { status, ..*context };
    match recipe(version, action) {
        Recipe::Fixed(template) => fill(template, context, &[]),
        Recipe::IfAsked { field, template } => match literal::fields(payload, [field]) {
            [Some(_)] => fill(template, context, &[]),
            [None] => String::from("{}"),
        },
        Recipe::Echo { field, fallback, template } => {
            let [value] = literal::fields(payload, [field]);
            let answer = fill(template, context, &[value.unwrap_or(fallback)]);
            valid_or(version, action, answer, || fill(template, context, &[fallback]))
        }
        Recipe::EchoEach { list, max, into, fields, fallbacks, template } => {
            let [items] = literal::fields(payload, [list]);
            let items = items.map(|items| literal::elements(items, max)).unwrap_or_default();
            let each: Vec<String> = items
                .iter()
                .map(|item| literal::fields(item, fields))
                .map(|[one, two]| [one.unwrap_or(fallbacks[0]), two.unwrap_or(fallbacks[1])])
                .map(|echoes| fill(template, context, &echoes))
                .collect();
            let answer = format!(r#"{{"{into}":[{}]}}"#, each.join(","));
            let fallback = || format!(r#"{{"{into}":[{}]}}"#, fill(template, context, &fallbacks));
            valid_or(version, action, answer, fallback)
        }
    }
}

/// Echoed values come from the station and may violate the schema of the response. The fallback is
/// sent then.
fn valid_or(
    version: Version,
    action: &'static Action,
    answer: String,
    fallback: impl FnOnce() -> String,
) -> String {
    let is_valid = serde_json::from_str::<&RawValue>(&answer)
        .is_ok_and(|payload| shape::validate_response(version, action, payload).is_ok());
    if is_valid { answer } else { fallback() }
}

/// How to make one answer.
enum Recipe {
    /// Fill in the template.
    Fixed(&'static str),
    /// Fill in the template if the request has the field; otherwise answer `{}`.
    IfAsked { field: &'static str, template: &'static str },
    /// Fill in the template with one field of the request as `<0>`.
    Echo { field: &'static str, fallback: &'static str, template: &'static str },
    /// Fill in the template once per element of a list in the request, with two fields of the
    /// element as `<0>` and `<1>`, and collect the results in the list `into`.
    EchoEach {
        list: &'static str,
        max: usize,
        into: &'static str,
        fields: [&'static str; 2],
        fallbacks: [&'static str; 2],
        template: &'static str,
    },
}

const NOTHING: Recipe = Recipe::Fixed("{}");
const REJECTED: Recipe = Recipe::Fixed(r#"{"status":<status=Rejected>}"#);
const FAILED: Recipe = Recipe::Fixed(r#"{"status":<status=Failed>}"#);

fn recipe(version: Version, action: &Action) -> Recipe {
    match action.name {
        "Authorize" if version.is_2x() => Recipe::Fixed(r#"{"idTokenInfo":{"status":<authorization>}}"#),
        "Authorize" => Recipe::Fixed(r#"{"idTagInfo":{"status":<authorization>}}"#),
        "BootNotification" => {
            Recipe::Fixed(r#"{"status":<registration>,"currentTime":<now>,"interval":<interval>}"#)
        }
        "DataTransfer" => Recipe::Fixed(r#"{"status":<status=UnknownVendorId>}"#),
        "Get15118EVCertificate" => Recipe::Fixed(r#"{"status":<status=Failed>,"exiResponse":""}"#),
        "GetCertificateChainStatus" => Recipe::EchoEach {
            list: "certificateStatusRequests",
            max: 4,
            into: "certificateStatus",
            fields: ["certificateHashData", "source"],
            fallbacks: [
                r#"{"hashAlgorithm":"SHA256","issuerNameHash":"","issuerKeyHash":"","serialNumber":""}"#,
                r#""OCSP""#,
            ],
            template: r#"{"certificateHashData":<0>,"source":<1>,"status":<status=Failed>,"nextUpdate":<now>}"#,
        },
        "GetCertificateStatus" => FAILED,
        "Heartbeat" => Recipe::Fixed(r#"{"currentTime":<now>}"#),
        "NotifyEVChargingNeeds" => REJECTED,
        "NotifyEVChargingSchedule" => Recipe::Fixed(r#"{"status":<status=Accepted>}"#),
        "OpenPeriodicEventStream" => REJECTED,
        "PullDynamicScheduleUpdate" => REJECTED,
        "SignCertificate" => REJECTED,
        "StartTransaction" => {
            Recipe::Fixed(r#"{"idTagInfo":{"status":<authorization>},"transactionId":<transactionId>}"#)
        }
        // idTokenInfo is required exactly when the request has an idToken (2.x Part 2, field text).
        "TransactionEvent" => {
            Recipe::IfAsked { field: "idToken", template: r#"{"idTokenInfo":{"status":<authorization>}}"# }
        }
        "VatNumberValidation" => Recipe::Echo {
            field: "vatNumber",
            fallback: r#""""#,
            template: r#"{"vatNumber":<0>,"status":<status=Rejected>}"#,
        },
        // Pure acknowledgements: their responses have no required field. StopTransaction is one of
        // them: its idTagInfo is optional, and the request does not ask for it.
        _ => NOTHING,
    }
}

/// Replaces the placeholders of a template. `<status=WORD>` is the word unless the context has another.
fn fill(template: &str, context: &AnswerContext<'_>, echoes: &[&str]) -> String {
    let mut out = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('<') {
        let (name, after) = after.split_once('>').unwrap_or((after, ""));
        out.push_str(before);
        let (name, usual) = name.split_once('=').unwrap_or((name, ""));
        match name {
            "now" => literal::push(&mut out, &(context.now)()),
            "registration" => {
                literal::push(&mut out, context.status.unwrap_or(context.registration.as_str()));
            }
            "interval" => {
                out.push_str(&i32::try_from(context.interval_seconds).unwrap_or(i32::MAX).to_string());
            }
            "transactionId" => out.push_str(&context.transaction_id.unwrap_or(0).to_string()),
            "authorization" => literal::push(&mut out, context.status.unwrap_or(context.authorization)),
            "status" => literal::push(&mut out, context.status.unwrap_or(usual)),
            echo => {
                let value = echo.parse().ok().and_then(|at: usize| echoes.get(at));
                out.push_str(value.copied().unwrap_or("null"));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: AnswerContext<'static> = AnswerContext {
        now: &|| "2026-11-20T10:30:00.123Z".to_owned(),
        registration: Registration::Pending,
        interval_seconds: 300,
        transaction_id: Some(7),
        authorization: "Blocked",
        status: None,
    };

    fn answer(version: Version, name: &str, payload: &str) -> String {
        builtin(version, Action::find(name).unwrap(), serde_json::from_str(payload).unwrap(), &CONTEXT)
    }

    fn assert_valid(version: Version, name: &str, answer: &str) {
        let payload = serde_json::from_str(answer).unwrap();
        let checked = shape::validate_response(version, Action::find(name).unwrap(), payload);
        assert_eq!(checked, Ok(()), "{version:?} {name}: {answer}");
    }

    #[test]
    fn every_answer_is_valid_whatever_was_asked() {
        let hostile = format!(r#"{{"vatNumber":"{}","idToken":{{}}}}"#, "9".repeat(21));
        let asked = ["{}", "null", "[]", r#"{"vatNumber":7}"#, &hostile];
        for version in Version::ALL {
            for action in Action::all().iter().filter(|action| action.station_may_call(version)) {
                for payload in asked {
                    assert_valid(version, action.name, &answer(version, action.name, payload));
                }
            }
        }
    }

    #[test]
    fn only_responses_without_required_fields_are_empty() {
        // The converse, that a template fits its response, is what the test above shows.
        for version in Version::ALL {
            for action in Action::all().iter().filter(|action| action.station_may_call(version)) {
                if matches!(recipe(version, action), Recipe::Fixed("{}")) {
                    assert_valid(version, action.name, "{}");
                }
            }
        }
    }

    #[test]
    fn decisions_come_from_the_context() {
        let boot = r#"{"status":"Pending","currentTime":"2026-11-20T10:30:00.123Z","interval":300}"#;
        for version in Version::ALL {
            assert_eq!(answer(version, "BootNotification", "{}"), boot);
        }
        for (payload, status) in [(r#"{"idTag":"A"}"#, "Blocked"), ("{}", "Invalid")] {
            let info = format!(r#""idTagInfo":{{"status":"{status}"}}"#);
            assert_eq!(answer(Version::V16, "Authorize", payload), format!("{{{info}}}"));
            let start = format!(r#"{{{info},"transactionId":7}}"#);
            assert_eq!(answer(Version::V16, "StartTransaction", payload), start);
        }
        assert_eq!(
            answer(Version::V21, "Authorize", r#"{"idToken":{"idToken":"A","type":"Central"}}"#),
            r#"{"idTokenInfo":{"status":"Blocked"}}"#
        );
        assert_eq!(answer(Version::V21, "Authorize", "{}"), r#"{"idTokenInfo":{"status":"Invalid"}}"#);
    }

    #[test]
    fn whatever_can_refuse_does_so_in_each_of_its_words() {
        let payload = serde_json::from_str(r#"{"idToken":{"idToken":"A","type":"Central"}}"#).unwrap();
        for version in Version::ALL {
            for action in Action::all().iter().filter(|action| action.station_may_call(version)) {
                for word in refusal::refusals(version, action) {
                    let answer =
                        builtin(version, action, payload, &AnswerContext { status: Some(word), ..CONTEXT });
                    assert_valid(version, action.name, &answer);
                    assert!(answer.contains(&format!(r#""status":"{word}""#)), "{}: {answer}", action.name);
                }
            }
        }
    }

    #[test]
    fn values_of_the_context_cannot_break_the_answer() {
        let context = AnswerContext {
            now: &|| "\"}".to_owned(),
            interval_seconds: u32::MAX,
            transaction_id: None,
            authorization: "<now>",
            ..CONTEXT
        };
        let say = |name: &str| {
            let payload = serde_json::from_str(r#"{"idTag":"A"}"#).unwrap();
            builtin(Version::V16, Action::find(name).unwrap(), payload, &context)
        };
        assert_eq!(
            say("BootNotification"),
            r#"{"status":"Pending","currentTime":"\"}","interval":2147483647}"#
        );
        assert_eq!(say("StartTransaction"), r#"{"idTagInfo":{"status":"<now>"},"transactionId":0}"#);
    }

    #[test]
    fn a_transaction_event_is_authorised_only_when_it_asks() {
        for version in [Version::V201, Version::V21] {
            let event = |payload: &str| answer(version, "TransactionEvent", payload);
            assert_eq!(event(r#"{"seqNo":1}"#), "{}");
            assert_eq!(event(r#"{"idToken":null}"#), "{}");
            assert_eq!(
                event(r#"{"idToken":{"idToken":"A","type":"Central"}}"#),
                r#"{"idTokenInfo":{"status":"Blocked"}}"#
            );
        }
    }

    #[test]
    fn the_vat_number_is_echoed_unless_it_cannot_be() {
        let vat = |payload: &str| answer(Version::V21, "VatNumberValidation", payload);
        assert_eq!(vat(r#"{"vatNumber":"NL\u0031"}"#), r#"{"vatNumber":"NL\u0031","status":"Rejected"}"#);
        assert_eq!(vat(r#"{"vatNumber":{}}"#), r#"{"vatNumber":"","status":"Rejected"}"#);
    }

    #[test]
    fn certificate_statuses_match_the_requests_one_to_one() {
        let chain = |requests: &str| {
            let payload = format!(r#"{{"certificateStatusRequests":[{requests}]}}"#);
            let answer = answer(Version::V21, "GetCertificateChainStatus", &payload);
            assert_valid(Version::V21, "GetCertificateChainStatus", &answer);
            answer
        };
        let request = |serial: &str, source: &str| {
            format!(
                r#"{{"source":"{source}","urls":["u"],"certificateHashData":{{"hashAlgorithm":"SHA512",
                "issuerNameHash":"n","issuerKeyHash":"k","serialNumber":"{serial}"}}}}"#
            )
        };
        let both = chain(&[request("01", "CRL"), request("02", "OCSP")].join(","));
        assert_eq!(both.matches(r#""status":"Failed""#).count(), 2);
        assert!(both.find("\"01\"") < both.find("\"02\"") && both.contains(r#""source":"CRL""#));
        let six = chain(&vec![request("1", "CRL"); 6].join(","));
        assert_eq!(six.matches("Failed").count(), 4);
        for broken in ["", "7", "{}", r#"{"source":"MAIL"}"#, r#"{"certificateHashData":[]}"#] {
            assert_eq!(chain(broken).matches("Failed").count(), 1, "{broken}");
        }
    }

    #[test]
    fn registration_words_are_exact() {
        for status in [Registration::Accepted, Registration::Pending, Registration::Rejected] {
            assert_eq!(Registration::parse(status.as_str()), Some(status));
        }
        assert_eq!(Registration::parse("accepted"), None);
    }
}
