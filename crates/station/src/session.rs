//! A session: one connection of a station, as a state machine without I/O.
//!
//! Owns every rule of a connection: what becomes of a message, when an answer may leave (P1), which command leaves next,
//! when to ping, when to stop reading (P2) and how it all ends. Time is an argument, and whatever it asks of the world goes
//! through one port ([`Host`]). A driver owns the socket and turns readiness into calls:
//!
//! ```text
//!   driver ── on_text · on_binary · on_ping · on_pong · on_close · on_broken · on_lost ──► Session ── Host ──► events, …
//!          ── on_command · on_prepared · on_decided · on_decision · on_end · on_timeout ►    │
//!          ── advance(durable, link), after each of them ───────────────────────────────►    │
//!          ◄─ pop · wants_read · wants_command · awaited · deadline · ended ─────────────────┘
//! ```
//!
//! [`Session::advance`] releases what has become durable and carries the end on; the driver calls it at every turn and then
//! asks what to wait for.
//!
//! Invariants: an answer leaves only when its event, and every state change behind it, is durable; answers leave in the
//! order of their CALLs; at most one CALL is outstanding in each direction; nothing leaves after the close frame; the last
//! event is [`Event::Disconnected`], exactly once.

mod answering;
mod commands;
mod delegation;
mod ending;
mod inbound;
mod latest;
mod message;
mod registration;
mod validation;

use std::time::{Duration, Instant};

use ocpp_protocol::{Exchange, Grants};

use self::commands::{CommandName, Outstanding};
use self::ending::Ending;
use self::latest::Latest;
pub use self::registration::Wanted;
use crate::answer_queue::{Answer, AnswerQueue};
use crate::close::CloseReason;
use crate::host::{Backlog, Event, Host, Position};
use crate::keepalive::{Due, Keepalive};
use crate::observation::Observation;
use crate::options::Options;
use crate::outbound_call::OutboundCall;
use crate::outbox::{Outbox, Outgoing};
use crate::record::Standing;
use crate::time::Now;

/// Message ids of ended commands that a session remembers, to tell a late answer from an unknown one.
const REMEMBERED_IDS: usize = 16;

/// How often a repeated CALL looks whether its first event, published by an earlier session, is durable.
const EARLIER_CHECK: Duration = Duration::from_millis(50);

/// How long a station is given to boot by itself, however short the grace for commands.
const LEAST_SILENCE: Duration = Duration::from_secs(2);

/// How far away the deadline is when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// What the driver knows of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// There is one.
    pub is_open: bool,
    /// Something taken by [`Session::pop`] has not left yet.
    pub is_writing: bool,
    /// Nothing more can be read from it.
    pub is_read_over: bool,
}

/// The state machine of one connection.
pub struct Session<H: Host> {
    answers: AnswerQueue<H::Point, H::Trace>,
    outbox: Outbox,
    exchange: Exchange<Box<Outstanding<H::Dispatch>>>,
    /// The actions of CALLs that were answered with a result, by message id as it was written; the station may refuse the
    /// result (2.1).
    answered: Latest<&'static str>,
    /// Commands that ended without an answer, which may still come.
    unanswered: Latest<CommandName>,
    /// A command that leaves once it is noted that it does.
    preparing: Option<Box<OutboundCall<H::Dispatch>>>,
    grants: Grants,
    standing: Standing,
    /// The station is to be asked to boot, if that is called for …
    owes_trigger: bool,
    /// … and by then it has said nothing that says so earlier.
    trigger_at: Instant,
    /// BootNotifications whose answer is held.
    boot_answers_held: usize,
    /// An answer has been handed to the socket.
    call_answered: bool,
    grace_until: Instant,
    ending: Option<Ending>,
    keepalive: Keepalive,
    writing_since: Option<Instant>,
    was_reading: bool,
    /// Commands that were not answered in time, since the last that was.
    timeouts: u32,
    messages_in: u64,
    messages_out: u64,
}

impl<H: Host> Session<H> {
    /// A session that begins: its first event is published. `standing` is the station's registration, `seed` differs between
    /// sessions that begin together.
    pub fn start(now: Now, standing: Standing, seed: u64, host: &mut H) -> Self {
        host.publish(Event::Connected);
        let Options { ping_interval, idle_timeout, grace, .. } = *host.options();
        Self {
            answers: AnswerQueue::default(),
            outbox: Outbox::default(),
            exchange: Exchange::new(REMEMBERED_IDS),
            answered: Latest::default(),
            unanswered: Latest::default(),
            preparing: None,
            grants: Grants::default(),
            standing,
            owes_trigger: true,
            trigger_at: now.monotonic + grace.max(LEAST_SILENCE),
            boot_answers_held: 0,
            call_answered: false,
            grace_until: now.monotonic + grace,
            ending: None,
            keepalive: Keepalive::new(now.monotonic, ping_interval, idle_timeout, seed),
            writing_since: None,
            was_reading: true,
            timeouts: 0,
            messages_in: 0,
            messages_out: 0,
        }
    }

    /// What the operator sets for this station has changed.
    pub fn on_options(&mut self, now: Now, host: &H) {
        let Options { ping_interval, idle_timeout, .. } = *host.options();
        self.keepalive.change(now.monotonic, ping_interval, idle_timeout);
    }

    /// Carries on what time, storage and the socket allow: answers whose events are durable leave, and an end in progress
    /// goes on. To be called at every turn, before the driver asks what to wait for.
    pub fn advance(&mut self, now: Now, durable: Position, link: Link, host: &mut H) {
        self.release(now, durable, host);
        self.trigger_boot(now, host);
        self.advance_ending(now, link, host);
        self.note_link(now, link, host);
    }

