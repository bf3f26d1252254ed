//! Random stations, backends, buses and clocks against the core. After every step the promises hold:
//!
//! * P1: an answer is written only when the event of its CALL is durable;
//! * P3: answers leave in the order of their CALLs, none is left out, the last event of a session is its only
//!   `disconnected`, and a successor begins behind it;
//! * P4: nothing is written after the close frame, and at most one CALL of ours is outstanding;
//! * P5: a session that was replaced tells nothing once its successor has begun, whatever still happens to it;
//! * P7: what waits to be answered never exceeds its limit;
//! * and every command ends once.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use ocpp_protocol::{BootState, Registration, Version};
use ocpp_station::CloseReason;
use ocpp_station::delegated_calls::FallbackReason;
use ocpp_station::host::{Backlog, Fallback, Position};
use proptest::prelude::*;

use crate::bench::{Bench, Input, Memory, delegation, options};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// The station sends a new CALL, if the session reads.
    Call(usize),
    /// It sends one of its last CALLs again.
    Repeat(usize),
    /// It answers our CALL, or an older one.
    Answer { is_late: bool },
    /// Storage acknowledges this share of what is published, in percent.
    Acknowledge(u64),
    /// The bus has room, or has not.
    Bus(Backlog),
    /// The station takes what is written, or does not.
    Socket { is_stuck: bool },
    /// A backend responds to one of the last CALLs, or cannot.
    Backend { which: usize, responds: bool },
    /// A backend sends a command.
    Command { is_urgent: bool },
    /// The note of a command that leaves is durable.
    Noted,
    /// Time passes, in milliseconds.
    Pass(u64),
    /// An operator decides about the station's registration.
    Decide(Registration),
    /// The station connects anew.
    Reconnect,
    /// Somebody ends the session, and the station comes back.
    End(CloseReason),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CALLS.len()).prop_map(Step::Call),
        3 => (0_usize..4).prop_map(Step::Repeat),
        3 => any::<bool>().prop_map(|is_late| Step::Answer { is_late }),
        8 => (0_u64..=100).prop_map(Step::Acknowledge),
        2 => prop_oneof![
            3 => Just(Backlog::None),
            1 => Just(Backlog::Unacknowledged),
            1 => Just(Backlog::Unpublished),
        ].prop_map(Step::Bus),
        2 => any::<bool>().prop_map(|is_stuck| Step::Socket { is_stuck }),
        3 => (0_usize..4, any::<bool>()).prop_map(|(which, responds)| Step::Backend { which, responds }),
        3 => any::<bool>().prop_map(|is_urgent| Step::Command { is_urgent }),
        4 => Just(Step::Noted),
        4 => prop_oneof![0_u64..100, 0_u64..10_000, 0_u64..100_000].prop_map(Step::Pass),
        1 => prop_oneof![
            3 => Just(Registration::Accepted),
            1 => Just(Registration::Pending),
            1 => Just(Registration::Rejected),
        ].prop_map(Step::Decide),
        1 => Just(Step::Reconnect),
        1 => prop_oneof![
            Just(CloseReason::Shutdown),
            Just(CloseReason::Operator),
            Just(CloseReason::ConnectionLost),
        ].prop_map(Step::End),
    ]
}

/// CALLs with a place for their message id.
const CALLS: [&str; 6] = [
    r#"[2,"ID","Heartbeat",{}]"#,
    r#"[2,"ID","MeterValues",{"connectorId":1,"meterValue":[]}]"#,
    r#"[2,"ID","Authorize",{"idTag":"A"}]"#,
    r#"[2,"ID","StartTransaction",{"connectorId":1,"idTag":"A","meterStart":0,"timestamp":"2026-01-01T00:00:00Z"}]"#,
    r#"[2,"ID","BootNotification",{"chargePointVendor":"v","chargePointModel":"m"}]"#,
    r#"[2,"ID","Nonsense",{}]"#,
];

/// Where an event is: what is durable of its session, and its number there.
type EventAt = (Rc<Cell<Position>>, u64);

/// One connection, and what the model knows of it.
struct Connection {
    bench: Bench,
    /// CALLs that were taken in and not answered, in order, each with its event.
    unanswered: VecDeque<(String, EventAt)>,
    /// The message id of our CALL that has not been answered.
    outstanding: Option<String>,
    has_closed: bool,
    has_told_its_end: bool,
}

