//! What a crash leaves open is what the next start finds, whatever was noted and compacted before.

use std::collections::BTreeMap;

use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::queue::QueueLimits;
use ocpp_bus::{Journal, Publisher, Registrar};
use ocpp_station::events::Connected;
use uuid::Uuid;

use super::*;

/// The time of a record, in milliseconds: one step of a test is a second.
type Millis = u64;

/// Publishers whose `connected` event is durable, and is not.
struct Publishers {
    durable: Publisher,
    silent: Publisher,
}

impl Publishers {
    fn new() -> Self {
        let metrics = BusMetrics::register(&Registrar::default(), "events").unwrap();
        let bus = Journal::start_forgetful(QueueLimits { records: 10, bytes: 10_000 }, &metrics).unwrap();
        let (mut durable, silent) = (bus.publisher(), bus.publisher());
        let record = Record { kind: kinds::EVENT, time_ms: 0, key: "".into(), value: b"".as_slice().into() };
        durable.try_publish(record).unwrap();
        bus.close(std::time::Instant::now() + Duration::from_secs(30));
        assert_eq!(durable.watermark().reached(), 1);
        Self { durable, silent }
    }
}

/// One process after the other, on one journal.
struct Node<'a> {
    publishers: &'a Publishers,
    sessions: OpenSessions,
    journal: Vec<Record>,
    now: Millis,
    /// What must be found: by session, whether its `connected` event is to be told again, and when it was lost.
    expected: BTreeMap<SessionId, (bool, Option<Millis>)>,
    /// Sessions whose `connected` event is durable, and that is not noted.
    durable: Vec<SessionId>,
    begun: u128,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open { durable: bool },
    Confirm,
    Alive,
    EndOldest,
    EndNewest,
    Compact,
    Restart,
}

impl<'a> Node<'a> {
    const STEPS: [Step; 8] = [
        Step::Open { durable: true },
        Step::Open { durable: false },
        Step::Confirm,
        Step::Alive,
        Step::EndOldest,
        Step::EndNewest,
        Step::Compact,
        Step::Restart,
    ];

    fn new(publishers: &'a Publishers) -> Self {
        Self {
            publishers,
            sessions: OpenSessions::default(),
            journal: Vec::new(),
            now: 0,
            expected: BTreeMap::new(),
            durable: Vec::new(),
            begun: 0,
        }
    }

    fn step(&mut self, step: Step) {
        self.now += 1000;
        let now = at(self.now);
        match step {
            Step::Open { durable } => self.open(durable),
            Step::Confirm => {
                self.journal.extend(self.sessions.confirmed(now));
                for session in self.durable.drain(..) {
                    self.expected.entry(session).and_modify(|(again, _)| *again = false);
                }
            }
            Step::Alive => self.journal.push(self.sessions.alive(now)),
            Step::EndOldest => self.end(self.expected.keys().next().copied()),
            Step::EndNewest => self.end(self.expected.keys().next_back().copied()),
            Step::Compact => self.journal = self.sessions.kept(now),
            Step::Restart => self.restart(),
        }
    }

    fn open(&mut self, durable: bool) {
        self.begun += 1;
        let id = SessionId::new(Uuid::from_u128(self.begun));
        let session = Arc::new(SessionHandle::of_test(id, 0));
        let publisher = if durable { &self.publishers.durable } else { &self.publishers.silent };
        let event = connected(&session, self.now);
        self.journal.push(self.sessions.opened(&session, event, publisher.watermark()));
        self.expected.insert(id, (true, None));
        self.durable.extend(durable.then_some(id));
    }

    fn end(&mut self, session: Option<SessionId>) {
        if let Some(session) = session {
            self.journal.push(self.sessions.ended(&[session], at(self.now)));
            self.expected.remove(&session);
        }
    }

    fn restart(&mut self) {
        let alive = self.journal.iter().map(|record| record.time_ms).max().unwrap_or(0);
        for (_, lost) in self.expected.values_mut() {
            lost.get_or_insert(alive);
        }
        self.durable.clear();
        self.sessions = replayed(&self.journal, self.now);
        if !self.expected.is_empty() {
            self.journal.push(self.sessions.found_lost(at(self.now)));
        }
        let found = self.sessions.lost();
        let found: BTreeMap<_, _> =
            found.iter().map(|one| (one.id, (one.opened.is_some(), Some(one.lost_ms)))).collect();
        assert_eq!(found, self.expected);
    }
}

