//! The driver of a session: one task, one socket. It turns readiness into inputs of the state machine
//! (`ocpp_station::Session`) and carries out what that asks for.
//!
//! The task is the only owner of the socket, its only reader and its only writer (P4). One bullet for each thing it waits
//! for:
//!
//! * the timer: ping, idle, slow reader, command timeout, the end of the ending;
//! * the inbox: a command to send, an operator's decision, or the request to end;
//! * the note that a command leaves: it leaves when that is durable;
//! * backends: their responses to what the station asked;
//! * durability: held answers and results may go;
//! * room on the bus: while events wait for it nothing is read, so TCP carries the pressure to the station (P2);
//! * the socket: what the station sent, and that what was written has left.
//!
//! Nothing here waits for anything else: a full bus does not delay a ping, a slow station does not delay its results.
//!
//! The end: when the session is over, its last event is on the bus; only then does the registry's entry go and may a
//! successor speak, so a station's events are in order across sessions (P3).

mod call_span;
mod counting;
mod host;
pub mod metrics;
pub mod options;
pub mod shared;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::ready;
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::{DurableWatermark, Publisher, Record, RecordKind};
use ocpp_commands::{Dispatch, PreparedNote};
use ocpp_station::events::EncodedEvent;
use ocpp_station::host::{Host, Position};
use ocpp_station::inbox::Signal;
use ocpp_station::time::millis;
use ocpp_station::{CloseReason, Link, Now, Session, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};

use self::host::SocketHost;
use self::shared::Shared;
use crate::kinds;
use crate::registry::Entry;
use crate::session::{EndOnDrop, SessionHandle};
use crate::socket::{DecodeError, Socket, Turn};

/// How long a session that is to end before it has begun keeps its socket, to send its close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection that was admitted and has not spoken yet.
#[derive(Debug)]
pub struct Admitted {
    /// The session; marked as ended when this is dropped.
    pub session: EndOnDrop,
    /// Its place in the registry.
    pub entry: Entry,
    /// The session it replaced, which has been asked to end.
    pub replaced: Option<Arc<SessionHandle>>,
}

/// Runs a session until its end. Without a socket, its connection broke between the decision and the 101: it has both its
/// events all the same.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: Option<Socket<S>>,
    admitted: Admitted,
    shared: Arc<Shared>,
) {
    let Admitted { session: guard, entry, replaced } = admitted;
    let session = Arc::clone(&guard.0);
    let version = session.admission.version;
    let is_compressed = session.admission.deflate.is_some();
    shared.metrics.session_opened(version, replaced.is_some(), is_compressed);
    let mut ended_early = socket.is_none().then_some(CloseReason::ConnectionLost);
    let (remote, is_replacing) = (session.admission.remote, replaced.is_some());
    // Boxed, or every session had the room for its beginning until its end.
    let (host, asked_to_end) = Box::pin(begin(&session, shared, replaced, &mut socket)).await;
    ended_early = asked_to_end.or(ended_early);
    session.mark_serving();
    session.log(|| tracing::info!(%remote, replaced = is_replacing, "station connected"));
    let mut driver = Driver::start(host, entry);
    if let Some(reason) = ended_early {
        driver.core.on_end(now(), reason, &mut driver.host);
    }
    let reason = driver.serve(&mut socket).await;
    driver.host.note_end();
    driver.host.shared.metrics.session_closed(version, reason, is_compressed);
    if let Some(socket) = socket {
        socket.linger(Duration::from_secs(1)).await;
    }
}

/// Waits until a session's first event may be published. Gives why it is to end, if it was asked to meanwhile.
async fn begin<S>(
    session: &Arc<SessionHandle>,
    shared: Arc<Shared>,
    replaced: Option<Arc<SessionHandle>>,
    socket: &mut Option<Socket<S>>,
) -> (SocketHost, Option<CloseReason>) {
    let host = SocketHost::new(Arc::clone(session), shared, replaced.as_ref().map(|replaced| replaced.id));
    let asked_to_end = {
        let mut may_begin = std::pin::pin!(may_begin(&host, replaced));
        let asked_to_end = asked_to_end_before(session, may_begin.as_mut()).await;
        // The close frame says why; but the socket must not stay open for as long as storage is slow.
        if asked_to_end.is_some() && tokio::time::timeout(FAREWELL, may_begin.as_mut()).await.is_err() {
            *socket = None;
            may_begin.await;
        }
        asked_to_end
    };
    (host, asked_to_end)
}

