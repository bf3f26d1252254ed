//! One simulated station as a state machine: what it does next, and when; what an answer changes.
//!
//! Owns the station's CALLs over all its connections: their ids, which are open, which must be sent again. No sockets, no
//! tasks, no clock: time is an argument.
//!
//! Open loop: when a CALL is due is decided by the station's own schedule and never by how fast others were answered; a CALL
//! that waits for its turn (one is open at a time, as OCPP wants) counts its latency from when it was due. Only what
//! a real station does one after another (boot, then the status reports) is due when the one before is answered.

mod payload;
mod script;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::frame::{self, Heard};
use crate::random::Random;
use crate::ranges::Ranges;
use crate::scenario::{Happening, Misbehaviour, Scenario, Versions};
use script::Script;

/// An OCPP version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// 1.6
    V16,
    /// 2.0.1
    V201,
    /// 2.1
    V21,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V16, Self::V201, Self::V21];

    /// The WebSocket subprotocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::V16 => "ocpp1.6",
            Self::V201 => "ocpp2.0.1",
            Self::V21 => "ocpp2.1",
        }
    }

    fn of(number: u32, shares: Versions) -> Self {
        // Not the number itself: neighbours would be dealt out to workers and gateways by version.
        let place = Random::new(u64::from(number)).below(shares.total());
        if place < shares.v16 {
            Self::V16
        } else if place < shares.v16 + shares.v201 {
            Self::V201
        } else {
            Self::V21
        }
    }
}

/// How a station behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Habit {
    /// As OCPP wants.
    Ordinary,
    /// After a time it sends and reads nothing any more.
    SlowReader,
    /// After a time it floods.
    Chatty,
}

/// What all stations of a run share.
#[derive(Debug)]
pub struct Settings {
    /// The scenario.
    pub scenario: Scenario,
    /// The beginning of every message id, which no other run has.
    pub run: String,
    /// When the run began.
    pub start: Instant,
    /// The same by the clock on the wall.
    pub wall: SystemTime,
}

impl Settings {
    /// The time of day, as OCPP writes it.
    fn time(&self, now: Instant) -> String {
        let time = self.wall + now.saturating_duration_since(self.start);
        humantime::format_rfc3339_millis(time).to_string()
    }
}

/// One thing that a station says.
#[derive(Debug)]
struct Message {
    action: &'static str,
    payload: String,
}

/// What a station does now.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It sends a CALL.
    Send {
        /// The frame.
        text: String,
        /// For the first time: how late, seen from when it was due and could be sent.
        lag: Option<Duration>,
    },
    /// It pings.
    Ping,
    /// Its connection breaks.
    Cut,
    /// Something inside changed; ask again.
    Changed,
}

/// What a text from the gateway was.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer to a CALL.
    Answered {
        /// The CALL's action.
        action: &'static str,
        /// Time since it was due.
        latency: Duration,
        /// It was a CALLERROR.
        refused: bool,
    },
    /// A command, and what to say to it.
    Command(String),
    /// Nothing that was asked for, or no OCPP: a fault of the gateway.
    Unexpected,
}

/// What a station knows at the end about its CALLs, for the verification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    /// The station.
    pub number: u32,
    /// How it behaved.
    pub habit: Habit,
    /// CALLs sent, each counted once: their numbers are `0..sent`.
    pub sent: u32,
    /// Those that were answered, with whatever.
    pub answered: Ranges,
    /// Those that were sent again.
    pub again: Vec<Again>,
}

/// A CALL that was sent more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Again {
    /// Its number.
    pub seq: u32,
    /// How often it was sent after the first time.
    pub times: u32,
    /// The gateway remembers no CALL of this action: each send is an event.
    pub never_remembered: bool,
}

/// A CALL that has no answer yet.
#[derive(Debug)]
struct Open {
    seq: u32,
    action: &'static str,
    text: String,
    due: Instant,
}

/// What is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Act {
    Misbehave,
    Happen,
    Resend,
    Ping,
    Boot,
    Report,
    Large,
    Talk,
}

