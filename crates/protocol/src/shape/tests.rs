//! Shapes against the table of actions, payloads against shapes.

use super::*;
use crate::action::Mark;
use crate::error_code::ErrorCode;

fn action(name: &str) -> &'static Action {
    Action::find(name).unwrap()
}

fn request(version: Version, name: &str, payload: &str) -> Result<(), Violation> {
    validate_request(version, action(name), serde_json::from_str(payload).unwrap())
}

fn refused(version: Version, name: &str, payload: &str) -> (ErrorCode, String) {
    let violation = request(version, name, payload).expect_err(payload);
    assert!(!violation.description.is_empty());
    (violation.code(), violation.field)
}

/// Everything that is found, as `member kind`.
fn found(version: Version, name: &str, payload: &str) -> Vec<String> {
    let payload = serde_json::from_str(payload).unwrap();
    let findings = check_request(version, action(name), payload, Tolerance::NONE);
    findings.all().iter().map(|one| format!("{} {}", one.member(), one.kind.as_str())).collect()
}

const STATUS: &str = r#"{"connectorId":1,"errorCode":"NoError","status":"Available"}"#;
const METER: &str = r#"{"connectorId":1,"meterValue":[{"timestamp":"2026-11-20T10:00:00Z",
    "sampledValue":[{"value":"1.5","unit":"Celsius"},{"value":"2","unit":"Celcius"}]}]}"#;

#[test]
fn every_line_of_the_files_is_understood() {
    for version in Version::ALL {
        let mut lines = notation::text(version).lines();
        assert!(lines.next().unwrap().starts_with("# OCPP "));
        let mut shapes = Shapes::default();
        for line in lines {
            assert!(shapes.read_line(line).is_some(), "{line}");
        }
        let count = shapes.requests.len() + shapes.responses.len() + shapes.types.len() + shapes.kinds.len();
        assert_eq!(count, notation::text(version).lines().count() - 1, "a name is defined twice");
    }
}

/// A station's requests are marked by the time that the schema gives them, whatever its name.
#[test]
fn every_time_of_a_stations_request_marks_it() {
    for version in Version::ALL {
        let shapes = Shapes::of(version);
        for action in Action::all().iter().filter(|action| action.station_may_call(version)) {
            let fields = &shapes.requests[action.name];
            for field in fields.iter().filter(|field| matches!(field.kind, Kind::Time)) {
                let is_mark = action.marks().contains(&Mark::Time(field.name));
                // When a schedule begins: the vehicle may want the same one again.
                assert_eq!(is_mark, field.name != "timeBase", "{} {}", action.name, field.name);
            }
            for mark in action.marks() {
                let (Mark::Time(name) | Mark::TimeIn(name, _) | Mark::Number(name)) = mark;
                let is_newer = (action.name, version) == ("NotifyEVChargingNeeds", Version::V201);
                assert_eq!(fields.iter().any(|field| field.name == *name), !is_newer, "{}", action.name);
            }
        }
        for action in Action::all().iter().filter(|action| !action.station_may_call(version)) {
            assert!(action.direction(version).is_none() || action.marks().is_empty(), "{}", action.name);
        }
    }
}

#[test]
fn every_name_is_defined_and_none_is_circular() {
    fn depth(shapes: &Shapes, kind: &Kind, above: &mut Vec<&'static str>) -> usize {
        match kind {
            Kind::List { of, .. } => 1 + depth(shapes, of, above),
            Kind::Named(name) => {
                assert!(!above.contains(name), "{name} contains itself");
                above.push(name);
                let depth = match (shapes.types.get(name), shapes.kinds.get(name)) {
                    (Some(fields), None) => depth_of(shapes, fields, above),
                    (None, Some(kind)) => depth(shapes, kind, above),
                    _ => panic!("{name} has not exactly one definition"),
                };
                above.pop();
                depth
            }
            _ => 0,
        }
    }
    fn depth_of(shapes: &Shapes, fields: &[Field], above: &mut Vec<&'static str>) -> usize {
        1 + fields.iter().map(|field| depth(shapes, &field.kind, above)).max().unwrap_or(0)
    }
    let mut deepest = 0;
    for version in Version::ALL {
        let shapes = Shapes::of(version);
        for fields in shapes.requests.values().chain(shapes.responses.values()) {
            deepest = deepest.max(depth_of(shapes, fields, &mut Vec::new()));
        }
    }
    // The deepest object may hold a customData besides: 13 levels, of which the frame reader's
    // limit leaves plenty.
    assert_eq!(deepest + 1, 13);
}