    /// Notes since when the station takes nothing, and whether reading has paused.
    fn note_link(&mut self, now: Now, link: Link, host: &mut H) {
        if self.outbox.is_empty() && !link.is_writing {
            self.writing_since = None;
        } else if self.writing_since.is_none() {
            self.writing_since = Some(now.monotonic);
        }
        let reading = self.wants_read(host);
        if self.was_reading && !reading && self.ending.is_none() {
            host.observe(Observation::ReadPaused);
        }
        self.was_reading = reading;
    }

    /// Everything handed to the socket has left.
    pub fn on_flushed(&mut self) {
        self.writing_since = None;
    }

    /// A ping came in; its pong is the connection's own affair.
    pub fn on_ping(&mut self, now: Now, host: &mut H) {
        self.keepalive.seen(now.monotonic);
        host.observe(Observation::PingReceived);
    }

    /// A pong came in, with what its ping carried.
    pub fn on_pong(&mut self, now: Now, payload: &[u8], host: &mut H) {
        self.keepalive.seen(now.monotonic);
        if let Some(round_trip) = self.keepalive.pong(now.monotonic, payload) {
            host.observe(Observation::PingRoundTrip(round_trip));
        }
    }

    /// The deadline has come, or passed. `link` is as it is now: what waited to be written may have left since the last
    /// look.
    pub fn on_timeout(&mut self, now: Now, link: Link, host: &mut H) {
        self.note_link(now, link, host);
        self.fall_back_overdue(now, host);
        if self.ending.is_some() {
            return;
        }
        self.end_overdue_commands(now, host);
        let options = host.options();
        if options.close_after_timeouts > 0 && self.timeouts >= options.close_after_timeouts {
            self.end(now, CloseReason::Unresponsive, host);
            return;
        }
        if self.writing_since.is_some_and(|since| now.monotonic >= since + options.write_timeout) {
            self.end(now, CloseReason::SlowReader, host);
            return;
        }
        let hold_limit = options.hold_limit;
        if self.held_since(host).is_some_and(|since| now.monotonic >= since + hold_limit)
            && host.holds_too_long()
        {
            self.end(now, CloseReason::BusHolding, host);
            return;
        }
        match self.keepalive.due(now.monotonic, self.wants_read(host)) {
            Due::Nothing => {}
            Due::Ping(payload) => self.outbox.ping(payload),
            Due::Idle => self.end(now, CloseReason::Idle, host),
        }
    }

    /// The most urgent thing for the writer.
    pub fn pop(&mut self) -> Option<Outgoing> {
        self.outbox.pop()
    }

    /// Answers that wait for the writer.
    pub fn unwritten_answers(&self) -> usize {
        self.outbox.answers()
    }

    /// Whether to read: not while an event waits for room on the bus, nor while too much waits to be answered. At the end,
    /// only for the station's close frame.
    pub fn wants_read(&self, host: &H) -> bool {
        match &self.ending {
            Some(ending) => ending.is_announced,
            None => {
                host.backlog() == Backlog::None
                    && self.answers.len() + self.outbox.answers() < host.options().max_unacknowledged
            }
        }
    }

    /// What must be durable for the next answer to be released, or for the station to be read again; none if that alone
    /// would change nothing.
    pub fn awaited(&self, durable: Position, host: &H) -> Option<Position> {
        // What an earlier session published is looked for by the timer: it has a waiter of its own.
        let first = self
            .answers
            .front()
            .filter(|first| matches!(first.answer, Answer::Ready(_)) && !first.after.waits_for_earlier());
        first.map(|first| first.after.position).or_else(|| {
            (host.backlog() == Backlog::Unacknowledged)
                .then(|| Position { events: durable.events + 1, states: 0 })
        })
    }

    /// When something is due that no input will announce.
    pub fn deadline(&self, now: Instant, host: &H) -> Instant {
        let fallback = self.next_fallback();
        if let Some(ending) = &self.ending {
            let due = if ending.is_announced { ending.drop_link_at } else { Some(ending.give_up_at) };
            let due = due.unwrap_or_else(|| now + NOTHING_DUE);
            return fallback.map_or(due, |fallback| due.min(fallback));
        }
        let options = host.options();
        let queued = host.inbox().next_deadline();
        let hold_limit = self.held_since(host).map(|since| since + options.hold_limit);
        let others = [
            self.exchange.deadline(),
            self.preparing.as_ref().map(|call| call.send_by),
            queued,
            queued.map(|_| self.grace_until).filter(|until| *until > now),
            self.wants_boot(host).then_some(self.trigger_at).filter(|at| *at > now),
            self.writing_since.map(|since| since + options.write_timeout),
            // At the limit, and then every second.
            hold_limit.map(|limit| limit.max(now + Duration::from_secs(1))),
            fallback,
            self.answers.waits_for_earlier().then(|| now + EARLIER_CHECK),
        ];
        others.into_iter().flatten().fold(self.keepalive.deadline(), Instant::min)
    }

    /// Answers that wait for durability or for a backend.
    pub fn unacknowledged(&self) -> usize {
        self.answers.len()
    }

    /// CALLs that wait for a backend.
    pub fn delegated(&self) -> usize {
        self.answers.delegated_len()
    }

    /// Whether a command is outstanding or about to be sent.
    pub fn has_command(&self) -> bool {
        !self.exchange.is_idle() || self.preparing.is_some()
    }

    /// Messages from the station, and to it.
    pub fn messages(&self) -> (u64, u64) {
        (self.messages_in, self.messages_out)
    }

    /// When the oldest answer that is held was asked for, if that can end the session.
    fn held_since(&self, host: &H) -> Option<Instant> {
        self.answers.oldest().filter(|_| !host.options().hold_limit.is_zero())
    }
}
