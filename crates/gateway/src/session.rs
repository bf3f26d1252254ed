//! A session: one connection of a station, as everybody but its own task sees it.
//!
//! Owns what can be asked of a session from outside: who it is, how it is doing, a place for commands and the wish that
//! it ends. The socket itself belongs to the session's task (`session/actor.rs`) and to nobody else.

pub mod actor;
mod awaiting;
pub mod close;
mod ending;
mod inbound;
mod keepalive;
pub mod mailbox;
pub mod metrics;
mod outbound;
pub mod outbox;
pub(crate) mod pending;
mod publishing;
pub mod shared;
pub mod waits;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ocpp_protocol::{Identity, IdentityKey, Version};
use tokio::sync::Notify;
use uuid::Uuid;

use self::close::CloseReason;
use self::mailbox::Mailbox;
use self::waits::Waits;
use crate::socket::Deflate;

/// A session's number. A UUIDv7 from a clock that never steps back within a process: a later session of a station has
/// the greater number, which is what fences presence (P5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The next number.
    pub fn next() -> Self {
        Self(Uuid::now_v7())
    }

    /// The number that an event or a backend spells.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }

    /// Room for its spelling.
    pub fn buffer() -> [u8; 36] {
        [0; 36]
    }

    /// Its spelling, without an allocation.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// A number that differs between sessions that began together.
    pub fn spread(self) -> u64 {
        self.0.as_u64_pair().1
    }
}

impl std::fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a station proved about itself at the handshake.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Its identity, in the registered spelling.
    pub identity: Identity,
    /// The OCPP version agreed on.
    pub version: Version,
    /// The subprotocol answered; none when a lenient listener assumed 1.6.
    pub subprotocol: Option<&'static str>,
    /// OCPP security profile: 0 none, 1 Basic over a plain connection.
    pub security_profile: u8,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// The compression agreed on.
    pub deflate: Option<Deflate>,
    /// Binary messages with text in them are taken as text.
    pub lenient: bool,
    /// Groups that its listener puts it into.
    pub tags: Arc<BTreeSet<String>>,
}

/// A session's counters, written by its task and read by whoever asks.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages from the station.
    pub messages_in: AtomicU64,
    /// Messages to the station.
    pub messages_out: AtomicU64,
    /// Milliseconds from the session's start to the last inbound frame.
    pub last_seen_ms: AtomicU64,
    /// Messages that wait for durability or for the socket.
    pub unacknowledged: AtomicU64,
    /// Whether a command is outstanding.
    pub command_outstanding: AtomicBool,
}

/// The handle of a session.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// What the station proved.
    pub admission: Admission,
    /// When it was admitted, on the monotonic clock.
    pub started: Instant,
    /// When it was admitted, on the wall clock.
    pub connected_at: SystemTime,
    /// Commands and the wish to end.
    pub mailbox: Mailbox,
    /// CALLs that a backend is to answer.
    pub waits: Waits,
    /// Counters.
    pub counters: Counters,
    /// Sessions of the same identity that this one waits for, one behind the other; 0 once it serves.
    predecessors: AtomicUsize,
    /// Commands that ended here and whose result is not on the bus yet.
    untold: AtomicUsize,
    /// Its station has booted or spoken: what was kept for it may go.
    ready: AtomicBool,
    ending: AtomicBool,
    operator_note: OnceLock<String>,
    over: AtomicBool,
    /// Wakes whoever waits for the end.
    ended: Notify,
}

impl Session {
    /// A session that has just been admitted.
    pub fn new(id: SessionId, admission: Admission, command_queue: usize, predecessors: usize) -> Self {
        Self {
            id,
            admission,
            started: Instant::now(),
            connected_at: SystemTime::now(),
            mailbox: Mailbox::new(command_queue),
            waits: Waits::default(),
            counters: Counters::default(),
            predecessors: AtomicUsize::new(predecessors),
            untold: AtomicUsize::new(0),
            ready: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            operator_note: OnceLock::new(),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    /// Asks it to end.
    pub fn end(&self, reason: CloseReason) {
        self.mailbox.end(reason);
    }

    /// Asks it to end because an operator wants it, for a reason in the operator's words. The first wish counts.
    pub fn end_for_operator(&self, note: Option<String>) {
        if let Some(note) = note {
            self.operator_note.get_or_init(|| note);
        }
        self.end(CloseReason::Operator);
    }

    /// Why an operator asked it to end.
    pub fn operator_note(&self) -> Option<&str> {
        self.operator_note.get().map(String::as_str)
    }

    /// Says that its predecessors have ended.
    pub fn mark_serving(&self) {
        self.predecessors.store(0, Ordering::Release);
    }

    /// How many sessions would wait if another were admitted now.
    pub fn line(&self) -> usize {
        if self.is_over() { 0 } else { self.predecessors.load(Ordering::Acquire) + 1 }
    }

    /// Notes that a command has ended here: until the guard is dropped the session's last event waits for its result, within
    /// limits.
    pub fn untold(self: &Arc<Self>) -> Untold {
        self.untold.fetch_add(1, Ordering::AcqRel);
        Untold(Arc::clone(self))
    }

    /// Whether the result of a command that ended here is not on the bus yet.
    pub fn has_untold(&self) -> bool {
        self.untold.load(Ordering::Acquire) > 0
    }

    /// The station, whatever its spelling.
    pub fn key(&self) -> IdentityKey {
        self.admission.identity.folded()
    }

    /// Says whether what is kept for its station may go: it has booted or spoken on this connection, and is accepted.
    pub fn mark_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// See [`Session::mark_ready`].
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says that its connection is over, or as good as: it keeps its place only until its last event is on the bus.
    pub fn mark_ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the station is connected by this session.
    pub fn is_connected(&self) -> bool {
        !self.ending.load(Ordering::Acquire)
    }

    /// Says that its last event is on the bus: a successor may speak.
    pub fn mark_over(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    /// Whether its last event is on the bus.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits until its last event is on the bus.
    pub async fn over(&self) {
        let ended = self.ended.notified();
        // In line since its creation, so the end cannot come between this look and the wait.
        if !self.is_over() {
            ended.await;
        }
    }

    /// Writes a log line about it. A span that each session keeps would cost half a kilobyte, and some work at every turn of its
    /// loop; what is to be logged is rare.
    pub(crate) fn log(&self, line: impl FnOnce()) {
        let (station, version) = (&self.admission.identity, self.admission.version.as_str());
        tracing::info_span!("session", %station, session = %self.id, version).in_scope(line);
    }

    /// Time since the last inbound frame.
    pub fn silence(&self) -> Duration {
        let last_seen = Duration::from_millis(self.counters.last_seen_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last_seen)
    }
}

/// A command's result that is not on the bus yet.
#[derive(Debug)]
pub struct Untold(Arc<Session>);

impl Drop for Untold {
    fn drop(&mut self) {
        if self.0.untold.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.mailbox.nudge();
        }
    }
}

/// Marks a session as over when its task ends in any way, so that a successor never waits for a task that is gone.
#[derive(Debug)]
pub struct OverGuard(pub Arc<Session>);

impl Drop for OverGuard {
    fn drop(&mut self) {
        self.0.mailbox.shut();
        self.0.waits.shut();
        self.0.mark_over();
    }
}
