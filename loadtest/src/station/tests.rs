//! A station driven step by step.

use super::*;
use crate::scenario::Versions;

const RUN: &str = "r1";

fn settings(toml: &str) -> Arc<Settings> {
    let scenario = Scenario::parse("test", toml).unwrap();
    Arc::new(Settings { scenario, run: RUN.into(), start: Instant::now(), wall: SystemTime::now() })
}

/// A station, a gateway that answers, and the time.
struct Stage {
    station: Station,
    now: Instant,
}

impl Stage {
    fn new(number: u32, toml: &str) -> Self {
        let settings = settings(toml);
        let now = settings.start;
        Self { station: Station::new(number, settings), now }
    }

    fn connect(&mut self) -> &mut Self {
        self.station.connected(self.now);
        self
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    /// Advances to the next step and takes it.
    fn step(&mut self) -> Step {
        loop {
            self.now = self.now.max(self.station.next_at().expect("something to do"));
            match self.station.step(self.now).expect("a step") {
                Step::Changed => {}
                step => return step,
            }
        }
    }

    fn sent(&mut self) -> String {
        match self.step() {
            Step::Send { text, .. } => text,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, seq: u32, payload: &str) -> Received {
        self.station.receive(&format!("[3,\"{RUN}-{seq}\",{payload}]"), self.now)
    }

    /// Boots and reports; returns the number of the next CALL.
    fn boot(&mut self) -> u32 {
        self.connect();
        assert!(self.sent().contains("BootNotification"));
        self.answer(0, r#"{"status":"Accepted","interval":300,"currentTime":"x"}"#);
        for report in 1..=self.station.script.reports() {
            assert!(self.sent().contains("StatusNotification"));
            self.answer(report, "{}");
        }
        self.station.script.reports() + 1
    }
}

const IDLE: &str = "stations = 10\n[traffic]\nmessages_per_second = 1.0\nping_every = '0s'";

#[test]
fn nothing_is_sent_before_the_boot_is_accepted() {
    let mut stage = Stage::new(3, IDLE);
    stage.connect();
    assert!(stage.sent().contains("BootNotification"));
    assert_eq!(stage.station.next_at(), None, "it waits");
    stage.answer(0, r#"{"status":"Pending","interval":7,"currentTime":"x"}"#);
    assert_eq!(stage.station.next_at(), Some(stage.now + Duration::from_secs(7)));
    assert!(stage.sent().contains("BootNotification"));
    stage.answer(1, r#"{"status":"Accepted","interval":7,"currentTime":"x"}"#);
    assert!(stage.sent().contains("StatusNotification"));
}

#[test]
fn latency_counts_from_the_due_time_even_if_the_previous_answer_was_slow() {
    let mut stage = Stage::new(3, IDLE);
    let seq = stage.boot();
    stage.sent();
    // The first answer takes so long that further CALLs become due meanwhile.
    let due = stage.station.next_due;
    stage.pass(Duration::from_secs(120));
    stage.answer(seq, "{}");
    let Some(Step::Send { lag, .. }) = stage.station.step(stage.now) else { panic!("it is due") };
    assert_eq!(lag, Some(Duration::ZERO), "the gateway was slow, not the load test");
    stage.pass(Duration::from_millis(5));
    let Received::Answered { latency, refused: false, .. } = stage.answer(seq + 1, "{}") else { panic!() };
    assert_eq!(latency, stage.now - due);
    assert!(latency > Duration::from_secs(90));
    // The next one is due in the past as well: nothing of the schedule is skipped.
    assert!(stage.station.next_at().unwrap() < stage.now);
}

#[test]
fn the_schedule_keeps_its_rate() {
    let mut stage = Stage::new(3, IDLE);
    let first = stage.boot();
    let begin = stage.now;
    for seq in first..first + 1000 {
        stage.sent();
        stage.answer(seq, "{}");
    }
    let per_call = (stage.now - begin).as_secs_f64() / 1000.0;
    assert!((9.6..10.4).contains(&per_call), "ten stations, one CALL a second: {per_call}");
}

#[test]
fn an_unanswered_call_is_resent_with_the_same_id() {
    let mut stage = Stage::new(3, IDLE);
    let seq = stage.boot();
    let text = stage.sent();
    stage.station.lost();
    stage.pass(Duration::from_secs(2)).connect();
    // The CALL has not been sent on this connection, so that its answer was not asked for.
    assert_eq!(stage.answer(seq, "{}"), Received::Unexpected);
    assert_eq!(stage.step(), Step::Send { text, lag: None });
    assert!(matches!(stage.answer(seq, "{}"), Received::Answered { .. }));
    assert_eq!(stage.answer(seq, "{}"), Received::Unexpected, "it was answered");
    let next = stage.sent();
    assert!(next.contains(&format!("\"{RUN}-{}\"", seq + 1)), "{next}");
    let ledger = stage.station.into_ledger();
    assert_eq!(ledger.again.len(), 1);
    assert_eq!((ledger.again[0].seq, ledger.again[0].times), (seq, 1));
    assert_eq!(ledger.answered, Ranges::of(0, seq + 1));
    assert_eq!(ledger.sent, seq + 2);
}

#[test]
fn a_reconnect_needs_no_boot_unless_the_gateway_forgot() {
    let mut stage = Stage::new(3, IDLE);
    let seq = stage.boot();
    stage.station.lost();
    stage.connect();
    assert!(!stage.sent().contains("BootNotification"));
    let refusal = format!("[4,\"{RUN}-{seq}\",\"SecurityError\",\"\",{{}}]");
    assert!(matches!(stage.station.receive(&refusal, stage.now), Received::Answered { refused: true, .. }));
    assert!(stage.sent().contains("BootNotification"));
}

#[test]
fn a_flooding_station_has_several_calls_open_and_resends_them_in_order() {
    let mut stage = Stage::new(0, &format!("{IDLE}\n[chatty]\nstations = 1\nevery = '10ms'\nwindow = 3"));
    let seq = stage.boot();
    let texts = [stage.sent(), stage.sent(), stage.sent()];
    assert_eq!(stage.station.next_at(), None, "the window is full");
    stage.answer(seq + 1, "{}");
    stage.station.lost();
    stage.connect();
    assert_eq!(stage.sent(), texts[0]);
    assert_eq!(stage.sent(), texts[2]);
    assert!(stage.sent().contains(&format!("\"{RUN}-{}\"", seq + 3)));
}

#[test]
fn a_slow_reader_keeps_sending_without_answers() {
    let mut stage = Stage::new(0, &format!("{IDLE}\n[slow_readers]\nstations = 1\nevery = '10ms'"));
    stage.boot();
    for _ in 0..50 {
        assert!(stage.sent().contains("Heartbeat"));
    }
    assert!(stage.station.has_stopped_reading());
    stage.station.drain();
    assert!(stage.station.is_done());
}

#[test]
fn moments_come_at_their_time() {
    let moments = "[[moments]]\nat = '50s'\nwhat = 'reconnect'\n[[moments]]\nat = '70s'\nwhat = 'large-message'\nbytes = 5000";
    let mut stage = Stage::new(
        3,
        &format!("stations = 10\n[traffic]\nmessages_per_second = 0.0\nping_every = '0s'\n{moments}"),
    );
    let start = stage.now;
    let seq = stage.boot();
    assert_eq!(stage.step(), Step::Cut);
    assert_eq!(stage.now - start, Duration::from_secs(50));
    stage.station.lost();
    stage.connect();
    let large = stage.sent();
    assert_eq!(stage.now - start, Duration::from_secs(70));
    assert!(large.len() > 5000);
    stage.answer(seq, "{}");
    assert_eq!(stage.station.next_at(), None);
}

#[test]
fn commands_are_answered_and_invalid_frames_are_noticed() {
    let mut stage = Stage::new(3, IDLE);
    stage.boot();
    let command = r#"[2,"c1","Reset",{"type":"Soft"}]"#;
    assert_eq!(
        stage.station.receive(command, stage.now),
        Received::Command(r#"[3,"c1",{"status":"Accepted"}]"#.into())
    );
    assert_eq!(stage.station.receive("[3]", stage.now), Received::Unexpected);
    assert_eq!(stage.station.receive(r#"[3,"other-0",{}]"#, stage.now), Received::Unexpected);
}

#[test]
fn while_draining_only_open_calls_count() {
    let mut stage = Stage::new(3, IDLE);
    let seq = stage.boot();
    stage.sent();
    stage.station.drain();
    assert!(!stage.station.is_done());
    stage.answer(seq, "{}");
    assert!(stage.station.is_done());
    assert_eq!(stage.station.next_at(), None);
}

#[test]
fn backoff_grows_up_to_its_limit() {
    let mut stage = Stage::new(3, "[reconnect]\nfirst = '1s'\nlongest = '8s'");
    for longest in [1.5, 3.0, 6.0, 12.0, 12.0] {
        let pause = stage.station.backoff().as_secs_f64();
        assert!((longest / 3.0..longest).contains(&pause), "{pause} for {longest}");
    }
}

#[test]
fn versions_are_mixed_as_configured() {
    let shares = Versions { v16: 60, v201: 30, v21: 10 };
    let count = |version| (0..10_000).filter(|number| Version::of(*number, shares) == version).count();
    assert!((5800..6200).contains(&count(Version::V16)));
    assert!((800..1200).contains(&count(Version::V21)));
}
