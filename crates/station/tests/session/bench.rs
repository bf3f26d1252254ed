//! A driver for tables: inputs go in at their times, effects come out as lines.
//!
//! | line | what happened |
//! |---|---|
//! | `connected`, `in CALL 1 Heartbeat`, `out CALLRESULT 1`, `disconnected idle 1008` | an event was published |
//! | `state Accepted`, `state transaction 7` | a change of the station's state was published |
//! | `> …` | a frame was handed to the socket |
//! | `ask 1 Authorize` | a backend was asked |
//! | `note c1`, `end c1 answered yes`, `back c1 offline`, `defer c1`, `ready true` | what became of commands |
//! | `seen …` | something was counted |

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use ocpp_protocol::{Action, BootState, Identity, IdentityKey, Registration, StartKey, Version};
use ocpp_station::delegated_calls::{CallStatus, Decided, DelegatedCalls, FallbackReason};
use ocpp_station::events::{Body, Message, Subject};
use ocpp_station::host::{
    Backlog, DelegatedCall, Delegation, Event, Fallback, Host, Position, RegisteredBy, Trace,
};
use ocpp_station::inbox::Inbox;
use ocpp_station::observation::Observation;
use ocpp_station::options::{Authorization, BeforeBoot, Validation};
use ocpp_station::outbound_call::{Overdue, Patience};
use ocpp_station::outbox::Outgoing;
use ocpp_station::recent_calls::{DurablePoint, RecentCalls};
use ocpp_station::{
    CloseReason, Link, Now, Options, OutboundCall, Outcome, Response, Session, SessionId, Standing,
    StationModel, Status, TraceParent,
};
use serde_json::value::RawValue;
use uuid::Uuid;

/// What is durable of one session, seen by whoever outlives it.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    durable: Rc<Cell<Position>>,
    states_durable: Rc<Cell<Position>>,
    at: Position,
}

impl DurablePoint for Point {
    fn is_reached(&self) -> bool {
        self.at.events <= self.durable.get().events && self.at.states <= self.states_durable.get().states
    }

    fn with_states_of(&self, later: &Self) -> Self {
        let at = Position { events: self.at.events, states: later.at.states };
        Self { durable: Rc::clone(&self.durable), states_durable: Rc::clone(&later.states_durable), at }
    }
}

/// The trace of a CALL; nobody records one here.
#[derive(Debug, Default)]
pub(crate) struct NoTrace;

impl Trace for NoTrace {
    fn context(&self) -> Option<TraceParent> {
        None
    }

    fn ended(&mut self, _: &'static str) {}
}

/// What outlives a session.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) recent: Rc<RecentCalls<Point>>,
    pub(crate) boot_state: Rc<Cell<BootState>>,
    /// What an operator has decided since the station was told its boot state.
    pub(crate) decision: Rc<Cell<Option<Registration>>>,
    pub(crate) transactions: Rc<RefCell<HashMap<String, i32>>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            recent: Rc::new(RecentCalls::new(4, Duration::from_secs(600))),
            boot_state: Rc::new(Cell::new(BootState::Accepted)),
            decision: Rc::default(),
            transactions: Rc::default(),
        }
    }
}

impl Memory {
    fn standing(&self) -> Standing {
        let told = self.boot_state.get();
        Standing { told, counts: self.decision.get().map_or(told, BootState::from) }
    }
}

/// The world of one session, as far as it can ask.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) backlog: Backlog,
    pub(crate) holds: bool,
    pub(crate) sheds: bool,
    pub(crate) registration: Registration,
    pub(crate) delegations: HashMap<&'static str, Delegation>,
    pub(crate) refuses_notes: bool,
    pub(crate) defers: bool,
    pub(crate) results_pending: bool,
    pub(crate) memory: Memory,
    pub(crate) effects: Vec<String>,
    pub(crate) position: Position,
    pub(crate) durable: Rc<Cell<Position>>,
    pub(crate) session: SessionId,
    pub(crate) is_ready: bool,
    pub(crate) model: Option<StationModel>,
    delegated: DelegatedCalls,
    inbox: Inbox<()>,
    identity: Identity,
    key: IdentityKey,
    version: Version,
    message_ids: u64,
}

impl World {
    fn log(&mut self, effect: impl Into<String>) {
        self.effects.push(effect.into());
    }
}