#[test]
fn shapes_and_actions_name_the_same_messages() {
    let count = |version| (Shapes::of(version).requests.len(), Shapes::of(version).responses.len());
    assert_eq!(Version::ALL.map(count), [(39, 39), (64, 64), (91, 90)], "387 messages");
    for version in Version::ALL {
        let shapes = Shapes::of(version);
        for action in Action::all() {
            let exists = action.direction(version).is_some();
            assert_eq!(shapes.requests.contains_key(action.name), exists, "{version:?} {}", action.name);
            let answered = exists && !action.is_send(version);
            assert_eq!(shapes.responses.contains_key(action.name), answered, "{version:?} {}", action.name);
        }
        assert!(
            shapes.requests.keys().chain(shapes.responses.keys()).all(|name| Action::find(name).is_some())
        );
    }
}

#[test]
fn valid_payloads_pass() {
    assert_eq!(request(Version::V16, "StatusNotification", STATUS), Ok(()));
    assert_eq!(request(Version::V16, "MeterValues", METER), Ok(()));
    for payload in ["{}", "null", " { } "] {
        assert_eq!(request(Version::V16, "Heartbeat", payload), Ok(()), "{payload}");
    }
    let event = r#"{"eventType":"Started","timestamp":"2026-11-20T10:00:00Z","triggerReason":"Authorized",
        "seqNo":0,"transactionInfo":{"transactionId":"t1"},"idToken":{"idToken":"A","type":"ISO14443"},
        "customData":{"vendorId":"x","anything":[[[1]]]}}"#;
    assert_eq!(request(Version::V201, "TransactionEvent", event), Ok(()));
    assert_eq!(request(Version::V21, "TransactionEvent", event), Ok(()));
    let stop = r#"{"transactionId":-1,"timestamp":"2026-11-20T10:00:00Z","meterStop":5}"#;
    assert_eq!(request(Version::V16, "StopTransaction", stop), Ok(()), "the reason is optional");
}