fn at(millis: Millis) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn events() -> Events {
    Events::new("gw-1", Uuid::now_v7)
}

fn connected(session: &SessionHandle, now: Millis) -> EncodedEvent {
    let connected = Connected {
        at: at(now),
        remote: session.admission.remote,
        security_profile: 0,
        subprotocol: session.admission.subprotocol,
        compression: false,
        replaced: None,
    };
    events().connected(session.subject(), &connected)
}

fn replayed(journal: &[Record], now: Millis) -> OpenSessions {
    let mut replay = Replay::default();
    for (position, record) in (0..).zip(journal) {
        let Record { kind, time_ms, key, value } = record.clone();
        replay.take(ocpp_log::Record { position, kind: kind.0, time_ms, key: (*key).into(), value });
    }
    replay.finish(at(now))
}

#[test]
fn every_start_finds_what_is_open_whatever_came_before() {
    const LENGTH: u32 = 5;
    let publishers = Publishers::new();
    let choices = Node::STEPS.len();
    for number in 0..choices.pow(LENGTH) {
        let steps: Vec<_> =
            (0..LENGTH).map(|place| Node::STEPS[number / choices.pow(place) % choices]).collect();
        let mut node = Node::new(&publishers);
        for step in steps {
            node.step(step);
        }
        node.step(Step::Restart);
        node.step(Step::Alive);
        // Nothing that this start may have told has another time when the next one tells it.
        node.step(Step::Restart);
    }
}

#[test]
fn a_lost_session_tells_its_end_and_its_beginning_if_that_may_be_missing() {
    let publishers = Publishers::new();
    let mut node = Node::new(&publishers);
    node.step(Step::Open { durable: true });
    node.step(Step::Confirm);
    node.step(Step::Open { durable: false });
    node.step(Step::Alive);
    node.now += 60_000;
    let told = |sessions: &OpenSessions| -> Vec<serde_json::Value> {
        let records = sessions.lost().iter().flat_map(|one| one.events(&events())).collect::<Vec<_>>();
        assert!(records.iter().all(|record| record.kind == kinds::EVENT && &*record.key == "CP-1"));
        records.iter().map(|record| serde_json::from_slice(&record.value).unwrap()).collect()
    };
    let first = told(&replayed(&node.journal, node.now));
    let types: Vec<_> = first.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let [ended, begun] = ["ocpp.station.disconnected", "ocpp.station.connected"];
    assert_eq!(types, [ended, begun, ended]);
    let original: serde_json::Value = serde_json::from_slice(&node.journal[2].value).unwrap();
    assert_eq!(first[1], original, "the same event again");
    assert_eq!(
        first[0]["id"], "00000000-0000-8000-0000-000000000001",
        "the id that its end has, whoever tells it"
    );
    assert_eq!(first[0]["time"], "1970-01-01T00:00:04.000Z", "the last sign of life");
    let data = serde_json::json!({
        "sessionId": "00000000-0000-0000-0000-000000000001",
        "ocppVersion": "1.6",
        "reason": "gatewayLost",
        "closeCode": null,
        "durationMs": 3000,
        "messagesIn": null,
        "messagesOut": null,
    });
    assert_eq!(first[0]["data"], data);
    node.step(Step::Restart);
    node.step(Step::Alive);
    assert_eq!(
        told(&replayed(&node.journal, node.now)),
        first,
        "a start that was killed tells the same when it is repeated"
    );
}

#[test]
fn a_clock_that_was_set_back_ends_nothing_in_the_future() {
    let publishers = Publishers::new();
    let mut node = Node::new(&publishers);
    node.step(Step::Open { durable: true });
    node.step(Step::Alive);
    assert_eq!(replayed(&node.journal, 1500).lost()[0].lost_ms, 1500);
}

#[test]
fn what_is_not_readable_hides_nothing_else() {
    let publishers = Publishers::new();
    let mut node = Node::new(&publishers);
    node.step(Step::Open { durable: true });
    let unreadable = Record { value: b"{}".as_slice().into(), ..node.sessions.alive(at(node.now)) };
    node.journal.insert(0, unreadable);
    assert_eq!(replayed(&node.journal, node.now).lost().len(), 1);
}