fn described(direction: &str, message: &Message<'_>) -> String {
    let id = message.id_json.map(|id| id.trim_matches('"')).unwrap_or("?");
    let mut text = format!("{direction} {} {id}", message.message_type);
    if let Some(action) = message.action {
        text.push(' ');
        text.push_str(action);
    }
    if let Some(command) = message.command_id {
        text.push_str(" of ");
        text.push_str(command);
    }
    if let Body::Malformed { reason, .. } = message.body {
        text.push(' ');
        text.push_str(reason);
    }
    if let Some(violation) = message.violation {
        text.push_str(" ! ");
        text.push_str(violation);
    }
    text
}

impl Host for World {
    type Trace = NoTrace;
    type Dispatch = ();
    type Point = Point;

    fn subject(&self) -> Subject<'_> {
        Subject { session: self.session, identity: &self.identity, version: self.version }
    }

    fn station(&self) -> &IdentityKey {
        &self.key
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn publish(&mut self, event: Event<'_>) {
        self.position.events += 1;
        let line = match event {
            Event::Connected => "connected".to_owned(),
            Event::Received(_, message) => described("in", message),
            Event::Sent(_, message) => described("out", message),
            Event::Disconnected(ended) => {
                let code = ended.close_code.map_or_else(|| "-".to_owned(), |code| code.to_string());
                format!("disconnected {} {code}", ended.reason.as_str())
            }
        };
        self.log(line);
    }

    fn position(&self) -> Position {
        self.position
    }

    fn point(&self) -> Point {
        let durable = Rc::clone(&self.durable);
        Point { states_durable: Rc::clone(&durable), durable, at: self.position }
    }

    fn backlog(&self) -> Backlog {
        self.backlog
    }

    fn holds_too_long(&self) -> bool {
        self.holds
    }

    fn sheds(&self, action: &'static str) -> bool {
        self.sheds && ["MeterValues", "Authorize"].contains(&action)
    }

    fn introduce(&mut self, model: StationModel) {
        self.model = Some(model);
    }

    fn register(&mut self, by: RegisteredBy) -> Registration {
        let registration = match by {
            RegisteredBy::Backend(registration) | RegisteredBy::Fallback(registration) => registration,
            RegisteredBy::Operator => self.registration,
        };
        self.position.states += 1;
        self.memory.boot_state.set(registration.into());
        self.memory.decision.set(None);
        self.log(format!("state {}", registration.as_str()));
        registration
    }

    fn start_transaction(&mut self, _: Now, start: &StartKey) -> i32 {
        self.position.states += 1;
        let mut transactions = self.memory.transactions.borrow_mut();
        let next = 1 + i32::try_from(transactions.len()).unwrap();
        let id = *transactions.entry(start.canonical()).or_insert(next);
        drop(transactions);
        self.log(format!("state transaction {id}"));
        id
    }

    fn recent_calls(&self) -> &RecentCalls<Point> {
        &self.memory.recent
    }

    fn delegation(&self, action: &'static Action) -> Option<Delegation> {
        self.delegations.get(action.name).copied()
    }

    fn delegated_calls(&self) -> &DelegatedCalls {
        &self.delegated
    }

    fn delegate(&mut self, call: &DelegatedCall<'_>) {
        self.log(format!("ask {} {}", call.name.message_id, call.action.name));
    }

    fn inbox(&self) -> &Inbox<()> {
        &self.inbox
    }

    fn prepare(&mut self, call: &OutboundCall<()>) -> bool {
        if !self.refuses_notes {
            self.log(format!("note {}", call.id));
        }
        !self.refuses_notes
    }

    fn defer(&mut self, call: OutboundCall<()>) -> Result<(), OutboundCall<()>> {
        if !self.defers {
            return Err(call);
        }
        self.log(format!("defer {}", call.id));
        Ok(())
    }

    fn hand_back(&mut self, calls: Vec<OutboundCall<()>>, status: Status) {
        for call in calls {
            self.log(format!("back {} {}", call.id, status.as_str()));
        }
    }

    fn finished(&mut self, call: OutboundCall<()>, outcome: Outcome) {
        let violation = outcome.violation.map(|violation| format!(" ! {violation}")).unwrap_or_default();
        self.log(format!("end {} {} {}{violation}", call.id, outcome.status.as_str(), outcome.sent.as_str()));
    }

    fn has_unpublished_results(&self) -> bool {
        self.results_pending
    }

    fn station_ready(&mut self, is_ready: bool) {
        self.is_ready = is_ready;
        self.log(format!("ready {is_ready}"));
    }

    fn message_id(&mut self) -> String {
        self.message_ids += 1;
        format!("g{}", self.message_ids)
    }

    fn trace_call(&mut self, _: Now, _: &'static str, _: &str) -> NoTrace {
        NoTrace
    }

    fn trace_command(&mut self, _: Now, _: &mut OutboundCall<()>, _: &str) -> Option<TraceParent> {
        None
    }

    fn observe(&mut self, what: Observation<'_>) {
        let line = match what {
            Observation::Repeated(kind) => format!("seen repeated {kind}"),
            Observation::Shed { action } => format!("seen shed {action}"),
            Observation::Leniency(kind) => format!("seen leniency {kind}"),
            Observation::Violations { message_type, action, found, is_refused } => {
                let refused = if is_refused { " refused" } else { "" };
                let kinds = found.all().iter().map(|one| one.kind.as_str()).collect::<Vec<_>>().join(",");
                format!("seen violation {message_type} {action} {kinds}{refused}")
            }
            Observation::UnmatchedAnswer(kind) => format!("seen {kind} answer"),
            Observation::DelegationEnded { action, outcome } => format!("seen delegated {action} {outcome}"),
            Observation::BootTriggered(outcome) => format!("seen trigger {outcome}"),
            Observation::PingRoundTrip(took) => format!("seen pong after {}ms", took.as_millis()),
            Observation::ReadPaused => "seen read paused".to_owned(),
            // Counted with every message.
            _ => return,
        };
        self.log(line);
    }
}

