//! Payloads against their schemas: what is told, what is refused, what is let through.

use ocpp_protocol::{Action, IdRules, Version, ViolationKind};
use ocpp_station::Options;
use ocpp_station::options::{Validation, ValidationMode};

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, delegation, options};
use ocpp_station::host::Fallback;

const AT: u64 = 2 * SECOND;
const WRONG: &str =
    r#"[2,"1","StatusNotification",{"connectorId":"one","errorCode":"NoError","status":"Available"}]"#;
const TOLD: &str = "in CALL 1 StatusNotification ! payload.connectorId: not a number";

fn enforcing() -> Validation {
    Validation { mode: ValidationMode::Enforce, ..Validation::OFF }
}

fn bench(version: Version, validation: Validation) -> Bench {
    let mut bench = Bench::with(version, Options { validation, ..options() }, Memory::default());
    assert!(bench.put(AT, &Wait).is_empty());
    bench
}

/// The effects of a text and of everything's being durable, without the answer's event.
fn effects(bench: &mut Bench, text: &str) -> Vec<String> {
    let mut effects = bench.put(AT, &Text(text));
    effects.extend(bench.put(AT, &Durable).into_iter().filter(|line| line.starts_with("> ")));
    effects
}

#[test]
fn a_violation_is_told_and_refused_as_configured() {
    let seen = "seen violation CALL StatusNotification wrongTypes";
    let refused = format!("{seen} refused");
    let error = r#"> [4,"1","TypeConstraintViolation","payload.connectorId: not a number",{}]"#;
    let answered = r#"> [3,"1",{}]"#;
    for (mode, expected) in [
        (ValidationMode::Off, vec!["in CALL 1 StatusNotification", answered]),
        (ValidationMode::Warn, vec![seen, TOLD, answered]),
        (ValidationMode::Enforce, vec![refused.as_str(), TOLD, error]),
    ] {
        let mut bench = bench(Version::V16, Validation { mode, ..Validation::OFF });
        let found = effects(&mut bench, WRONG);
        let found: Vec<_> = found.iter().filter(|line| !line.starts_with("ready")).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{mode:?}");
    }
}

