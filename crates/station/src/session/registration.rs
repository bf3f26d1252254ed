//! The station's registration as a session sees it (1.6 section 4.2; 2.x B01 to B03): which CALLs are served, which commands may be
//! sent, and that a station which is refused is asked to boot.
//!
//! Owns these decisions. Who registers a station, and what is remembered of that, is behind the host.

use std::time::{Duration, Instant};

use ocpp_protocol::{Action, BootState, Registration, Version, csms_may_send, is_accepted};
use serde_json::value::RawValue;

use super::Session;
use super::commands::{CommandName, Leaving};
use crate::host::{Backlog, Host, RegisteredBy};
use crate::observation::Observation;
use crate::options::BeforeBoot;
use crate::outcome::{Outcome, Status};
use crate::record::Standing;
use crate::time::Now;

/// How long the station may take to answer a request to boot (OCPP 2.1 Part 2, 3.2 suggests it).
const TRIGGER_TIMEOUT: Duration = Duration::from_secs(30);

/// Which commands a session takes now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// None: one is outstanding, or it is not the time.
    None,
    /// Those that may help a station which has not booted; others wait for its boot.
    BeforeBoot(Version),
    /// All.
    All,
}

impl Wanted {
    /// Whether a command with this action is taken.
    pub fn takes(self, action: &Action) -> bool {
        match self {
            Self::None => false,
            Self::BeforeBoot(version) => csms_may_send(version, BootState::Unregistered, action),
            Self::All => true,
        }
    }
}

impl<H: Host> Session<H> {
    /// Which commands may leave now. None while one is outstanding, or the answer to a BootNotification is held, or in the first
    /// instants of the connection (ocpp-j 4.2, pitfalls 2 and 3).
    pub fn wants_command(&self, now: Instant, host: &H) -> Wanted {
        let is_over_grace = now >= self.grace_until;
        if !self.may_call(host) || !(self.call_answered || is_over_grace) {
            return Wanted::None;
        }
        match self.command_state(host) {
            // It is given the time to boot by itself, or because it was asked to.
            BootState::Unregistered if is_over_grace => Wanted::BeforeBoot(host.subject().version),
            BootState::Unregistered => Wanted::None,
            BootState::Pending | BootState::Rejected | BootState::Accepted => Wanted::All,
        }
    }

    /// An operator has decided about the station. `standing` is its registration as it is now: it counts from here on, also
    /// where the station has not been told.
    pub fn on_decision(&mut self, standing: Standing, host: &mut H) {
        if self.ending.is_some() {
            return;
        }
        self.standing = standing;
        self.owes_trigger = true;
        if standing.counts != BootState::Pending {
            self.grants.clear();
        }
        if self.call_answered {
            host.station_ready(self.command_state(host) == BootState::Accepted);
        }
    }

    /// A BootNotification is being dealt with.
    pub(super) fn begin_boot(&mut self, host: &H) {
        // A boot begins a new life, and is not remembered itself.
        host.recent_calls().forget(host.station());
        self.boot_answers_held += 1;
        self.owes_trigger = false;
    }

    /// Registers the station.
    pub(super) fn register(&mut self, by: RegisteredBy, host: &mut H) {
        let registration = host.register(by);
        host.observe(Observation::Registered(registration));
        self.standing = Standing::of(registration.into());
        if registration != Registration::Pending {
            self.grants.clear();
        }
    }

    /// The boot state that decides which CALLs of the station are served.
    pub(super) fn station_state(&self, host: &H) -> BootState {
        match (self.standing.counts, host.options().before_boot) {
            (BootState::Unregistered, BeforeBoot::Accept) => BootState::Accepted,
            (state, _) => state,
        }
    }

    /// The boot state that decides which commands the station may be sent. What it was told limits what it carries out: a
    /// pending station neither starts nor stops charging, a rejected one does not answer.
    pub(super) fn command_state(&self, host: &H) -> BootState {
        match (self.standing.told, self.station_state(host)) {
            (BootState::Rejected, _) => BootState::Rejected,
            (BootState::Accepted, BootState::Accepted) => BootState::Accepted,
            (BootState::Unregistered, state @ (BootState::Unregistered | BootState::Accepted)) => state,
            _ => BootState::Pending,
        }
    }

    /// Whether the station is to be asked to boot: it was never told anything, and all it sends is refused; or an operator has
    /// decided otherwise than it was told. A station that was accepted or rejected must not be asked (1.6 errata 3.40; 2.x
    /// F06.FR.17, errata 2.3.1): it boots by itself, or is reset.
    pub(super) fn wants_boot(&self, host: &H) -> bool {
        let Standing { told, counts } = self.standing;
        let is_due = match told {
            BootState::Accepted | BootState::Rejected => false,
            BootState::Pending => told != counts,
            BootState::Unregistered => told != counts || self.station_state(host) == told,
        };
        is_due && self.owes_trigger && host.options().trigger_boot
    }

    /// Asks the station to boot, if it is to be asked: once a connection, and once for each decision of an operator.
    pub(super) fn trigger_boot(&mut self, now: Now, host: &mut H) {
        const PAYLOAD: &str = r#"{"requestedMessage":"BootNotification"}"#;
        let is_time = self.call_answered || now.monotonic >= self.trigger_at;
        if !self.wants_boot(host) || !is_time || !self.may_call(host) {
            return;
        }
        let Some(action) = Action::find("TriggerMessage") else { return };
        let Ok(payload) = RawValue::from_string(PAYLOAD.to_owned()) else { return };
        self.owes_trigger = false;
        let leaving = Leaving {
            id: host.message_id(),
            name: CommandName { id: None, action, traceparent: None },
            payload: &payload,
            answer_by: now.monotonic + TRIGGER_TIMEOUT,
        };
        self.send_call(now, leaving, None, host);
    }

    /// The request to boot has ended like this.
    pub(super) fn end_trigger(&mut self, now: Now, outcome: &Outcome, host: &mut H) {
        let word = match outcome.status {
            Status::Answered if outcome.payload.as_deref().is_some_and(is_accepted) => "accepted",
            Status::Answered | Status::Error => "refused",
            Status::Timeout => "timeout",
            _ => "abandoned",
        };
        host.observe(Observation::BootTriggered(word));
        // The boot comes before any command that might not suit a station which is about to boot.
        self.grace_until = now.monotonic + host.options().grace;
    }

    /// Whether a CALL may leave, as far as the rest of the session is concerned.
    fn may_call(&self, host: &H) -> bool {
        self.ending.is_none()
            && !self.has_command()
            && host.backlog() != Backlog::Unpublished
            && self.boot_answers_held == 0
    }
}

/// What a station is told whose CALL is refused in this state.
pub(super) fn refusal_text(state: BootState) -> &'static str {
    match state {
        BootState::Pending => {
            "the station's registration is pending: it may send BootNotification and what it is asked for, once"
        }
        BootState::Rejected => {
            "the station is rejected: it may send only BootNotification, after the interval it was given"
        }
        BootState::Unregistered | BootState::Accepted => {
            "the station is not registered: BootNotification comes first"
        }
    }
}