/// One station.
#[derive(Debug)]
pub struct Station {
    number: u32,
    identity: String,
    version: Version,
    habit: Habit,
    settings: Arc<Settings>,
    random: Random,
    script: Script,
    /// Mean time between CALLs; none: it has nothing to say.
    interval: Option<Duration>,
    connected: bool,
    resting: bool,
    misbehaving: bool,
    registered: bool,
    /// Whether it was registered before: from then on it talks.
    talking: bool,
    boot_due: Instant,
    reported: u32,
    next_due: Instant,
    ping_due: Instant,
    /// Since when nothing but its schedule keeps it from sending.
    ready_since: Instant,
    moments: VecDeque<(Instant, Happening, usize)>,
    large: VecDeque<(Instant, usize)>,
    /// Sent and not answered, oldest first.
    open: VecDeque<Open>,
    /// The first of `open` that was not sent on this connection.
    unsent: usize,
    failures: u32,
    account: Account,
}

/// Actions of which the gateway promises no memory: a boot begins a life, and a heartbeat asks for the time.
const NEVER_REMEMBERED: [&str; 2] = ["BootNotification", "Heartbeat"];
/// The shortest wait before another BootNotification, whatever the answer says.
const SHORTEST_BOOT_WAIT: Duration = Duration::from_secs(1);

impl Station {
    /// The station of this number.
    pub fn new(number: u32, settings: Arc<Settings>) -> Self {
        let scenario = &settings.scenario;
        let identity = identity(&scenario.prefix, number);
        let version = Version::of(number, scenario.versions);
        let mut random = Random::new(u64::from(number) ^ 0x5EED);
        let script = Script::new(version, &identity, &scenario.traffic, &mut random);
        let mut moments: Vec<_> = scenario
            .moments
            .iter()
            .filter_map(|moment| {
                let at = settings.start + moment.at + random.up_to(moment.over);
                (random.unit() < moment.share).then_some((at, moment.what, moment.bytes))
            })
            .collect();
        moments.sort_by_key(|moment| moment.0);
        let habit = habit(number, scenario);
        Self {
            number,
            identity,
            version,
            habit,
            random,
            script,
            interval: interval(scenario),
            connected: false,
            resting: false,
            misbehaving: false,
            registered: false,
            talking: false,
            boot_due: settings.start,
            reported: 0,
            next_due: settings.start,
            ping_due: settings.start,
            ready_since: settings.start,
            moments: moments.into(),
            large: VecDeque::new(),
            open: VecDeque::new(),
            unsent: 0,
            failures: 0,
            account: Account { number, habit, sent: 0, answered: Ranges::default(), again: Vec::new() },
            settings,
        }
    }

    /// Its identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How it behaves, sooner or later.
    pub fn habit(&self) -> Habit {
        self.habit
    }

    /// Whether it has begun to misbehave.
    pub fn is_misbehaving(&self) -> bool {
        self.misbehaving
    }

    /// Whether it has stopped reading.
    pub fn is_deaf(&self) -> bool {
        self.misbehaving && self.habit == Habit::SlowReader
    }

    /// Whether it was told that it may talk.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// When its first connection is due: the stations share the time evenly.
    pub fn connect_due(&self) -> Instant {
        let share = f64::from(self.number) / f64::from(self.settings.scenario.stations);
        self.settings.start + self.settings.scenario.connect.over.mul_f64(share)
    }

    /// CALLs without an answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// It makes no new CALLs from here on.
    pub fn rest(&mut self) {
        self.resting = true;
    }

    /// Whether it has nothing left to do.
    pub fn is_done(&self) -> bool {
        self.resting && (self.open.is_empty() || self.is_deaf())
    }

    /// What it knows at its end.
    pub fn into_account(self) -> Account {
        self.account
    }

    /// A connection stands.
    pub fn connected(&mut self, now: Instant) {
        self.connected = true;
        self.failures = 0;
        self.unsent = 0;
        self.ready_since = now;
        if !self.registered {
            self.boot_due = now;
        }
        let every = self.settings.scenario.traffic.ping_every;
        self.ping_due = now + self.random.around(every);
        // What breaks connections has nothing to break while there is none.
        while self.moments.front().is_some_and(|moment| moment.0 <= now && moment.1 == Happening::Reconnect) {
            self.moments.pop_front();
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.connected = false;
        if self.is_deaf() {
            self.open.clear();
        }
    }

    /// How long to wait before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let reconnect = self.settings.scenario.reconnect;
        let doubled = reconnect.first.saturating_mul(1 << self.failures.min(16)).min(reconnect.longest);
        self.failures += 1;
        self.random.around(doubled)
    }

