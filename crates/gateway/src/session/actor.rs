//! A session's task: the only owner of the socket, and the loop that everything about one station goes through.
//!
//! One bullet for each thing the loop waits for:
//! * backends: their answers to what the station asked;
//! * the mailbox: a command to send, or the wish that the session ends;
//! * the note that a command leaves: it leaves when that is durable;
//! * the socket: what the station sent, and that what was written has left;
//! * durability: held answers and outcomes may go;
//! * room on the bus: while events wait for it nothing is read, so TCP carries the pressure to the station (P2);
//! * the timer: ping, idle, slow reader, command timeout, the end of the ending.
//!
//! Nothing here waits for anything else: a full bus does not delay a ping, a slow station does not delay its outcomes.
//!
//! The end: the session leaves the registry, its commands fail, its last event is queued, the close frame goes out; the
//! task stays until the event is on the bus and every outcome was told. A successor waits for [`Session::mark_over`], so
//! a station's events are in order across sessions (P3).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::ready;
use std::time::{Duration, Instant};

use ocpp_bus::{DurableWatermark, Publisher, Record, RecordKind};
use ocpp_protocol::{BootState, Exchange, Grants, IdentityKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

use super::close::CloseReason;
use super::ending::Ending;
use super::keepalive::{Due, Keepalive};
use super::mailbox::Letter;
use super::outbox::Outbox;
use super::pending::{Held, Holding};
use super::shared::Shared;
use super::{OverGuard, Session};
use crate::command::{Departure, Outcome, PendingCommand, Report, Sent, Status};
use crate::events::millis;
use crate::kinds;
use crate::registry::Entry;
use crate::socket::{Socket, Turn};
use crate::spans::CallTrace;

/// Message ids of ended commands that a session remembers, to tell a late answer from an unknown one.
const REMEMBERED_IDS: usize = 16;

/// How often a repeated CALL looks whether its first event, published by an earlier session, is durable.
const EARLIER_CHECK: Duration = Duration::from_millis(50);

/// How far away the timer is set when nothing is due.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

/// A command that the station has and has not answered.
#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) command: PendingCommand,
    /// The CALL's own place in the command's trace.
    pub(super) trace: CallTrace,
    pub(super) sent_at: Instant,
}

/// A session's task without its socket.
pub(super) struct Actor {
    pub(super) session: Arc<Session>,
    pub(super) key: IdentityKey,
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Option<Entry>,
    pub(super) lane: Publisher,
    pub(super) states: Publisher,
    /// Records in order that the bus had no room for.
    pub(super) unpublished: VecDeque<Record>,
    /// Events and state changes so far, published or not: the ordinals of their lanes.
    pub(super) queued_events: u64,
    pub(super) queued_states: u64,
    pub(super) pending: Holding,
    /// Ends of commands, to be reported behind the records that wait.
    pub(super) reports: VecDeque<(oneshot::Sender<Report>, Report)>,
    pub(super) outbox: Outbox,
    pub(super) exchange: Exchange<Box<Outstanding>>,
    /// A command that leaves once it is noted that it does.
    pub(super) departing: Option<Box<Departure>>,
    pub(super) grants: Grants,
    pub(super) boot_state: BootState,
    /// BootNotifications whose answer is held.
    pub(super) boot_answers_held: usize,
    /// An answer has been handed to the socket.
    pub(super) call_answered: bool,
    pub(super) grace_until: Instant,
    pub(super) ending: Option<Ending>,
    keepalive: Keepalive,
    writing_since: Option<Instant>,
    was_reading: bool,
    pub(super) messages_in: u64,
    pub(super) messages_out: u64,
}

/// A connection that was admitted and has not spoken yet.
#[derive(Debug)]
pub struct Admitted {
    /// The session; marked as over when this is dropped.
    pub over: OverGuard,
    /// Its place in the registry.
    pub entry: Entry,
    /// The session it replaced, which has been asked to end.
    pub replaced: Option<Arc<Session>>,
}

