//! How a session ends: its commands fail, what is in flight is answered if it may be, the close frame and the last event
//! go out, and its place in the registry is given up when that event is on the bus.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};

use super::actor::Actor;
use super::close::CloseReason;
use crate::command::Status;
use crate::socket::{Breach, Socket};

/// How a session is ending.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    /// What the station said in its close frame, or what we say in ours.
    pub(super) code: Option<u16>,
    /// What is in flight may still be answered until then; answers that are held, or that the station does not take, must
    /// not keep it longer.
    pub(super) give_up_at: Instant,
    /// The close frame is queued and the last event is, too.
    pub(super) announced: bool,
    /// The socket is dropped at this moment, once the end is announced.
    pub(super) deadline: Option<Instant>,
}

impl Actor {
    /// Begins the end; the first reason counts. `code` is what the station's close frame said.
    pub(super) fn begin_end(&mut self, reason: CloseReason, code: Option<u16>) {
        if self.ending.is_some() {
            return;
        }
        self.session.mark_ending();
        self.ending = Some(Ending {
            reason,
            code: code.or_else(|| reason.code()),
            announced: false,
            give_up_at: Instant::now() + self.shared.limits.close_timeout,
            deadline: None,
        });
        self.give_up_commands(if reason == CloseReason::Replaced {
            Status::Replaced
        } else {
            Status::Offline
        });
        if reason != CloseReason::Shutdown {
            // The station asks again on its next connection; nobody is left to hear these.
            self.stop_awaiting();
            self.pending.clear();
            self.outbox.clear();
        }
    }

    /// The station broke a rule of the WebSocket, and nothing more can be read from it.
    pub(super) fn on_breach(&mut self, breach: Breach) {
        if let Breach::Protocol(violation) = breach {
            self.shared.metrics.protocol_violation(violation);
        }
        self.session.log(|| tracing::debug!(%breach, "the station broke a rule of the WebSocket"));
        self.begin_end(breach.into(), None);
    }

    /// Queues the close frame and the last event, when what is in flight has been answered.
    pub(super) fn advance_ending<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut Option<Socket<S>>,
    ) {
        let Some(ending) = &mut self.ending else { return };
        let answers_in_flight = !self.pending.is_empty() || self.outbox.answers() > 0;
        if ending.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            ending.deadline = None;
            *socket = None;
        }
        let is_patient = Instant::now() < ending.give_up_at;
        let waits = (answers_in_flight && socket.is_some()) || self.session.has_untold();
        if ending.announced || (waits && is_patient) {
            return;
        }
        ending.announced = true;
        ending.deadline = Some(Instant::now() + self.shared.limits.close_timeout);
        let (reason, code) = (ending.reason, ending.code);
        // Nobody is left to hear what was not sent by now.
        self.stop_awaiting();
        self.pending.clear();
        if let Some(own) = reason.code() {
            self.outbox.close(own, reason.text());
        }
        self.note_counters();
        let counts = (self.messages_in, self.messages_out);
        let record = self.shared.events.disconnected(&self.session, reason, code, counts);
        self.publish_event(record);
        let seconds = self.session.started.elapsed().as_secs();
        let (reason, messages_in, messages_out) = (reason.as_str(), counts.0, counts.1);
        self.session
            .log(|| tracing::info!(reason, code, messages_in, messages_out, seconds, "station disconnected"));
        self.publish_what_fits();
    }

    /// The reason, when nothing is left to do.
    pub(super) fn finished<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: Option<&Socket<S>>,
    ) -> Option<CloseReason> {
        let ending = self.ending.as_ref().filter(|ending| ending.announced)?;
        if !self.unpublished.is_empty() {
            return None;
        }
        // Only now may a successor find the place empty: everything that this session had to say is on the bus.
        self.session.mark_over();
        self.entry = None;
        let socket_done = socket
            .is_none_or(|socket| socket.is_read_over() && self.outbox.is_empty() && !socket.is_writing());
        (socket_done && self.pending.is_empty()).then_some(ending.reason)
    }
}