    /// When `step` has something to do, on a standing connection; none: only an answer changes anything.
    pub fn next_at(&self) -> Option<Instant> {
        self.next().map(|next| next.0)
    }

    /// What it does now, if anything.
    pub fn step(&mut self, now: Instant) -> Option<Step> {
        let (at, act) = self.next().filter(|next| next.0 <= now)?;
        Some(match act {
            Act::Misbehave => {
                self.misbehaving = true;
                self.next_due = now;
                if self.is_deaf() {
                    self.open.clear();
                    self.unsent = 0;
                }
                Step::Changed
            }
            Act::Happen => match self.moments.pop_front() {
                Some((_, Happening::Reconnect, _)) => Step::Cut,
                Some((at, Happening::LargeMessage, bytes)) => {
                    self.large.push_back((at, bytes));
                    Step::Changed
                }
                None => Step::Changed,
            },
            Act::Resend => self.send_again()?,
            Act::Ping => {
                self.ping_due = now + self.settings.scenario.traffic.ping_every;
                Step::Ping
            }
            Act::Boot => self.send(self.script.boot(), at, now),
            Act::Report => {
                let report = self.script.report(self.reported, &self.settings.time(now));
                self.reported += 1;
                self.send(report, at, now)
            }
            Act::Large => {
                let (due, bytes) = self.large.pop_front()?;
                self.send(Script::large(bytes), due, now)
            }
            Act::Talk => self.talk(now),
        })
    }

    /// A text came.
    pub fn hear(&mut self, text: &str, now: Instant) -> Outcome {
        match frame::read(text) {
            Heard::Result { id, payload } => {
                let Some(open) = self.take(id, now) else { return Outcome::Unexpected };
                self.learn(&open, payload.get(), now);
                Outcome::Answered { action: open.action, latency: now - open.due, refused: false }
            }
            Heard::Error { id, code } => {
                let Some(open) = self.take(id, now) else { return Outcome::Unexpected };
                if open.action == "BootNotification" {
                    self.boot_due = now + SHORTEST_BOOT_WAIT;
                } else if code == "SecurityError" {
                    // The gateway does not know it any more.
                    self.registered = false;
                    self.boot_due = now;
                }
                Outcome::Answered { action: open.action, latency: now - open.due, refused: true }
            }
            Heard::Call { id, action } => Outcome::Command(frame::answer(id, action)),
            Heard::Nonsense => Outcome::Unexpected,
        }
    }

    fn next(&self) -> Option<(Instant, Act)> {
        let mut first: Option<(Instant, Act)> = None;
        // Of several at the same time the first considered wins.
        let mut consider = |at: Instant, act: Act| {
            if first.is_none_or(|(earliest, _)| at < earliest) {
                first = Some((at, act));
            }
        };
        if let Some(group) = self.group().filter(|_| !self.misbehaving) {
            consider(self.settings.start + group.after, Act::Misbehave);
        }
        if let Some(moment) = self.moments.front() {
            consider(moment.0, Act::Happen);
        }
        if !self.connected {
            return None;
        }
        if self.unsent < self.open.len() {
            consider(self.ready_since, Act::Resend);
            return first;
        }
        if !self.settings.scenario.traffic.ping_every.is_zero() && !self.is_deaf() {
            consider(self.ping_due, Act::Ping);
        }
        if self.resting || self.open.len() >= self.window() {
            return first;
        }
        if !self.registered {
            if self.open.is_empty() {
                consider(self.boot_due, Act::Boot);
            }
        } else if self.reported < self.script.reports() {
            consider(self.ready_since, Act::Report);
        } else {
            if let Some(large) = self.large.front() {
                consider(large.0, Act::Large);
            }
            if self.misbehaving || self.interval.is_some() {
                consider(self.next_due, Act::Talk);
            }
        }
        first
    }

    fn talk(&mut self, now: Instant) -> Step {
        let due = self.next_due;
        let time = self.settings.time(now);
        let group = self.group().filter(|_| self.misbehaving);
        match (self.habit, group) {
            (Habit::SlowReader, Some(group)) => {
                // It hears no answer: there is no latency, and nothing to be late with.
                self.next_due = now + group.every;
                let step = self.send(Script::heartbeat(), now, now);
                self.open.clear();
                self.unsent = 0;
                step
            }
            (Habit::Chatty, Some(group)) => {
                self.next_due = due + self.random.around(group.every);
                let message = self.script.flood(&time);
                self.send(message, due, now)
            }
            _ => {
                let interval = self.interval.unwrap_or(Duration::MAX);
                self.next_due = due + self.random.around(interval);
                let message = self.script.next(&time);
                self.send(message, due, now)
            }
        }
    }

