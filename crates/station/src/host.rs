//! The port through which a session asks the world for what it must not know: where events go, what others have decided
//! about its station, who else may answer, and who follows its commands.
//!
//! One driver implements it for sockets and buses, the tests another for tables. No method waits: what takes time comes
//! back as an input of [`crate::Session`].

use ocpp_protocol::{Action, BootState, IdentityKey, Registration, StartKey, Version, refusal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::{Duration, Instant, SystemTime};

use crate::close::CloseReason;
use crate::delegated_calls::{CallRef, DelegatedCalls};
use crate::events::{Message, Subject};
use crate::inbox::Inbox;
use crate::observation::Observation;
use crate::options::Options;
use crate::outbound_call::OutboundCall;
use crate::outcome::{Outcome, Status};
use crate::recent_calls::{DurablePoint, RecentCalls};
use crate::record::StationModel;
use crate::time::Now;
use crate::trace::TraceParent;

/// What a session asks of the world.
pub trait Host {
    /// The place of a station's CALL in a trace; ended by being dropped.
    type Trace: Trace;
    /// What travels with a command for whoever dispatched it.
    type Dispatch;
    /// What an answer waits for, for whoever outlives the session.
    type Point: DurablePoint;

    /// Who the session is.
    fn subject(&self) -> Subject<'_>;
    /// The station, whatever its spelling.
    fn station(&self) -> &IdentityKey;
    /// The rules it keeps.
    fn options(&self) -> &Options;

    /// Takes an event, in order, behind everything published before. Never refuses: what the bus has no room for waits
    /// with the host, and [`Host::backlog`] says so.
    fn publish(&mut self, event: Event<'_>);
    /// The place of the last event and of the last state change in their own orders.
    fn position(&self) -> Position;
    /// The same for whoever outlives the session.
    fn point(&self) -> Self::Point;
    /// Whether what was published waits, and for what.
    fn backlog(&self) -> Backlog;
    /// Storage has not acknowledged for so long that stations are better off offline.
    fn holds_too_long(&self) -> bool;
    /// Whether the bus is so full that messages of this action are shed, as the operator allows.
    fn sheds(&self, action: &'static str) -> bool;

    /// Takes what the station says it is. It is written down with its registration, which follows.
    fn introduce(&mut self, model: StationModel);
    /// Registers the station and gives the registration; the state change is published before this returns.
    fn register(&mut self, by: RegisteredBy) -> Registration;
    /// The transaction id for a 1.6 StartTransaction, the same for a retry; published before this returns.
    fn start_transaction(&mut self, now: Now, start: &StartKey) -> i32;
    /// What the station has asked lately, on any connection.
    fn recent_calls(&self) -> &RecentCalls<Self::Point>;

    /// How a backend answers this action; none if the gateway does.
    fn delegation(&self, action: &'static Action) -> Option<Delegation>;
    /// The CALLs of this session that a backend is to answer.
    fn delegated_calls(&self) -> &DelegatedCalls;
    /// Asks a backend about a CALL whose event has been published. Its response comes through
    /// [`Host::delegated_calls`].
    fn delegate(&mut self, call: &DelegatedCall<'_>);

    /// Commands for the station.
    fn inbox(&self) -> &Inbox<Self::Dispatch>;
    /// Notes, durably, that a command is about to be sent; [`crate::Session::on_prepared`] follows. False if the command
    /// has ended elsewhere and must not be sent.
    fn prepare(&mut self, call: &OutboundCall<Self::Dispatch>) -> bool;
    /// Takes a command back that the station may not be sent in its boot state, to send it later.
    ///
    /// # Errors
    /// Gives it back if it is not one that waits for later.
    // The command comes back whole so that it can be ended; boxing it would cost every command.
    #[allow(clippy::result_large_err)]
    fn defer(&mut self, call: OutboundCall<Self::Dispatch>) -> Result<(), OutboundCall<Self::Dispatch>>;
    /// Takes back the commands that were not sent when the session ended, which is their end unless there is another way
    /// to the station.
    fn hand_back(&mut self, calls: Vec<OutboundCall<Self::Dispatch>>, status: Status);
    /// A command has ended here. Its result is told behind every event published so far.
    fn finished(&mut self, call: OutboundCall<Self::Dispatch>, outcome: Outcome);
    /// Results of commands that ended here are not on the bus yet.
    fn has_unpublished_results(&self) -> bool;
    /// Whether commands queued for the station may come: it has booted or spoken on this connection, and is accepted.
    fn station_ready(&mut self, is_ready: bool);
    /// A fresh message id for a CALL to the station.
    fn message_id(&mut self) -> String;

    /// Begins the trace of a station's CALL.
    fn trace_call(&mut self, now: Now, action: &'static str, message_id: &str) -> Self::Trace;
    /// Begins the trace of the CALL that carries a command, which ends with [`Host::finished`]. Gives what its event
    /// says, and that of its answer.
    fn trace_command(
        &mut self,
        now: Now,
        call: &mut OutboundCall<Self::Dispatch>,
        message_id: &str,
    ) -> Option<TraceParent>;
    /// Counts, and logs where a person wants to know.
    fn observe(&mut self, what: Observation<'_>);
}

/// The place of a CALL in a trace, perhaps an unrecorded one.
pub trait Trace: Default {
    /// What `traceparent` is for whatever comes of it.
    fn context(&self) -> Option<TraceParent>;
    /// Notes how the CALL ended: `answered`, or the error code.
    fn ended(&mut self, outcome: &'static str);
}

/// Where a publisher is: the numbers of its last event and of its last state change.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Position {
    /// Events count from 1.
    pub events: u64,
    /// So do state changes, in an order of their own.
    pub states: u64,
}

/// What waits of what was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backlog {
    /// The bus has taken everything, and little enough of it is unacknowledged.
    None,
    /// The bus has taken everything, but the session's share of it is used up until some is durable.
    Unacknowledged,
    /// The bus has no room: something waits to be published.
    Unpublished,
}

/// What a session tells the bus.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The station is connected by this session.
    Connected,
    /// A message from the station, and when its frame was read.
    Received(SystemTime, &'a Message<'a>),
    /// A message to the station, and when it was handed to the socket's writer.
    Sent(SystemTime, &'a Message<'a>),
    /// The session has ended; nothing follows.
    Disconnected(Disconnected),
}

/// How a session ended, as far as it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnected {
    /// When.
    pub at: SystemTime,
    /// Why.
    pub reason: CloseReason,
    /// The code of the station's close frame, or of ours.
    pub close_code: Option<u16>,
    /// Messages from the station.
    pub messages_in: u64,
    /// Messages to the station.
    pub messages_out: u64,
}

/// How an action is answered that a backend answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delegation {
    /// How long a backend may take.
    pub deadline: Duration,
    /// What the station gets then.
    pub fallback: Fallback,
    /// The status of [`Fallback::Reject`]; none for the usual one.
    pub status: Option<&'static str>,
}

impl Delegation {
    /// The status that refuses a request that no backend answered; none if it is not refused.
    pub fn refusal(
        &self,
        version: Version,
        action: &'static Action,
        request: &RawValue,
    ) -> Option<&'static str> {
        let is_refused = self.fallback != Fallback::Builtin;
        is_refused.then(|| refusal(version, action, request, self.status)).flatten()
    }

    /// Who registers a station whose BootNotification no backend answered. If it is refused without a status of the
    /// operator's choice, the station keeps what a backend said last: an outage of the backend does not take a station out
    /// of service, nor a new one into it.
    pub fn registers(&self, state: BootState) -> RegisteredBy {
        if self.fallback == Fallback::Builtin {
            return RegisteredBy::Operator;
        }
        let chosen = self.status.and_then(Registration::parse);
        RegisteredBy::Fallback(chosen.or_else(|| state.registration()).unwrap_or(Registration::Pending))
    }
}

/// Who says how a station is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegisteredBy {
    /// A backend did.
    Backend(Registration),
    /// The operator, or else the configured default.
    Operator,
    /// The operator, or else this, because no backend answered.
    Fallback(Registration),
}

/// What a station gets when no backend answered in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// a refusal where the answer decides something, and the built-in answer where it only acknowledges (StopTransaction,
    /// MeterValues, a TransactionEvent without a token or of type `Ended`, …)
    Reject,
    /// the built-in answer, which accepts every token unless `answers.authorization` says otherwise
    Builtin,
    /// CALLERROR `InternalError`; stations retry transaction messages a few times and then discard them
    Error,
    /// nothing, as if the answer were lost
    Silence,
}

/// A CALL that a backend is asked about.
#[derive(Clone, Copy, Debug)]
pub struct DelegatedCall<'a> {
    /// How the response names it.
    pub name: &'a CallRef,
    /// What the station speaks.
    pub version: Version,
    /// The message id as a JSON string literal.
    pub id_json: &'a str,
    /// The action.
    pub action: &'static Action,
    /// The payload, byte for byte.
    pub payload: &'a RawValue,
    /// When the fallback applies, on either clock.
    pub until: (Instant, SystemTime),
}