/// Runs a session until its end. Without a socket, its connection broke between the verdict and the 101: it has both its
/// events all the same.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Option<Socket<S>>,
    admitted: Admitted,
    shared: Arc<Shared>,
) {
    let Admitted { over, entry, replaced } = admitted;
    let session = Arc::clone(&over.0);
    let version = session.admission.version;
    let is_compressed = session.admission.deflate.is_some();
    shared.metrics.session_opened(version, replaced.is_some(), is_compressed);
    let mut ended_early = socket.is_none().then_some(CloseReason::ConnectionLost);
    if let Some(replaced) = &replaced {
        let asked_to_end = wait_for_predecessor(&session, replaced).await;
        if asked_to_end.is_some() {
            // The socket must not stay open for as long as the bus is full; both events follow in order all the same.
            socket = None;
            replaced.over().await;
        }
        ended_early = asked_to_end.or(ended_early);
    }
    session.mark_serving();
    let replaced_id = replaced.map(|replaced| replaced.id);
    let mut actor = Actor::new(session, shared, entry);
    let (remote, is_replacing) = (actor.session.admission.remote, replaced_id.is_some());
    actor.session.log(|| tracing::info!(%remote, replaced = is_replacing, "station connected"));
    let connected = actor.shared.events.connected(&actor.session, replaced_id);
    actor.publish_event(connected);
    let admission = &actor.session.admission;
    if let Some(record) = actor.shared.stations.add_tags(&admission.identity, &admission.tags) {
        actor.publish_state(record);
    }
    if let Some(reason) = ended_early {
        actor.begin_end(reason, None);
    }
    let reason = actor.serve(&mut socket).await;
    actor.shared.metrics.session_closed(version, reason, is_compressed);
    if let Some(socket) = socket {
        socket.linger(Duration::from_secs(1)).await;
    }
}

/// Waits until the replaced session's last event is on the bus, or until this session is asked to end.
async fn wait_for_predecessor(session: &Session, replaced: &Session) -> Option<CloseReason> {
    loop {
        tokio::select! {
            biased;
            () = replaced.over() => return None,
            letter = session.mailbox.next(false) => match letter {
                Letter::End(reason) => return Some(reason),
                // Commands wait in the mailbox until the session serves.
                Letter::Arrived | Letter::Command(_) => {}
            },
        }
    }
}

impl Actor {
    fn new(session: Arc<Session>, shared: Arc<Shared>, entry: Entry) -> Self {
        let now = Instant::now();
        let seed = session.id.spread();
        let key = session.admission.identity.folded();
        Self {
            lane: shared.bus.publisher(),
            states: shared.journal.publisher(),
            unpublished: VecDeque::new(),
            queued_events: 0,
            queued_states: 0,
            pending: Holding::default(),
            reports: VecDeque::new(),
            outbox: Outbox::default(),
            exchange: Exchange::new(REMEMBERED_IDS),
            departing: None,
            grants: Grants::default(),
            boot_state: shared.stations.boot_state(&key),
            key,
            boot_answers_held: 0,
            call_answered: false,
            grace_until: now + shared.commands.grace,
            ending: None,
            keepalive: Keepalive::new(now, shared.limits.ping_interval, shared.limits.idle_timeout, seed),
            writing_since: None,
            was_reading: true,
            messages_in: 0,
            messages_out: 0,
            entry: Some(entry),
            session,
            shared,
        }
    }