struct Model {
    start: Instant,
    at: u64,
    memory: Memory,
    now: Connection,
    /// Sessions that have ended, for a while: what still happens to them must not show.
    former: Option<Connection>,
    /// The last event of each CALL.
    events: HashMap<String, EventAt>,
    sent: Vec<(String, String)>,
    ids: usize,
    /// How often each command has ended.
    commands: HashMap<String, u32>,
}

impl Connection {
    fn new(start: Instant, at: u64, memory: &Memory) -> Self {
        let mut bench = Bench::starting_at(start, Version::V16, options(), memory.clone());
        bench.world.delegations.insert("Authorize", delegation(5_000, Fallback::Builtin));
        bench.world.delegations.insert("BootNotification", delegation(5_000, Fallback::Error));
        // The session begins at the start of the clock and is brought to the present.
        bench.put(at, &Input::Wait);
        Self {
            bench,
            unanswered: VecDeque::new(),
            outstanding: None,
            has_closed: false,
            has_told_its_end: false,
        }
    }
}

impl Model {
    fn new(is_registered: bool) -> Self {
        let (start, memory) = (Instant::now(), Memory::default());
        if !is_registered {
            memory.boot_state.set(BootState::Unregistered);
        }
        Self {
            start,
            at: 0,
            now: Connection::new(start, 0, &memory),
            memory,
            former: None,
            events: HashMap::new(),
            sent: Vec::new(),
            ids: 0,
            commands: HashMap::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Call(which) => {
                self.ids += 1;
                let id = format!("s{}", self.ids);
                let text = CALLS[*which].replace("ID", &id);
                self.send(id, text);
            }
            Step::Repeat(back) => {
                let again = self.sent.iter().rev().nth(*back).cloned();
                if let Some((id, text)) = again {
                    self.send(id, text);
                }
            }
            Step::Answer { is_late } => {
                let id = if *is_late { Some("g0".to_owned()) } else { self.now.outstanding.clone() };
                if let Some(id) = id
                    && self.now.bench.reads()
                {
                    self.put(&Input::Text(&format!(r#"[3,"{id}",{{}}]"#)));
                }
            }
            Step::Acknowledge(percent) => {
                let (durable, all) = (self.now.bench.world.durable.get(), self.now.bench.world.position);
                let part = |from: u64, to: u64| from + (to - from) * percent / 100;
                let (events, states) = (part(durable.events, all.events), part(durable.states, all.states));
                self.put(&Input::DurableUpTo(events, states));
            }
            Step::Bus(backlog) => {
                self.now.bench.world.backlog = *backlog;
                self.put(&Input::Wait);
            }
            Step::Socket { is_stuck } => {
                self.put(if *is_stuck { &Input::Stuck } else { &Input::Unstuck });
            }
            Step::Backend { which, responds } => {
                if let Some((id, _)) = self.sent.iter().rev().nth(*which).cloned() {
                    let payload =
                        r#"{"status":"Accepted","currentTime":"2026-01-01T00:00:00Z","interval":60}"#;
                    self.put(&if *responds {
                        Input::Respond(&id, payload)
                    } else {
                        Input::Fail(&id, FallbackReason::HookFailed)
                    });
                }
            }
            Step::Command { is_urgent } => {
                self.ids += 1;
                let id = format!("c{}", self.ids);
                self.commands.insert(id.clone(), 0);
                self.put(&if *is_urgent {
                    Input::Urgent(&id, "Reset")
                } else {
                    Input::Command(&id, "GetConfiguration")
                });
            }
            Step::Noted => self.put(&Input::Prepared),
            Step::Pass(milliseconds) => {
                self.at += milliseconds;
                self.put(&Input::Wait);
            }
            Step::Decide(registration) => self.put(&Input::Decide(*registration)),
            Step::Reconnect => self.reconnect(CloseReason::Replaced),
            Step::End(reason) => self.reconnect(*reason),
        }
        self.disturb_the_former();
    }

    /// The station sends a CALL if its connection takes one.
    fn send(&mut self, id: String, text: String) {
        if !self.now.bench.reads() || self.now.bench.core.is_ending() {
            return;
        }
        if !self.sent.iter().any(|(sent, _)| *sent == id) {
            self.sent.push((id.clone(), text.clone()));
        }
        let before = self.now.bench.world.position.events;
        let effects = self.now.bench.put(self.at, &Input::Text(&text));
        let mut told = effects.iter().filter(|line| is_event(line));
        if let Some(at) = told.position(|line| line.starts_with(&format!("in CALL {id} "))) {
            let event = (Rc::clone(&self.now.bench.world.durable), before + 1 + at as u64);
            self.events.insert(id.clone(), event);
        }
        // A copy of one whose answer is held has no answer of its own.
        if !effects.iter().any(|line| line == "seen repeated held") {
            let event = self.events[&id].clone();
            self.now.unanswered.push_back((id, event));
        }
        self.check(&effects);
    }

    fn put(&mut self, input: &Input<'_>) {
        let effects = self.now.bench.put(self.at, input);
        self.check(&effects);
    }

    /// Ends the session, and begins another as soon as it may: its predecessor has said everything.
    fn reconnect(&mut self, reason: CloseReason) {
        let input = match reason {
            CloseReason::ConnectionLost => Input::Lost,
            reason => Input::End(reason),
        };
        self.put(&input);
        self.at += 6_000;
        self.put(&Input::Wait);
        self.now.bench.world.backlog = Backlog::None;
        self.put(&Input::Durable);
        self.at += 6_000;
        self.put(&Input::Wait);
        assert!(self.now.bench.core.is_over(&self.now.bench.world), "an end has an end");
        assert!(self.now.bench.ended().is_some(), "and nothing is left of it");
        let next = Connection::new(self.start, self.at, &self.memory);
        self.former = Some(std::mem::replace(&mut self.now, next));
    }

    /// P5: whatever still happens to a session that has ended is not told and not written.
    fn disturb_the_former(&mut self) {
        let Some(former) = &mut self.former else { return };
        let text = CALLS[0].replace("ID", "late");
        let answer = r#"[3,"g1",{}]"#;
        for input in [Input::Text(&text), Input::Text(answer), Input::Ping, Input::Unstuck, Input::Durable] {
            let effects = former.bench.put(self.at, &input);
            assert!(effects.is_empty(), "a session that has ended: {effects:?}");
        }
    }

    fn check(&mut self, effects: &[String]) {
        let now = &mut self.now;
        for line in effects {
            if is_event(line) {
                assert!(!now.has_told_its_end, "P3: {line:?} behind the last event");
                now.has_told_its_end = line.starts_with("disconnected");
            }
            if let Some(frame) = line.strip_prefix("> ") {
                assert!(!now.has_closed, "P4: {frame} behind the close frame");
                now.has_closed = frame.starts_with("close");
                let Ok(frame) = serde_json::from_str::<serde_json::Value>(frame) else { continue };
                let id = frame[1].as_str().unwrap().to_owned();
                if frame[0] == 2 {
                    assert_eq!(now.outstanding, None, "P4: two CALLs are outstanding");
                    now.outstanding = Some(id);
                } else {
                    let (first, (durable, event)) = now.unanswered.pop_front().unwrap();
                    assert_eq!(first, id, "P3: not its turn");
                    assert!(
                        durable.get().events >= event,
                        "P1: {id} is answered before its event is durable"
                    );
                }
            }
            if line.starts_with("seen trigger ") {
                now.outstanding = None;
            }
            if let Some(ended) = line.strip_prefix("end ") {
                let mut words = ended.split(' ');
                let (command, is_sent) = (words.next().unwrap(), ended.ends_with(" yes"));
                *self.commands.get_mut(command).unwrap() += 1;
                if is_sent {
                    now.outstanding = None;
                }
            }
            for prefix in ["back ", "refused "] {
                if let Some(rest) = line.strip_prefix(prefix) {
                    *self.commands.get_mut(rest.split(' ').next().unwrap()).unwrap() += 1;
                }
            }
        }
        let waiting = now.bench.core.unacknowledged() + now.bench.core.unwritten_answers();
        let most = now.bench.world.options.max_unacknowledged;
        assert!(waiting <= most, "P7: {waiting} answers wait");
        assert!(self.commands.values().all(|ends| *ends <= 1), "a command ends once");
    }
}

fn is_event(line: &str) -> bool {
    ["connected", "disconnected ", "in ", "out "].iter().any(|word| line.starts_with(word))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// About 40,000 steps.
    #[test]
    fn the_promises_hold_after_every_step(
        is_registered in any::<bool>(),
        steps in prop::collection::vec(step(), 100..320),
    ) {
        let mut model = Model::new(is_registered);
        for step in &steps {
            model.run(step);
        }
        model.reconnect(CloseReason::Operator);
        assert!(model.commands.values().all(|ends| *ends == 1), "every command has ended: {:?}", model.commands);
    }
}
