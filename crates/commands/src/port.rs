//! What commands need of the rest of the gateway: how stations are spelled and tagged, and spans. Each is a small trait,
//! implemented where the thing itself lives. No method waits. The way to sessions is in `dispatch.rs`.

use std::any::Any;
use std::fmt::Debug;

use ocpp_protocol::{Identity, IdentityKey};
use ocpp_station::Outcome;
use ocpp_station::trace::TraceParent;

use crate::command::Command;
use crate::trace::CommandTrace;

/// What is known of stations, whether they are connected or not.
pub trait Stations: Debug + Send + Sync {
    /// The registered spelling of an identity; the given one if none is registered.
    fn canonical(&self, identity: Identity) -> Identity;
    /// Whether anything is known of a station.
    fn knows(&self, station: &IdentityKey) -> bool;
    /// A known identity that is spelled much like this one. Looks at so many stations only that a person may wait for it.
    fn similar(&self, identity: &str) -> Option<String>;
    /// The known stations that carry a tag, or all, in order.
    fn members(&self, tag: Option<&str>) -> Vec<String>;
}

/// Makes the spans of commands, if somebody wants them.
pub trait Traces: Debug + Send + Sync {
    /// A batch came with this: counted if it breaks the rules.
    fn stated(&self, trace: CommandTrace);
    /// A command came with this: counted if it breaks the rules. Returns its place in the trace, with a span of its own if that is
    /// to be recorded.
    fn admitted(&self, trace: CommandTrace) -> CommandTrace;
    /// A command has ended.
    fn ended(&self, command: &Command, outcome: &Outcome);
}

/// The span of the CALL that carries a command. It ends when it is dropped.
pub trait CallSpan: Debug + Send + Sync {
    /// What `traceparent` is for whatever comes of the CALL.
    fn context(&self) -> Option<TraceParent>;
    /// The command has ended so.
    fn end(self: Box<Self>, outcome: &Outcome);
}

/// Held from a command's end until its result is on the bus: a session's last event waits for it, within limits. Nobody looks
/// inside.
pub type ResultGuard = Box<dyn Any + Send + Sync>;
