//! When an answer leaves: after its event, in the order of the CALLs (P1).

use crate::bench::Input::*;
use crate::bench::{Bench, SECOND};

const HEARTBEAT: &str = r#"[2,"1","Heartbeat",{}]"#;
const STATUS: &str =
    r#"[2,"2","StatusNotification",{"connectorId":1,"errorCode":"NoError","status":"Available"}]"#;

#[test]
fn an_answer_leaves_when_its_event_is_durable_and_not_before() {
    Bench::new().table(&[
        (0, Text(STATUS), &["in CALL 2 StatusNotification"]),
        (SECOND, Wait, &[]),
        (SECOND, DurableUpTo(1, 0), &[]),
        (
            SECOND,
            DurableUpTo(2, 0),
            &["out CALLRESULT 2 StatusNotification", "ready true", r#"> [3,"2",{}]"#],
        ),
    ]);
}

#[test]
fn the_time_in_an_answer_is_that_of_its_leaving() {
    Bench::new().table(&[
        (0, Text(HEARTBEAT), &["in CALL 1 Heartbeat"]),
        (
            5 * SECOND,
            Durable,
            &[
                "out CALLRESULT 1 Heartbeat",
                "ready true",
                r#"> [3,"1",{"currentTime":"2026-01-01T00:00:05.000Z"}]"#,
            ],
        ),
    ]);
}

#[test]
fn answers_leave_in_the_order_of_the_calls_each_after_its_own_event() {
    Bench::new().table(&[
        (0, Text(STATUS), &["in CALL 2 StatusNotification"]),
        (0, Text(HEARTBEAT), &["in CALL 1 Heartbeat"]),
        (1, DurableUpTo(2, 0), &["out CALLRESULT 2 StatusNotification", "ready true", r#"> [3,"2",{}]"#]),
        (
            2,
            Durable,
            &["out CALLRESULT 1 Heartbeat", r#"> [3,"1",{"currentTime":"2026-01-01T00:00:00.002Z"}]"#],
        ),
    ]);
}

#[test]
fn an_answer_waits_for_its_state_change_as_for_its_event() {
    let start = r#"[2,"s","StartTransaction",{"connectorId":1,"idTag":"A","meterStart":0,"timestamp":"2026-01-01T00:00:00Z"}]"#;
    Bench::new().table(&[
        (0, Text(start), &["in CALL s StartTransaction", "state transaction 1"]),
        (1, DurableUpTo(2, 0), &[]),
        (
            2,
            DurableUpTo(2, 1),
            &[
                "out CALLRESULT s StartTransaction",
                "ready true",
                r#"> [3,"s",{"idTagInfo":{"status":"Accepted"},"transactionId":1}]"#,
            ],
        ),
    ]);
}

#[test]
fn what_is_shed_is_answered_without_an_event_and_in_its_turn() {
    let mut bench = Bench::new();
    bench.world.sheds = true;
    bench.table(&[
        (0, Text(HEARTBEAT), &["in CALL 1 Heartbeat"]),
        (0, Text(r#"[2,"m","MeterValues",{"connectorId":1,"meterValue":[]}]"#), &["seen shed MeterValues"]),
        (
            1,
            Durable,
            &[
                "out CALLRESULT 1 Heartbeat",
                "ready true",
                r#"> [3,"1",{"currentTime":"2026-01-01T00:00:00.001Z"}]"#,
                r#"> [3,"m",{}]"#,
            ],
        ),
    ]);
}