/// An input of a session.
#[derive(Clone, Debug)]
pub(crate) enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message, on a listener that is lenient or not.
    Binary(&'a [u8], bool),
    /// A ping.
    Ping,
    /// A pong that answers the last ping of this session.
    Pong,
    /// The station's close frame.
    Close(Option<u16>),
    /// A rule of the WebSocket was broken.
    Broken(CloseReason),
    /// The connection is gone.
    Lost,
    /// Everything published so far is durable.
    Durable,
    /// The first events and state changes are durable, these many.
    DurableUpTo(u64, u64),
    /// A command arrives for the station.
    Command(&'a str, &'a str),
    /// A command arrives that goes ahead of others.
    Urgent(&'a str, &'a str),
    /// The note of a command that leaves is durable.
    Prepared,
    /// An operator decides about the station's registration.
    Decide(Registration),
    /// A backend responds to the CALL of this message id.
    Respond(&'a str, &'a str),
    /// No backend will respond to the CALL of this message id.
    Fail(&'a str, FallbackReason),
    /// Somebody asks for the end.
    End(CloseReason),
    /// The socket takes nothing any more.
    Stuck,
    /// The socket takes what waits.
    Unstuck,
    /// Other options hold from now on.
    Options(&'a Options),
    /// Time passes; whatever is due is done.
    Wait,
}

/// A session with its world and a clock that only tables move.
pub(crate) struct Bench {
    pub(crate) core: Session<World>,
    pub(crate) world: World,
    pub(crate) link: Link,
    start: Instant,
    last_ping: [u8; 8],
    is_stuck: bool,
    commands: u64,
}

pub(crate) const SECOND: u64 = 1000;

/// 2026-01-01T00:00:00Z.
const EPOCH: Duration = Duration::from_secs(1_767_225_600);

pub(crate) fn options() -> Options {
    Options {
        max_unacknowledged: 3,
        ping_interval: Duration::ZERO,
        idle_timeout: Duration::from_secs(900),
        write_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_secs(5),
        hold_limit: Duration::from_secs(120),
        grace: Duration::from_secs(2),
        before_boot: BeforeBoot::Refuse,
        trigger_boot: true,
        boot_interval: Duration::from_secs(300),
        authorization: Authorization::Accepted,
        validation: Validation::OFF,
        lenient: false,
        fractional_seconds: true,
        close_after_timeouts: 0,
    }
}

pub(crate) fn delegation(deadline_ms: u64, fallback: Fallback) -> Delegation {
    Delegation { deadline: Duration::from_millis(deadline_ms), fallback, status: None }
}

impl Bench {
    /// A session of a 1.6 station that is accepted.
    pub(crate) fn new() -> Self {
        Self::with(Version::V16, options(), Memory::default())
    }

    /// A session of a station about which this is remembered.
    pub(crate) fn with(version: Version, options: Options, memory: Memory) -> Self {
        Self::starting_at(Instant::now(), version, options, memory)
    }

    /// The same at this moment of the monotonic clock, which sessions that share a memory share.
    pub(crate) fn starting_at(start: Instant, version: Version, options: Options, memory: Memory) -> Self {
        let identity = Identity::parse("CP-1").unwrap();
        let mut world = World {
            options,
            backlog: Backlog::None,
            holds: false,
            sheds: false,
            registration: Registration::Accepted,
            delegations: HashMap::new(),
            refuses_notes: false,
            defers: false,
            results_pending: false,
            memory,
            effects: Vec::new(),
            position: Position::default(),
            durable: Rc::default(),
            session: SessionId::new(Uuid::now_v7()),
            is_ready: false,
            model: None,
            delegated: DelegatedCalls::default(),
            inbox: Inbox::new(4),
            key: identity.folded(),
            identity,
            version,
            message_ids: 0,
        };
        let standing = world.memory.standing();
        let core = Session::start(moment(start, 0), standing, 0, &mut world);
        assert_eq!(std::mem::take(&mut world.effects), ["connected"], "the first event, and nothing else");
        let link = Link { is_open: true, is_writing: false, is_read_over: false };
        Self { core, world, link, start, last_ping: [0; 8], is_stuck: false, commands: 0 }
    }

    /// Runs a table: at so many milliseconds, this input has these effects.
    #[track_caller]
    pub(crate) fn table(&mut self, rows: &[(u64, Input<'_>, &[&str])]) {
        for (row, (at, input, effects)) in rows.iter().enumerate() {
            let found = self.put(*at, input);
            assert_eq!(found, *effects, "row {row}: {input:?} at {at} ms");
        }
    }

    /// One input; its effects. The time in between is passed deadline by deadline.
    pub(crate) fn put(&mut self, at: u64, input: &Input<'_>) -> Vec<String> {
        self.pass_until(at);
        let now = moment(self.start, at);
        let (core, world) = (&mut self.core, &mut self.world);
        match input {
            Input::Text(text) => core.on_text(now, text, world),
            Input::Binary(bytes, is_lenient) => {
                world.options.lenient = *is_lenient;
                core.on_binary(now, bytes, world);
            }
            Input::Options(options) => {
                world.options = Options::clone(options);
                core.on_options(now, world);
            }
            Input::Ping => core.on_ping(now, world),
            Input::Pong => core.on_pong(now, &self.last_ping, world),
            Input::Close(code) => {
                self.link.is_read_over = true;
                core.on_close(now, *code, world);
            }
            Input::Broken(reason) => {
                self.link.is_read_over = true;
                core.on_broken(now, *reason, world);
            }
            Input::Lost => {
                self.link.is_open = false;
                core.on_lost(now, world);
            }
            Input::Durable => world.durable.set(world.position),
            Input::DurableUpTo(events, states) => {
                world.durable.set(Position { events: *events, states: *states });
            }
            Input::Command(id, action) => self.submit(now, id, action, false),
            Input::Urgent(id, action) => self.submit(now, id, action, true),
            Input::Prepared => core.on_prepared(now, world),
            Input::Decide(registration) => {
                world.registration = *registration;
                world.memory.decision.set(Some(*registration));
                core.on_decision(world.memory.standing(), world);
            }
            Input::Respond(id, json) => {
                let payload = RawValue::from_string((*json).to_owned()).unwrap();
                let response = Decided::Response(Response::Payload(payload));
                let status = world.delegated.decide(id, None, response);
                if !matches!(status, CallStatus::Waiting(_)) {
                    world.log(format!("response {status:?}"));
                }
                core.on_decided(now, world);
            }
            Input::Fail(id, reason) => {
                world.delegated.decide(id, None, Decided::Fallback(*reason));
                core.on_decided(now, world);
            }
            Input::End(reason) => core.on_end(now, *reason, world),
            Input::Stuck => self.is_stuck = true,
            Input::Unstuck => {
                self.is_stuck = false;
                self.link.is_writing = false;
                core.on_flushed();
            }
            Input::Wait => {}
        }
        self.settle(now);
        std::mem::take(&mut self.world.effects)
    }

    /// Whether the session would read.
    pub(crate) fn reads(&self) -> bool {
        self.core.wants_read(&self.world)
    }

    /// Whether the session has nothing left to do, and why it ended.
    pub(crate) fn ended(&self) -> Option<CloseReason> {
        self.core.ended(self.link, &self.world)
    }

    /// Queues a command with this payload.
    pub(crate) fn submit_with(&mut self, at: u64, id: &str, action: &str, payload: Box<RawValue>) {
        self.queue(moment(self.start, at), id, action, false, payload);
    }

    fn submit(&mut self, now: Now, id: &str, action: &str, is_urgent: bool) {
        self.queue(now, id, action, is_urgent, RawValue::from_string("{}".into()).unwrap());
    }

    fn queue(&mut self, now: Now, id: &str, action: &str, is_urgent: bool, payload: Box<RawValue>) {
        self.commands += 1;
        let timeout = Duration::from_secs(30);
        let call = OutboundCall {
            id: id.into(),
            action: Action::find(action).unwrap(),
            payload: Arc::from(payload),
            sequence: self.commands,
            is_urgent,
            send_by: now.monotonic + timeout,
            patience: Patience::Since(now.wall, timeout),
            overdue: Overdue::TimedOut,
            dispatch: (),
        };
        if self.world.inbox.submit(call).is_err() {
            self.world.log(format!("refused {id}"));
        }
    }

    /// Every deadline up to a moment, in order.
    fn pass_until(&mut self, at: u64) {
        let until = moment(self.start, at);
        let mut last = None;
        loop {
            let from = last.unwrap_or(self.start);
            let deadline = self.core.deadline(from, &self.world);
            if deadline > until.monotonic || self.ended().is_some() {
                return;
            }
            // A deadline that stays where it is would be looked at for ever.
            let deadline = if last.is_some_and(|last| deadline <= last) {
                last.map_or(deadline, |last| last + Duration::from_millis(50))
            } else {
                deadline
            };
            if deadline > until.monotonic {
                return;
            }
            last = Some(deadline);
            let passed = deadline.saturating_duration_since(self.start);
            let now = Now { monotonic: deadline.max(self.start), wall: UNIX_EPOCH + EPOCH + passed };
            self.core.on_timeout(now, self.link, &mut self.world);
            self.settle(now);
        }
    }

    /// What a driver does at every turn, until nothing more happens.
    fn settle(&mut self, now: Now) {
        loop {
            if self.core.gives_up_link(now.monotonic) {
                self.link.is_open = false;
            }
            let durable = self.world.durable.get();
            self.core.advance(now, durable, self.link, &mut self.world);
            let mut is_still = !self.write(now);
            let wanted = self.core.wants_command(now.monotonic, &self.world);
            let context = std::task::Context::from_waker(std::task::Waker::noop());
            let next = self.world.inbox.poll_next(&context, |action| wanted.takes(action));
            if let std::task::Poll::Ready(ocpp_station::inbox::Signal::Command(call)) = next {
                self.core.on_command(now, call, &mut self.world);
                is_still = false;
            }
            if is_still {
                return;
            }
        }
    }

    fn write(&mut self, now: Now) -> bool {
        let mut has_written = false;
        while self.link.is_open && !self.link.is_writing {
            let Some(outgoing) = self.core.pop() else { break };
            has_written = true;
            let line = match outgoing {
                Outgoing::Text(text) => format!("> {text}"),
                Outgoing::Ping(payload) => {
                    self.last_ping = payload;
                    "> ping".to_owned()
                }
                Outgoing::Close { code, .. } => format!("> close {code}"),
            };
            self.world.log(line);
            self.link.is_writing = self.is_stuck;
        }
        if has_written {
            self.core.advance(now, self.world.durable.get(), self.link, &mut self.world);
        }
        has_written
    }
}

pub(crate) fn moment(start: Instant, at_ms: u64) -> Now {
    let passed = Duration::from_millis(at_ms);
    Now { monotonic: start + passed, wall: UNIX_EPOCH + EPOCH + passed }
}