    /// The loop. Gives the reason for the end; leaves the socket behind if a close frame in it should be lingered over.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Option<Socket<S>>,
    ) -> CloseReason {
        let session = Arc::clone(&self.session);
        let events_durable = self.lane.watermark();
        let states_durable = self.states.watermark();
        let mut armed = self.next_deadline();
        let mut timer = std::pin::pin!(tokio::time::sleep_until(armed.into()));
        loop {
            // Whatever is ready, other sessions have their turn, too.
            tokio::task::coop::consume_budget().await;
            self.publish_what_fits();
            self.release(events_durable.reached(), states_durable.reached());
            self.advance_ending(socket);
            if let Some(reason) = self.finished(socket.as_ref()) {
                return reason;
            }
            self.note_state(socket.as_ref());
            let read = self.may_read();
            let commands = self.wants_commands(Instant::now());
            let held = self.next_to_be_durable(&events_durable);
            let awaits = self.next_lapse().is_some();
            let waiting = self.unpublished.front().map(|record| (record.kind, record.cost()));
            let deadline = self.next_deadline();
            // An earlier deadline must be armed; a later one is found when the timer fires.
            if deadline < armed {
                armed = deadline;
                timer.as_mut().reset(armed.into());
            }
            // In this order: what the station sends has no end, and must not keep anything else from its turn.
            tokio::select! {
                biased;
                () = &mut timer => {
                    // What was waiting to be written when this was looked at last may have left since.
                    self.note_state(socket.as_ref());
                    self.on_timer(Instant::now());
                    armed = self.next_deadline();
                    timer.as_mut().reset(armed.into());
                }
                letter = session.mailbox.next(commands) => match letter {
                    Letter::End(reason) => self.begin_end(reason, None),
                    Letter::Command(command) => self.prepare_command(command),
                    Letter::Arrived => {}
                },
                () = noted(&mut self.departing) => self.send_command(),
                () = session.waits.news(), if awaits => self.on_backend(),
                () = both(&events_durable, &states_durable, held) => {}
                () = room(&mut self.lane, &mut self.states, waiting) => {}
                turn = turn(socket, &mut self.outbox, read) => self.on_turn(turn, socket),
            }
        }
    }

    fn on_turn<S: AsyncRead + AsyncWrite + Unpin>(&mut self, turn: Turn, socket: &mut Option<Socket<S>>) {
        let now = Instant::now();
        if self.session.admission.deflate.is_some()
            && let Some(socket) = socket
        {
            self.shared.metrics.compressed_traffic(socket.take_traffic());
        }
        match &turn {
            Turn::Flushed | Turn::Taken | Turn::Ended => {}
            _ => {
                self.keepalive.seen(now);
                self.session
                    .counters
                    .last_seen_ms
                    .store(millis(now - self.session.started), Ordering::Relaxed);
            }
        }
        match turn {
            Turn::Flushed => self.writing_since = None,
            Turn::Ping => self.shared.metrics.ping_received(),
            Turn::Taken => {}
            Turn::Pong(payload) => {
                if let Some(round_trip) = self.keepalive.pong(now, &payload) {
                    self.shared.metrics.ping_round_trip(round_trip);
                }
            }
            Turn::Text(text) if self.ending.is_none() => {
                self.messages_in += 1;
                self.on_text(&text);
            }
            Turn::Binary(bytes) if self.ending.is_none() => {
                self.messages_in += 1;
                self.on_binary(&bytes);
            }
            // What comes after our close frame was not read in time to be answered; the station keeps it.
            Turn::Text(_) | Turn::Binary(_) => {}
            Turn::Close(code) => self.begin_end(CloseReason::StationClosed, code),
            Turn::Broken(breach) => self.on_breach(breach),
            Turn::Ended => {
                *socket = None;
                self.begin_end(CloseReason::ConnectionLost, None);
            }
        }
    }

    fn on_timer(&mut self, now: Instant) {
        self.lapse_overdue(now);
        if self.ending.is_some() {
            return;
        }
        if let Some(outstanding) = self.exchange.on_timeout(now) {
            let outcome =
                Outcome::failed(Status::Timeout, "the station did not answer in time").after(Sent::Yes);
            self.finish_outstanding(*outstanding, outcome);
        }
        let departing = self.departing.take_if(|departure| departure.pending.send_by <= now);
        let overdue = departing.map(|departure| departure.pending);
        for pending in overdue.into_iter().chain(self.session.mailbox.take_expired(now)) {
            let outcome = pending.command.overdue();
            self.finish_command(pending, outcome);
        }
        if self.writing_since.is_some_and(|since| now >= since + self.shared.limits.write_timeout) {
            self.begin_end(CloseReason::SlowReader, None);
            return;
        }
        if self.held_since().is_some_and(|since| now >= since + self.shared.hold_limit)
            && self.shared.holds_too_long()
        {
            self.begin_end(CloseReason::BusHolding, None);
            return;
        }
        let reading = self.may_read();
        match self.keepalive.due(now, reading) {
            Due::Nothing => {}
            Due::Ping(payload) => self.outbox.ping(payload),
            Due::Idle => self.begin_end(CloseReason::Idle, None),
        }
    }

    /// When something is due that no event will announce.
    fn next_deadline(&self) -> Instant {
        if let Some(ending) = &self.ending {
            let due = if ending.announced { ending.deadline } else { Some(ending.give_up_at) };
            let due = due.unwrap_or_else(|| Instant::now() + NOTHING_DUE);
            return self.next_lapse().map_or(due, |lapse| due.min(lapse));
        }
        let mut deadline = self.keepalive.deadline();
        let queued = self.session.mailbox.next_deadline();
        let others = [
            self.exchange.deadline(),
            self.departing.as_ref().map(|departure| departure.pending.send_by),
            queued,
            queued.map(|_| self.grace_until).filter(|until| *until > Instant::now()),
            self.writing_since.map(|since| since + self.shared.limits.write_timeout),
            self.hold_check(),
            self.next_lapse(),
            self.pending.waits_for_earlier().then(|| Instant::now() + EARLIER_CHECK),
        ];
        for other in others.into_iter().flatten() {
            deadline = deadline.min(other);
        }
        deadline
    }

    /// When the oldest answer that is held was asked for.
    fn held_since(&self) -> Option<Instant> {
        let oldest = self.pending.front().map(|pending| match &pending.held {
            Held::Answer(answer) => answer.read_at,
            Held::Awaited(awaited) => awaited.read_at,
        });
        oldest.filter(|_| !self.shared.hold_limit.is_zero())
    }

    /// When to look whether an answer has been held for too long: at the limit, and then every second.
    fn hold_check(&self) -> Option<Instant> {
        let limit = self.held_since()? + self.shared.hold_limit;
        Some(limit.max(Instant::now() + Duration::from_secs(1)))
    }

    /// Whether to read: not while an event waits for room, nor while too much waits to be answered. At the end, only
    /// for the station's close frame.
    fn may_read(&self) -> bool {
        match &self.ending {
            Some(ending) => ending.announced,
            None => {
                self.unpublished.is_empty()
                    && self.pending.len() + self.outbox.answers() < self.shared.limits.max_unacknowledged
                    && !self.has_too_much_under_way()
            }
        }
    }

    fn note_state<S: AsyncRead + AsyncWrite + Unpin>(&mut self, socket: Option<&Socket<S>>) {
        let writing = !self.outbox.is_empty() || socket.is_some_and(Socket::is_writing);
        if !writing {
            self.writing_since = None;
        } else if self.writing_since.is_none() {
            self.writing_since = Some(Instant::now());
        }
        let reading = self.may_read();
        if self.was_reading && !reading && self.ending.is_none() {
            self.shared.metrics.read_paused();
        }
        self.was_reading = reading;
        self.note_counters();
    }

    pub(super) fn note_counters(&self) {
        let counters = &self.session.counters;
        counters.messages_in.store(self.messages_in, Ordering::Relaxed);
        counters.messages_out.store(self.messages_out, Ordering::Relaxed);
        counters.unacknowledged.store(self.pending.len() as u64, Ordering::Relaxed);
        let is_busy = !self.exchange.is_idle() || self.departing.is_some();
        counters.command_outstanding.store(is_busy, Ordering::Relaxed);
    }
}

async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Option<Socket<S>>,
    outbox: &mut Outbox,
    read: bool,
) -> Turn {
    match socket {
        Some(socket) => socket.turn(outbox, read).await,
        None => std::future::pending().await,
    }
}

/// Boxed, so that the sessions without a command do not have the room for it.
async fn noted(departing: &mut Option<Box<Departure>>) {
    match departing {
        Some(departure) => Box::pin(departure.noted()).await,
        None => std::future::pending().await,
    }
}

async fn both(events: &DurableWatermark, states: &DurableWatermark, held: Option<(u64, u64)>) {
    match held {
        Some((event, state)) => {
            poll_fn(|context| {
                ready!(events.poll_reached(context, event));
                states.poll_reached(context, state)
            })
            .await;
        }
        None => std::future::pending().await,
    }
}

/// Boxed, so that the sessions that need not wait do not have the room for it.
async fn room(lane: &mut Publisher, states: &mut Publisher, waiting: Option<(RecordKind, u32)>) {
    match waiting {
        Some((kinds::STATION_STATE, cost)) => Box::pin(states.reserve(cost)).await,
        Some((_, cost)) => Box::pin(lane.reserve(cost)).await,
        None => std::future::pending().await,
    }
}