#[test]
fn what_is_tolerated_or_exempt_is_told_and_let_through() {
    let action = Action::find("StatusNotification").unwrap();
    let odd = WRONG.replace("\"one\"", "\"1\"");
    let tolerate = [ViolationKind::NumberAsString].into_iter().collect();
    let exempt = [action].into_iter().collect();
    for (validation, text, kinds) in [
        (Validation { tolerate, ..enforcing() }, odd.as_str(), "numbersAsStrings"),
        (Validation { exempt, ..enforcing() }, WRONG, "wrongTypes"),
    ] {
        let found = effects(&mut bench(Version::V16, validation), text);
        assert_eq!(found[0], format!("seen violation CALL StatusNotification {kinds}"));
        assert!(found[1].starts_with("in CALL 1 StatusNotification ! payload.connectorId: "), "{found:?}");
        assert!(found.contains(&r#"> [3,"1",{}]"#.to_owned()), "{found:?}");
    }
    // What is tolerated does not hide what is not.
    let found = effects(&mut bench(Version::V16, Validation { tolerate, ..enforcing() }), WRONG);
    assert!(found.iter().any(|line| line.starts_with(r#"> [4,"1","#)), "{found:?}");
}

#[test]
fn a_delegated_call_says_how_it_deviates_and_a_refused_one_is_not_delegated() {
    for (mode, asked) in [(ValidationMode::Warn, true), (ValidationMode::Enforce, false)] {
        let mut bench = bench(Version::V16, Validation { mode, ..Validation::OFF });
        bench.world.delegations.insert("StatusNotification", delegation(9_000, Fallback::Error));
        let found = effects(&mut bench, WRONG);
        assert!(found.contains(&TOLD.to_owned()), "{found:?}");
        assert_eq!(found.iter().any(|line| line.starts_with("ask ")), asked, "{found:?}");
    }
}

#[test]
fn a_send_is_told_of_and_never_answered() {
    let mut bench = bench(Version::V21, enforcing());
    let found = effects(&mut bench, r#"[6,"s","NotifyPeriodicEventStream",{}]"#);
    let missing = "missing,missing,missing,missing";
    let told = "in SEND s NotifyPeriodicEventStream ! payload.data: missing";
    assert_eq!(found, [&format!("seen violation SEND NotifyPeriodicEventStream {missing}"), told]);
}

#[test]
fn a_wrong_answer_to_a_command_reaches_the_backend_and_2_1_says_so() {
    let wrong = r#"[3,"g1",{"status":"Perhaps"}]"#;
    let violation = r#"payload.status: "Perhaps" is not one of the allowed values"#;
    let told = format!("in CALLRESULT g1 Reset of c1 ! {violation}");
    let ended = format!("end c1 answered yes ! {violation}");
    for (version, mode, refuses) in [
        (Version::V16, ValidationMode::Enforce, false),
        (Version::V201, ValidationMode::Enforce, false),
        (Version::V21, ValidationMode::Warn, false),
        (Version::V21, ValidationMode::Enforce, true),
    ] {
        let mut bench = bench(version, Validation { mode, ..Validation::OFF });
        bench.put(AT, &Command("c1", "Reset"));
        bench.put(AT, &Prepared);
        let found = bench.put(AT, &Text(wrong));
        let refused = if refuses { " refused" } else { "" };
        let seen = format!("seen violation CALLRESULT Reset unknownValues{refused}");
        assert_eq!(found, [seen, told.clone(), ended.clone()], "{version:?} {mode:?}");
        let after = bench.put(AT, &Durable);
        let error = r#"> [5,"g1","PropertyConstraintViolation","payload.status: \"Perhaps\" is not one of the allowed values",{}]"#;
        assert_eq!(after.iter().any(|line| line == error), refuses, "{version:?} {mode:?} {after:?}");
    }
    let mut quiet = bench(Version::V21, Validation::OFF);
    quiet.put(AT, &Command("c1", "Reset"));
    quiet.put(AT, &Prepared);
    assert_eq!(quiet.put(AT, &Text(wrong)), ["in CALLRESULT g1 Reset of c1", "end c1 answered yes"]);
}

#[test]
fn odd_ids_are_read_where_the_options_say_so_and_repeated_as_they_came() {
    let message_ids = IdRules { long: true, numeric: true };
    let mut bench = bench(Version::V16, Validation { message_ids, ..Validation::OFF });
    let found = effects(&mut bench, r#"[2,42,"StatusNotification",{}]"#);
    assert_eq!(found[..2], ["seen leniency numericIds", "in CALL 42 StatusNotification"]);
    assert!(found.contains(&"> [3,42,{}]".to_owned()), "{found:?}");
    let long = "x".repeat(40);
    let found = effects(&mut bench, &format!(r#"[2,"{long}","StatusNotification",{{}}]"#));
    assert_eq!(found[0], "seen leniency longIds");
    assert!(found.contains(&format!(r#"> [3,"{long}",{{}}]"#)), "{found:?}");
    // The same id, and so the same CALL, in either form.
    let found = effects(&mut bench, r#"[2,"42","StatusNotification",{}]"#);
    assert_eq!(found[0], "seen repeated answered", "{found:?}");
}

#[test]
fn a_boot_says_what_the_station_is_whether_it_is_refused_or_not() {
    for (validation, type_number) in [(Validation::OFF, 3), (enforcing(), 4)] {
        let mut bench = bench(Version::V16, validation);
        let found = effects(
            &mut bench,
            r#"[2,"1","BootNotification",{"chargePointVendor":"V","chargePointModel":"M","extra":1}]"#,
        );
        let model = bench.world.model.clone().unwrap();
        assert_eq!((model.vendor.as_str(), model.model.as_str()), ("V", "M"));
        assert!(found.iter().any(|line| line.starts_with(&format!("> [{type_number},"))), "{found:?}");
    }
}