/// Waits until a session is noted in the journal, and the replaced session's last event is on the bus.
async fn may_begin(host: &SocketHost, replaced: Option<Arc<SessionHandle>>) {
    // Noted first: of many that replace one another, each would wait for the disk when its turn comes.
    host.note_beginning().await;
    if let Some(replaced) = replaced {
        replaced.ended().await;
    }
}

/// Waits for the other future, or until this session is asked to end.
async fn asked_to_end_before(
    session: &SessionHandle,
    mut other: impl Future<Output = ()> + Unpin,
) -> Option<CloseReason> {
    loop {
        tokio::select! {
            biased;
            () = &mut other => return None,
            signal = next_signal(session, Wanted::None) => match signal {
                Signal::End(reason) => return Some(reason),
                // Commands wait in the inbox until the session serves.
                Signal::Changed | Signal::Decided | Signal::Command(_) => {}
            },
        }
    }
}

async fn next_signal(session: &SessionHandle, wanted: Wanted) -> Signal<Dispatch> {
    poll_fn(|context| session.inbox.poll_next(context, |action| wanted.takes(action))).await
}

/// An event as a record of this kind.
pub(crate) fn record(kind: RecordKind, event: EncodedEvent) -> Record {
    Record { kind, time_ms: event.time_ms, key: event.key, value: event.json.into() }
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: SystemTime::now() }
}

struct Driver {
    core: Session<SocketHost>,
    host: SocketHost,
    /// Given up when the session's last event is on the bus.
    entry: Option<Entry>,
}

impl Driver {
    fn start(mut host: SocketHost, entry: Entry) -> Self {
        let seed = host.session.id.spread();
        let standing = host.shared.stations.standing(host.station());
        let core = Session::start(now(), standing, seed, &mut host);
        Self { core, host, entry: Some(entry) }
    }

