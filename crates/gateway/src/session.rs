//! The handle of a session: one connection of a station, as everybody but its own task sees it.
//!
//! Owns what can be asked of a session from outside: who it is, how it is doing, an inbox for commands and the request to
//! end. The socket and the rules belong to the session's task (`driver.rs`) and to nobody else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ocpp_commands::{Dispatch, dispatch};
use ocpp_protocol::{Identity, IdentityKey, Version};
use ocpp_station::delegated_calls::DelegatedCalls;
use ocpp_station::inbox::Inbox;
use ocpp_station::options::Validation;
use ocpp_station::{CloseReason, SessionId, Subject};
use tokio::sync::Notify;

use crate::settings::{ListenerTags, Settings};
use crate::socket::Deflate;

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
    /// The listener that it came to.
    pub listener: Arc<str>,
    /// What holds for it as it connects.
    pub settings: Arc<Settings>,
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
pub struct SessionHandle {
    /// Its number.
    pub id: SessionId,
    /// What the station proved.
    pub admission: Admission,
    /// When it was admitted, on the monotonic clock.
    pub started: Instant,
    /// When it was admitted, on the wall clock.
    pub connected_at: SystemTime,
    /// What holds for its station, as its task last looked.
    pub settings: ArcSwap<Settings>,
    /// Commands, and the request to end.
    pub inbox: Inbox<Dispatch>,
    /// CALLs that a backend is to answer.
    pub delegated_calls: DelegatedCalls,
    /// Counters.
    pub counters: Counters,
    /// Sessions of the same identity that this one waits for, one behind the other; 0 once it serves.
    predecessors: AtomicUsize,
    /// Commands that ended here and whose result is not on the bus yet.
    unpublished_results: AtomicUsize,
    /// Its station has booted or spoken: its offline queue may go.
    ready: AtomicBool,
    ending: AtomicBool,
    /// What holds for its station may have changed.
    settings_changed: AtomicBool,
    operator_note: OnceLock<String>,
    has_ended: AtomicBool,
    /// Wakes whoever waits for the end.
    end: Notify,
}

impl SessionHandle {
    /// A session that has just been admitted.
    pub fn new(id: SessionId, admission: Admission, command_queue: usize, predecessors: usize) -> Self {
        Self {
            id,
            started: Instant::now(),
            connected_at: SystemTime::now(),
            settings: ArcSwap::from(Arc::clone(&admission.settings)),
            admission,
            inbox: Inbox::new(command_queue),
            delegated_calls: DelegatedCalls::default(),
            counters: Counters::default(),
            predecessors: AtomicUsize::new(predecessors),
            unpublished_results: AtomicUsize::new(0),
            ready: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            settings_changed: AtomicBool::new(false),
            operator_note: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            end: Notify::new(),
        }
    }

    /// Asks it to end.
    pub fn end(&self, reason: CloseReason) {
        self.inbox.end(reason);
    }

    /// Asks it to end because an operator wants it, for a reason in the operator's words. The first reason counts.
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

    /// Asks it to look at what holds for its station now.
    pub fn refresh_settings(&self) {
        self.settings_changed.store(true, Ordering::Release);
        self.inbox.nudge();
    }

    /// Whether it was asked that since the last look.
    pub fn take_settings_changed(&self) -> bool {
        self.settings_changed.load(Ordering::Acquire) && self.settings_changed.swap(false, Ordering::AcqRel)
    }

    /// Its listener, as far as settings depend on it.
    pub fn listener_tags(&self) -> ListenerTags<'_> {
        ListenerTags { name: &self.admission.listener, tags: &self.admission.tags }
    }

    /// Says that its predecessors have ended.
    pub fn mark_serving(&self) {
        self.predecessors.store(0, Ordering::Release);
    }

    /// How many sessions would wait if another were admitted now.
    pub fn line(&self) -> usize {
        if self.has_ended() { 0 } else { self.predecessors.load(Ordering::Acquire) + 1 }
    }

    /// Notes that a command has ended here: until the guard is dropped the session's last event waits for its result, within
    /// limits.
    pub fn hold_for_result(self: &Arc<Self>) -> ResultGuard {
        self.unpublished_results.fetch_add(1, Ordering::AcqRel);
        ResultGuard(Arc::clone(self))
    }

    /// Whether the result of a command that ended here is not on the bus yet.
    pub fn has_unpublished_results(&self) -> bool {
        self.unpublished_results.load(Ordering::Acquire) > 0
    }

    /// Who it is, for events.
    pub fn subject(&self) -> Subject<'_> {
        Subject { session: self.id, identity: &self.admission.identity, version: self.admission.version }
    }

    /// The station, whatever its spelling.
    pub fn key(&self) -> IdentityKey {
        self.admission.identity.folded()
    }

    /// Says whether the offline queue of its station may go: it has booted or spoken on this connection, and is accepted.
    pub fn mark_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// See [`SessionHandle::mark_ready`].
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says that its connection is ending: it keeps its place only until its last event is on the bus.
    pub fn mark_ending(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Whether the station is connected by this session.
    pub fn is_connected(&self) -> bool {
        !self.ending.load(Ordering::Acquire)
    }

    /// Says that its last event is on the bus: a successor may speak.
    pub fn mark_ended(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    /// Whether its last event is on the bus.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }

    /// Waits until its last event is on the bus.
    pub async fn ended(&self) {
        let end = self.end.notified();
        // In line since its creation, so the end cannot come between this look and the wait.
        if !self.has_ended() {
            end.await;
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

impl dispatch::Session for SessionHandle {
    fn subject(&self) -> Subject<'_> {
        self.subject()
    }

    fn validation(&self) -> Validation {
        self.settings.load().session.validation
    }

    fn inbox(&self) -> &Inbox<Dispatch> {
        &self.inbox
    }

    fn is_ready(&self) -> bool {
        self.is_ready()
    }
}

#[cfg(test)]
impl SessionHandle {
    /// A session of CP-1, for tests of what holds one.
    pub(crate) fn of_test(id: SessionId, predecessors: usize) -> Self {
        let session = crate::settings::test_support::session_options();
        let admission = Admission {
            identity: Identity::parse("CP-1").unwrap(),
            version: Version::V16,
            subprotocol: Some("ocpp1.6"),
            security_profile: 0,
            remote: ([127, 0, 0, 1], 1).into(),
            deflate: None,
            listener: "main".into(),
            settings: Arc::new(Settings { session, subprotocols: Vec::new(), fallback: Default::default() }),
            tags: Arc::default(),
        };
        Self::new(id, admission, 1, predecessors)
    }
}

/// A command's result that is not on the bus yet.
#[derive(Debug)]
pub struct ResultGuard(Arc<SessionHandle>);

impl Drop for ResultGuard {
    fn drop(&mut self) {
        if self.0.unpublished_results.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.inbox.nudge();
        }
    }
}

/// Marks a session as ended when its task ends in any way, so that a successor never waits for a task that is gone.
#[derive(Debug)]
pub struct EndOnDrop(pub Arc<SessionHandle>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.inbox.close();
        self.0.delegated_calls.close();
        self.0.mark_ended();
    }
}