    fn send(&mut self, message: Message, due: Instant, now: Instant) -> Step {
        let seq = self.account.sent;
        self.account.sent += 1;
        let id = message_id(&self.settings.run, seq);
        let text = frame::call(&id, message.action, &message.payload);
        let lag = now.saturating_duration_since(due.max(self.ready_since));
        self.open.push_back(Open { seq, action: message.action, text: text.clone(), due });
        self.unsent = self.open.len();
        Step::Send { text, lag: Some(lag) }
    }

    fn send_again(&mut self) -> Option<Step> {
        let open = self.open.get(self.unsent)?;
        self.unsent += 1;
        match self.account.again.iter_mut().rev().find(|again| again.seq == open.seq) {
            Some(again) => again.times += 1,
            None => self.account.again.push(Again {
                seq: open.seq,
                times: 1,
                never_remembered: NEVER_REMEMBERED.contains(&open.action),
            }),
        }
        Some(Step::Send { text: open.text.clone(), lag: None })
    }

    /// Takes the CALL of this id off the open ones; none if it is not there, or was not sent on this connection.
    fn take(&mut self, id: &str, now: Instant) -> Option<Open> {
        let seq = parse_message_id(&self.settings.run, id)?;
        let at = self.open.iter().take(self.unsent).position(|open| open.seq == seq)?;
        if self.open.len() >= self.window() {
            self.ready_since = now;
        }
        self.unsent -= 1;
        self.account.answered.insert(seq);
        self.open.remove(at)
    }

    fn learn(&mut self, open: &Open, payload: &str, now: Instant) {
        #[derive(Deserialize)]
        struct Boot<'a> {
            status: &'a str,
            interval: u64,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Start {
            transaction_id: i64,
        }
        match open.action {
            "BootNotification" => match serde_json::from_str::<Boot<'_>>(payload) {
                Ok(boot) if boot.status == "Accepted" => self.registered(now),
                Ok(boot) => self.boot_due = now + SHORTEST_BOOT_WAIT.max(Duration::from_secs(boot.interval)),
                Err(_) => self.boot_due = now + SHORTEST_BOOT_WAIT,
            },
            "StartTransaction" => {
                if let Ok(start) = serde_json::from_str::<Start>(payload) {
                    self.script.transaction_is(start.transaction_id);
                }
            }
            _ => {}
        }
    }

    fn registered(&mut self, now: Instant) {
        self.registered = true;
        self.reported = 0;
        if !self.talking {
            self.talking = true;
            self.next_due =
                now + self.interval.map_or(Duration::ZERO, |interval| self.random.up_to(interval));
        }
    }

    fn group(&self) -> Option<&Misbehaviour> {
        match self.habit {
            Habit::Ordinary => None,
            Habit::SlowReader => Some(&self.settings.scenario.slow_readers),
            Habit::Chatty => Some(&self.settings.scenario.chatty),
        }
    }

    fn window(&self) -> usize {
        if self.misbehaving && self.habit == Habit::Chatty { self.settings.scenario.chatty.window } else { 1 }
    }
}

/// The identity of a station.
pub fn identity(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:06}")
}

/// The message id of a station's CALL. Ascending numbers, so that a reader needs no list of them.
pub fn message_id(run: &str, seq: u32) -> String {
    format!("{run}-{seq}")
}

/// The number in a message id of this run.
pub fn parse_message_id(run: &str, id: &str) -> Option<u32> {
    id.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

/// The first are slow readers, the next are chatty.
fn habit(number: u32, scenario: &Scenario) -> Habit {
    if number < scenario.slow_readers.stations {
        Habit::SlowReader
    } else if number < scenario.slow_readers.stations + scenario.chatty.stations {
        Habit::Chatty
    } else {
        Habit::Ordinary
    }
}

fn interval(scenario: &Scenario) -> Option<Duration> {
    let rate = scenario.traffic.messages_per_second;
    (rate > 0.0).then(|| Duration::from_secs_f64(f64::from(scenario.stations) / rate))
}

#[cfg(test)]
mod tests;