    /// The loop. Gives the reason for the end; leaves the socket behind if a close frame in it should be lingered over.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Option<Socket<S>>,
    ) -> CloseReason {
        let session = Arc::clone(&self.host.session);
        let (events_durable, states_durable) = self.host.watermarks();
        let mut armed = self.core.deadline(Instant::now(), &self.host);
        let mut timer = std::pin::pin!(tokio::time::sleep_until(armed.into()));
        loop {
            // Whatever is ready, other sessions have their turn, too.
            tokio::task::coop::consume_budget().await;
            self.host.publish_what_fits();
            let durable = Position { events: events_durable.reached(), states: states_durable.reached() };
            let turn_began = now();
            if self.host.refresh_settings() {
                self.core.on_options(turn_began, &self.host);
            }
            if let Some(reason) = self.advance(turn_began, durable, socket) {
                return reason;
            }
            let (core, host) = (&mut self.core, &mut self.host);
            let moment = turn_began.monotonic;
            let wants_read = core.wants_read(host);
            let wanted = core.wants_command(moment, host);
            let awaited = core.awaited(durable, host);
            let has_delegated = core.delegated() > 0;
            let waiting = host.unpublished();
            let deadline = core.deadline(moment, host);
            // An earlier deadline must be armed; a later one is found when the timer fires.
            if deadline < armed {
                armed = deadline;
                timer.as_mut().reset(armed.into());
            }
            let SocketHost { publisher, states, note, .. } = host;
            // In this order: what the station sends has no end, and must not keep anything else from its turn.
            tokio::select! {
                biased;
                () = &mut timer => {
                    let now = now();
                    self.core.on_timeout(now, link(socket.as_ref()), &mut self.host);
                    armed = self.core.deadline(now.monotonic, &self.host);
                    timer.as_mut().reset(armed.into());
                }
                signal = next_signal(&session, wanted) => match signal {
                    Signal::End(reason) => self.core.on_end(now(), reason, &mut self.host),
                    Signal::Command(call) => self.core.on_command(now(), call, &mut self.host),
                    Signal::Decided => {
                        let standing = self.host.shared.stations.standing(self.host.station());
                        self.core.on_decision(standing, &mut self.host);
                    }
                    Signal::Changed => {}
                },
                () = noted(note) => {
                    self.host.note = None;
                    self.core.on_prepared(now(), &mut self.host);
                }
                () = poll_fn(|context| session.delegated_calls.poll_decided(context)), if has_delegated => {
                    self.core.on_decided(now(), &mut self.host);
                }
                () = both(&events_durable, &states_durable, awaited) => {}
                () = room(publisher, states, waiting) => {}
                turn = turn(socket, core, wants_read) => self.on_turn(turn, socket),
            }
        }
    }

    /// Lets the session go on, and shows others how it is doing. The reason when nothing is left to do.
    fn advance<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        now: Now,
        durable: Position,
        socket: &mut Option<Socket<S>>,
    ) -> Option<CloseReason> {
        let (core, host) = (&mut self.core, &mut self.host);
        if core.gives_up_link(now.monotonic) {
            *socket = None;
        }
        let link = link(socket.as_ref());
        core.advance(now, durable, link, host);
        if !core.is_preparing() {
            host.note = None;
        }
        host.show(core);
        if core.is_over(host) {
            host.session.mark_ended();
            self.entry = None;
        }
        core.ended(link, host)
    }

    fn on_turn<S: AsyncRead + AsyncWrite + Unpin>(&mut self, turn: Turn, socket: &mut Option<Socket<S>>) {
        let (core, host) = (&mut self.core, &mut self.host);
        if host.session.admission.deflate.is_some()
            && let Some(socket) = socket
        {
            host.shared.metrics.compressed_traffic(socket.take_traffic());
        }
        let now = now();
        if !matches!(turn, Turn::Flushed | Turn::Taken | Turn::Ended) {
            let since_start = millis(now.monotonic - host.session.started);
            host.session.counters.last_seen_ms.store(since_start, Ordering::Relaxed);
        }
        match turn {
            Turn::Flushed => core.on_flushed(),
            Turn::Taken => {}
            Turn::Ping => core.on_ping(now, host),
            Turn::Pong(payload) => core.on_pong(now, &payload, host),
            Turn::Text(text) => core.on_text(now, &text, host),
            Turn::Binary(bytes) => core.on_binary(now, &bytes, host),
            Turn::Close(code) => core.on_close(now, code, host),
            Turn::Broken(error) => {
                if let DecodeError::Protocol(violation) = error {
                    host.shared.metrics.protocol_violation(violation);
                }
                host.broken = Some(error);
                core.on_broken(now, close_reason(error), host);
            }
            Turn::Ended => {
                *socket = None;
                core.on_lost(now, host);
            }
        }
    }
}

fn close_reason(error: DecodeError) -> CloseReason {
    match error {
        DecodeError::TooBig => CloseReason::MessageTooBig,
        DecodeError::InvalidUtf8 => CloseReason::InvalidUtf8,
        DecodeError::Protocol(_) => CloseReason::ProtocolError,
    }
}

fn link<S: AsyncRead + AsyncWrite + Unpin>(socket: Option<&Socket<S>>) -> Link {
    Link {
        is_open: socket.is_some(),
        is_writing: socket.is_some_and(Socket::is_writing),
        is_read_over: socket.is_none_or(Socket::is_read_over),
    }
}

async fn turn<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Option<Socket<S>>,
    core: &mut Session<SocketHost>,
    wants_read: bool,
) -> Turn {
    match socket {
        Some(socket) => socket.turn(core, wants_read).await,
        None => std::future::pending().await,
    }
}

/// Boxed, so that the sessions without a command do not have the room for it.
async fn noted(note: &mut Option<Box<PreparedNote>>) {
    match note {
        Some(note) => Box::pin(note.durable()).await,
        None => std::future::pending().await,
    }
}

async fn both(events: &DurableWatermark, states: &DurableWatermark, awaited: Option<Position>) {
    match awaited {
        Some(awaited) => {
            poll_fn(|context| {
                ready!(events.poll_reached(context, awaited.events));
                states.poll_reached(context, awaited.states)
            })
            .await;
        }
        None => std::future::pending().await,
    }
}

/// Boxed, so that the sessions that need not wait do not have the room for it.
async fn room(publisher: &mut Publisher, states: &mut Publisher, waiting: Option<(RecordKind, u32)>) {
    match waiting {
        Some((kinds::STATION_STATE, cost)) => Box::pin(states.reserve(cost)).await,
        Some((_, cost)) => Box::pin(publisher.reserve(cost)).await,
        None => std::future::pending().await,
    }
}
