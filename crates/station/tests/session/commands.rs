//! Commands: one CALL at a time, each once, and every way in which one ends.

use ocpp_protocol::Version;
use ocpp_station::CloseReason;

use crate::bench::Input::*;
use crate::bench::{Bench, Memory, SECOND, options};

const ANSWER: &str = r#"[3,"g1",{"status":"Accepted"}]"#;

/// A session whose first instants are over.
fn bench() -> Bench {
    let mut bench = Bench::new();
    assert!(bench.put(2 * SECOND, &Wait).is_empty());
    bench
}

const AT: u64 = 2 * SECOND;

#[test]
fn a_command_leaves_after_its_note_and_ends_with_the_answer() {
    bench().table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT + 1, Wait, &[]),
        (AT + 2, Prepared, &["out CALL g1 Reset of c1", r#"> [2,"g1","Reset",{}]"#]),
        (AT + 3, Text(ANSWER), &["in CALLRESULT g1 Reset of c1", "end c1 answered yes"]),
        (AT + 4, Text(ANSWER), &["seen late answer", "in CALLRESULT g1"]),
    ]);
}

#[test]
fn the_next_command_waits_for_the_answer() {
    bench().table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT, Command("c2", "Reset"), &[]),
        (AT, Prepared, &["out CALL g1 Reset of c1", r#"> [2,"g1","Reset",{}]"#]),
        (AT + 5, Wait, &[]),
        (AT + 5, Text(ANSWER), &["in CALLRESULT g1 Reset of c1", "end c1 answered yes", "note c2"]),
        (AT + 5, Prepared, &["out CALL g2 Reset of c2", r#"> [2,"g2","Reset",{}]"#]),
    ]);
}

#[test]
fn a_timeout_frees_the_line_and_a_late_answer_moves_nothing() {
    bench().table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT, Prepared, &["out CALL g1 Reset of c1", r#"> [2,"g1","Reset",{}]"#]),
        (AT + 1, Command("c2", "ClearCache"), &[]),
        (AT + 30 * SECOND, Wait, &["end c1 timeout yes", "note c2"]),
        (AT + 30 * SECOND, Prepared, &["out CALL g2 ClearCache of c2", r#"> [2,"g2","ClearCache",{}]"#]),
        (AT + 30 * SECOND, Text(ANSWER), &["seen late answer", "in CALLRESULT g1 Reset of c1"]),
        (
            AT + 30 * SECOND,
            Text(r#"[3,"g2",{}]"#),
            &["in CALLRESULT g2 ClearCache of c2", "end c2 answered yes"],
        ),
    ]);
}

#[test]
fn late_answers_name_their_command_while_it_is_among_the_last_that_timed_out() {
    let mut bench = bench();
    for number in 1..=5 {
        let at = AT + number * 30 * SECOND;
        bench.put(at, &Command(&format!("c{number}"), "Reset"));
        bench.put(at, &Prepared);
        bench.put(at + 30 * SECOND, &Wait);
    }
    let at = AT + 200 * SECOND;
    bench.table(&[
        (at, Text(ANSWER), &["seen late answer", "in CALLRESULT g1"]),
        (at, Text(r#"[4,"g2","InternalError","",{}]"#), &["seen late answer", "in CALLERROR g2 Reset of c2"]),
        (at, Text(r#"[3,"g5",{}]"#), &["seen late answer", "in CALLRESULT g5 Reset of c5"]),
    ]);
}

#[test]
fn a_command_that_did_not_leave_in_time_does_not_leave_any_more() {
    let mut bench = bench();
    // The socket takes this answer, and nothing behind it.
    bench.put(AT, &Stuck);
    bench.put(AT, &Text(r#"[2,"1","StatusNotification",{}]"#));
    bench.put(AT, &Durable);
    bench.table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT, Prepared, &["out CALL g1 Reset of c1"]),
        (AT + 30 * SECOND, Wait, &["end c1 timeout no"]),
        (AT + 30 * SECOND, Command("c2", "Reset"), &["note c2"]),
        (AT + 30 * SECOND, Prepared, &["out CALL g2 Reset of c2"]),
        (AT + 31 * SECOND, Unstuck, &[r#"> [2,"g2","Reset",{}]"#]),
    ]);
}

#[test]
fn a_station_that_answers_no_command_is_given_up_if_the_operator_wants_that() {
    let options = ocpp_station::Options { close_after_timeouts: 2, ..options() };
    let mut bench = Bench::with(Version::V16, options, Memory::default());
    bench.put(AT, &Wait);
    let unanswered = |bench: &mut Bench, at: u64, name: &'static str| {
        bench.put(at, &Command(name, "Reset"));
        bench.put(at, &Prepared);
        bench.put(at + 30 * SECOND, &Wait)
    };
    assert_eq!(unanswered(&mut bench, AT, "c1"), ["end c1 timeout yes"]);
    // The late answer shows that the station does answer.
    bench.put(AT + 31 * SECOND, &Text(ANSWER));
    assert_eq!(unanswered(&mut bench, AT + 32 * SECOND, "c2"), ["end c2 timeout yes"]);
    assert_eq!(
        unanswered(&mut bench, AT + 70 * SECOND, "c3"),
        ["end c3 timeout yes", "disconnected unresponsive 1008", "> close 1008"]
    );
}

#[test]
fn answers_that_nobody_waits_for_are_told_and_change_nothing() {
    bench().table(&[
        (AT, Text(r#"[3,"x",{}]"#), &["seen unknown answer", "in CALLRESULT x"]),
        (AT, Text(r#"[4,"x","GenericError","",{}]"#), &["seen unknown answer", "in CALLERROR x"]),
        (AT, Text(r#"[4,"-1","GenericError","",{}]"#), &["in CALLERROR -1"]),
        (AT, Command("c1", "Reset"), &["note c1"]),
    ]);
}

#[test]
fn an_error_ends_the_command_whose_id_it_names_or_the_only_one_there_is() {
    for id in ["g1", "-1"] {
        let error = format!(r#"[4,"{id}","NotSupported","no",{{}}]"#);
        let event = format!("in CALLERROR {id} Reset of c1");
        let late = if id == "-1" { "in CALLRESULT g1 Reset of c1" } else { "in CALLRESULT g1" };
        bench().table(&[
            (AT, Command("c1", "Reset"), &["note c1"]),
            (AT, Prepared, &["out CALL g1 Reset of c1", r#"> [2,"g1","Reset",{}]"#]),
            (AT, Text(&error), &[&event, "end c1 error yes"]),
            (AT + 1, Text(ANSWER), &["seen late answer", late]),
        ]);
    }
}

#[test]
fn a_malformed_answer_ends_the_command() {
    let mut bench = bench();
    bench.put(AT, &Command("c1", "Reset"));
    bench.put(AT, &Prepared);
    let effects = bench.put(AT, &Text(r#"[3,"g1"]"#));
    assert!(effects.contains(&"end c1 error yes".to_owned()), "{effects:?}");
}

#[test]
fn no_command_leaves_in_the_first_instants_unless_the_station_has_had_an_answer() {
    Bench::new().table(&[(0, Command("c1", "Reset"), &[]), (1999, Wait, &[]), (2000, Wait, &["note c1"])]);
    let mut bench = Bench::new();
    bench.put(0, &Command("c1", "Reset"));
    bench.put(1, &Text(r#"[2,"1","Heartbeat",{}]"#));
    assert_eq!(bench.put(2, &Durable).last().unwrap(), "note c1");
}

#[test]
fn urgent_commands_overtake_those_that_wait() {
    bench().table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT, Command("c2", "ChangeConfiguration"), &[]),
        (AT, Urgent("c3", "RemoteStopTransaction"), &[]),
        (AT, Prepared, &["out CALL g1 Reset of c1", r#"> [2,"g1","Reset",{}]"#]),
        (AT, Text(ANSWER), &["in CALLRESULT g1 Reset of c1", "end c1 answered yes", "note c3"]),
    ]);
}

#[test]
fn a_command_that_waits_too_long_ends_unsent() {
    bench().table(&[
        (AT, Command("c1", "Reset"), &["note c1"]),
        (AT + 1, Command("c2", "Reset"), &[]),
        // Its note never becomes durable: storage does not acknowledge.
        (AT + 30 * SECOND, Wait, &["end c1 timeout no", "note c2"]),
        (AT + 30 * SECOND + 1, Wait, &["end c2 timeout no"]),
        (AT + 31 * SECOND, Prepared, &[]),
    ]);
}

#[test]
fn a_command_that_ended_elsewhere_is_not_sent() {
    let mut bench = bench();
    bench.world.refuses_notes = true;
    bench.table(&[(AT, Command("c1", "Reset"), &[]), (AT, Prepared, &[])]);
}

#[test]
fn a_full_queue_refuses() {
    let mut bench = Bench::new();
    for id in ["c1", "c2", "c3", "c4"] {
        assert!(bench.put(0, &Command(id, "Reset")).is_empty());
    }
    bench.table(&[(0, Command("c5", "Reset"), &["refused c5"])]);
}

#[test]
fn the_end_of_a_session_ends_its_commands_and_gives_back_those_that_were_not_sent() {
    for (reason, word) in [(CloseReason::Replaced, "replaced"), (CloseReason::Idle, "offline")] {
        let mut bench = bench();
        bench.put(AT, &Command("c1", "Reset"));
        bench.put(AT, &Prepared);
        bench.put(AT, &Command("c2", "Reset"));
        let (end, back) = (format!("end c1 {word} yes"), format!("back c2 {word}"));
        let last = format!("disconnected {} 1008", reason.as_str());
        bench.table(&[(AT, End(reason), &[&end, &back, &last, "> close 1008"])]);
    }
}