#[test]
fn each_mistake_has_its_code() {
    use ErrorCode::{
        FormatViolation, OccurrenceConstraintViolation, PropertyConstraintViolation, TypeConstraintViolation,
    };
    let status = |from: &str, to: &str| {
        assert!(STATUS.contains(from));
        refused(Version::V16, "StatusNotification", &STATUS.replacen(from, to, 1))
    };
    let at = |code, field: &str| (code, field.to_owned());
    assert_eq!(status(r#""connectorId":1,"#, ""), at(OccurrenceConstraintViolation, "connectorId"));
    assert_eq!(status("1", "null"), at(OccurrenceConstraintViolation, "connectorId"));
    assert_eq!(status("1", "\"1\""), at(TypeConstraintViolation, "connectorId"));
    assert_eq!(status("1", "[1]"), at(TypeConstraintViolation, "connectorId"));
    assert_eq!(status("1", "1.5"), at(TypeConstraintViolation, "connectorId"));
    assert_eq!(status("1", "2147483648"), at(PropertyConstraintViolation, "connectorId"));
    assert_eq!(status("\"Available\"", "\"available\""), at(PropertyConstraintViolation, "status"));
    assert_eq!(status("\"Available\"", "true"), at(TypeConstraintViolation, "status"));
    assert_eq!(status("{", r#"{"vendor":1,"#), at(FormatViolation, "vendor"));
    assert_eq!(status("{", r#"{"customData":{"vendorId":"x"},"#), at(FormatViolation, "customData"));
    let long = format!(r#"{{"info":"{}","#, "x".repeat(51));
    assert_eq!(status("{", &long), at(PropertyConstraintViolation, "info"));
    for time in ["", "hello", "2026-13-01T00:00:00Z", "2026-11-20T10:00:00", "2026-11-20T10:00:00+02"] {
        let member = format!(r#"{{"timestamp":"{time}","#);
        assert_eq!(status("{", &member), at(PropertyConstraintViolation, "timestamp"), "{time}");
    }
    assert_eq!(status("{", r#"{"timestamp":5,"#), at(TypeConstraintViolation, "timestamp"));
    assert_eq!(status("{", r#"{"info":null,"#), at(TypeConstraintViolation, "info"));
    assert_eq!(status("{", r#"{"info":1e999,"#), at(FormatViolation, ""));
    assert_eq!(refused(Version::V16, "Heartbeat", "[]"), at(TypeConstraintViolation, ""));
    assert_eq!(refused(Version::V201, "SendLocalList", "{}").0, OccurrenceConstraintViolation);
}

#[test]
fn paths_lead_to_the_field() {
    let path = |payload: &str| refused(Version::V16, "MeterValues", payload).1;
    assert_eq!(path(&METER.replace("Celcius", "Kelwin")), "meterValue[0].sampledValue[1].unit");
    assert_eq!(path(r#"{"connectorId":1,"meterValue":[{"sampledValue":[]}]}"#), "meterValue[0].timestamp");
    assert_eq!(path(r#"{"connectorId":1,"meterValue":[]}"#), "meterValue");
    assert_eq!(path(r#"{"connectorId":1,"meterValue":{}}"#), "meterValue");
    assert_eq!(path(r#"{"connectorId":1,"meterValue":[7]}"#), "meterValue[0]");
}

#[test]
fn what_stations_commonly_do_passes() {
    let payload = STATUS.replacen('{', r#"{"info":"","#, 1);
    assert_eq!(request(Version::V16, "StatusNotification", &payload), Ok(()));
    let whole = STATUS.replacen('1', "1.0", 1);
    assert_eq!(request(Version::V16, "StatusNotification", &whole), Ok(()));
    for time in ["2026-11-20T10:00:00Z", "2026-11-20T10:00:00.1234567+02:00"] {
        let payload = STATUS.replacen('{', &format!(r#"{{"timestamp":"{time}","#), 1);
        assert_eq!(request(Version::V16, "StatusNotification", &payload), Ok(()), "{time}");
    }
}

#[test]
fn each_deviation_of_the_field_has_a_kind_that_can_be_tolerated() {
    let status = |member: &str| STATUS.replacen('{', &format!("{{{member},"), 1);
    let meter = |from: &str, to: &str| {
        assert!(METER.contains(from), "{from}");
        METER.replacen(from, to, 1)
    };
    let sampled = r#"[{"value":"1.5","unit":"Celsius"},{"value":"2","unit":"Celcius"}]"#;
    let long = format!(r#""info":"{}""#, "x".repeat(51));
    let cases = [
        ("StatusNotification", status(&long), "info longStrings"),
        ("StatusNotification", status(r#""info":null"#), "info nulls"),
        ("StatusNotification", status(r#""info":5"#), "info stringsAsNumbers"),
        ("StatusNotification", status(r#""timestamp":"2026-11-20T10:00:00""#), "timestamp times"),
        ("StatusNotification", status(r#""extra":{"deep":[1]}"#), "extra additional"),
        ("StatusNotification", STATUS.replacen('1', "\" 1 \"", 1), "connectorId numbersAsStrings"),
        ("MeterValues", meter("Celcius", "Hz"), "meterValue[].sampledValue[].unit unknownValues"),
        ("MeterValues", meter("\"2\"", "2.0"), "meterValue[].sampledValue[].value stringsAsNumbers"),
        ("MeterValues", meter(sampled, r#"{"value":"1"}"#), "meterValue[].sampledValue singleForList"),
    ];
    for (name, payload, expected) in cases {
        assert_eq!(found(Version::V16, name, &payload), [expected], "{payload}");
        let payload = serde_json::from_str(&payload).unwrap();
        let check = |tolerance| check_request(Version::V16, action(name), payload, tolerance);
        let kind = check(Tolerance::NONE).refusal().unwrap().kind;
        let others = ViolationKind::ALL.into_iter().filter(|other| *other != kind).collect();
        assert!(check(others).refusal().is_some(), "{expected}");
        let tolerated = check(Tolerance::from_iter([kind]));
        assert_eq!((tolerated.refusal(), tolerated.all().len()), (None, 1), "{expected}");
        assert_eq!(tolerated.foremost(), tolerated.all().first());
    }
}

#[test]
fn a_tolerated_form_does_not_hide_a_wrong_value() {
    let all = || ViolationKind::ALL.into_iter();
    let words = |name: &str, payload: &str| found(Version::V21, name, payload);
    // Text that is no number, a number in a text that is out of range, one value for a list of at least two.
    let status = |evse: &str| {
        let time = "2026-11-20T10:00:00Z";
        format!(r#"{{"timestamp":"{time}","connectorStatus":"Available","evseId":{evse},"connectorId":1}}"#)
    };
    for (evse, expected) in [
        (r#""one""#, vec!["evseId wrongTypes"]),
        (r#""inf""#, vec!["evseId wrongTypes"]),
        (r#""""#, vec!["evseId wrongTypes"]),
        (r#""-1""#, vec!["evseId numbersAsStrings", "evseId wrongValues"]),
        (r#""1.5""#, vec!["evseId numbersAsStrings", "evseId wrongTypes"]),
    ] {
        assert_eq!(words("StatusNotification", &status(evse)), expected, "{evse}");
    }
    assert_eq!(
        words("NotifyEvent", r#"{"generatedAt":"hello","seqNo":0,"eventData":7}"#),
        ["generatedAt wrongValues", "eventData singleForList", "eventData[] wrongTypes"]
    );
    for (at, kind) in all().enumerate() {
        assert_eq!(kind as usize, at);
        assert_eq!(all().filter(|other| other.as_str() == kind.as_str()).count(), 1);
        assert!(!Tolerance::NONE.contains(kind) && all().collect::<Tolerance>().contains(kind));
    }
}

#[test]
fn everything_is_found_once_and_the_first_that_is_not_tolerated_refuses() {
    let sample = r#"{"value":1,"unit":"Hz","phase":null}"#;
    let value = format!(r#"{{"timestamp":"yesterday","sampledValue":[{sample},{sample}],"x":1}}"#);
    let payload = format!(r#"{{"meterValue":[{value},{value}],"x":1}}"#);
    assert_eq!(
        found(Version::V16, "MeterValues", &payload),
        [
            "connectorId missing",
            "meterValue[].timestamp wrongValues",
            "meterValue[].sampledValue[].value stringsAsNumbers",
            "meterValue[].sampledValue[].phase nulls",
            "meterValue[].sampledValue[].unit unknownValues",
            "meterValue[].x additional",
            "x additional",
        ]
    );
    // The list is bounded; what refuses is found behind it all the same.
    let invented: String = (0..50).map(|number| format!(r#""a{number}":1,"#)).collect();
    let payload = format!(r#"{{{invented}"meterValue":[{{"timestamp":1,"sampledValue":[]}}]}}"#);
    let payload = serde_json::from_str(&payload).unwrap();
    let tolerance = [ViolationKind::Additional, ViolationKind::Missing, ViolationKind::WrongType];
    let findings =
        check_request(Version::V16, action("MeterValues"), payload, tolerance.into_iter().collect());
    assert_eq!(findings.all().len(), 16);
    let refusal = findings.refusal().unwrap();
    assert_eq!(refusal.to_string(), "payload.meterValue[0].sampledValue: fewer than 1 elements");
    assert_eq!(findings.foremost(), Some(refusal));
}

#[test]
fn what_refuses_is_found_behind_any_number_of_tolerated_violations() {
    let samples = vec![r#"{"value":1}"#; 5_000].join(",");
    let value =
        format!(r#"{{"timestamp":"2026-11-20T10:00:00Z","sampledValue":[{samples},{{"value":[]}}]}}"#);
    let payload = format!(r#"{{"connectorId":1,"meterValue":[{value}]}}"#);
    let payload = serde_json::from_str(&payload).unwrap();
    let tolerance = [ViolationKind::StringAsNumber].into_iter().collect();
    let findings = check_request(Version::V16, action("MeterValues"), payload, tolerance);
    assert_eq!(findings.all().len(), 2);
    assert_eq!(findings.refusal().unwrap().field, "meterValue[0].sampledValue[5000].value");
}

#[test]
fn a_violation_names_its_member_and_shows_the_value_in_short() {
    let text = |payload: &str| request(Version::V16, "Reset", payload).unwrap_err().to_string();
    assert_eq!(text("{}"), "payload.type: missing");
    assert_eq!(text(r#"{"type":"Foo"}"#), r#"payload.type: "Foo" is not one of the allowed values"#);
    assert_eq!(text("[]"), "payload: not an object");
    let long = text(&format!(r#"{{"type":"\n{}"}}"#, "x".repeat(100)));
    assert_eq!(long, format!(r#"payload.type: "\n{}"… is not one of the allowed values"#, "x".repeat(31)));
}

#[test]
fn responses_are_checked_as_requests_are() {
    let check = |version, name: &str, payload: &str| {
        validate_response(version, action(name), serde_json::from_str(payload).unwrap())
    };
    assert_eq!(check(Version::V16, "Reset", r#"{"status":"Accepted"}"#), Ok(()));
    let refused = check(Version::V21, "Reset", r#"{"status":"Maybe"}"#).unwrap_err();
    assert_eq!(refused.field, "status");
    assert_eq!(refused.kind, ViolationKind::UnknownValue);
}

#[test]
fn limits_of_1_6_have_at_most_one_decimal_place() {
    let limit = |limit: &str| {
        let period = format!(r#"{{"startPeriod":0,"limit":{limit}}}"#);
        let schedule = format!(r#"{{"chargingRateUnit":"A","chargingSchedulePeriod":[{period}]}}"#);
        let profile = format!(
            r#"{{"chargingProfileId":1,"stackLevel":0,"chargingProfilePurpose":"TxProfile",
            "chargingProfileKind":"Absolute","chargingSchedule":{schedule}}}"#
        );
        let payload = format!(r#"{{"connectorId":1,"csChargingProfiles":{profile}}}"#);
        request(Version::V16, "SetChargingProfile", &payload).map_err(|violation| violation.kind)
    };
    for good in ["0", "16", "16.1", "0.3", "32.7", "11000.9", "1e3", "-0.1"] {
        assert_eq!(limit(good), Ok(()), "{good}");
    }
    assert_eq!(limit("16.05"), Err(ViolationKind::WrongValue));
    assert_eq!(limit("\"16.1\""), Err(ViolationKind::NumberAsString));
}

#[test]
fn custom_data_must_name_its_vendor() {
    let heartbeat =
        |custom: &str| request(Version::V201, "Heartbeat", &format!(r#"{{"customData":{custom}}}"#));
    assert_eq!(heartbeat(r#"{"vendorId":"x","deep":{"a":[1]}}"#), Ok(()));
    let code = |custom: &str| heartbeat(custom).unwrap_err().code();
    assert_eq!(code("null"), ErrorCode::TypeConstraintViolation);
    assert_eq!(code("{}"), ErrorCode::OccurrenceConstraintViolation);
    assert_eq!(code("7"), ErrorCode::TypeConstraintViolation);
    assert_eq!(code(r#"{"vendorId":7}"#), ErrorCode::TypeConstraintViolation);
    assert_eq!(
        code(&format!(r#"{{"vendorId":"{}"}}"#, "x".repeat(256))),
        ErrorCode::PropertyConstraintViolation
    );
}

#[test]
fn bounds_and_counts_are_inclusive() {
    let chain = |count: usize| {
        let one = r#"{"certificateHashData":{"hashAlgorithm":"SHA256","issuerNameHash":"","issuerKeyHash":"",
            "serialNumber":""},"source":"OCSP","urls":["u"]}"#;
        let all = vec![one; count].join(",");
        request(
            Version::V21,
            "GetCertificateChainStatus",
            &format!(r#"{{"certificateStatusRequests":[{all}]}}"#),
        )
        .map_err(|violation| violation.code())
    };
    assert_eq!(chain(1), Ok(()));
    assert_eq!(chain(4), Ok(()));
    assert_eq!(chain(0), Err(ErrorCode::OccurrenceConstraintViolation));
    assert_eq!(chain(5), Err(ErrorCode::OccurrenceConstraintViolation));

    let status = |evse: i64| {
        let payload = format!(
            r#"{{"timestamp":"2026-11-20T10:00:00Z","connectorStatus":"Available","evseId":{evse},"connectorId":1}}"#
        );
        request(Version::V21, "StatusNotification", &payload).map_err(|violation| violation.code())
    };
    assert_eq!(status(0), Ok(()));
    assert_eq!(status(-1), Err(ErrorCode::PropertyConstraintViolation));
}

#[test]
fn a_hostile_name_is_cut_in_the_report() {
    let payload = format!(r#"{{"{}":1}}"#, "\u{20ac}".repeat(10_000));
    let (code, field) = refused(Version::V16, "Heartbeat", &payload);
    assert_eq!(code, ErrorCode::FormatViolation);
    assert_eq!(field.chars().count(), Violation::MAX_FIELD_CHARS);
}

#[test]
fn depth_is_refused_and_not_followed() {
    let deep = format!(r#"{{"vendorId":"x","data":{}{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(refused(Version::V201, "DataTransfer", &deep).0, ErrorCode::FormatViolation);
}

#[test]
fn actions_of_other_versions_have_no_shape() {
    assert_eq!(request(Version::V16, "TransactionEvent", r#"{"x":1}"#), Ok(()));
}
