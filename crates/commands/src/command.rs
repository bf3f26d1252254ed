//! A command as it was taken in: what to send to whom, and until when.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocpp_bus::kafka::consumer::RecordPlace;
use ocpp_protocol::IdentityKey;
use ocpp_station::outbound_call::Overdue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::trace::CommandTrace;

/// What becomes of a command while its station is away.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IfOffline {
    /// It ends at once.
    #[default]
    Fail,
    /// It is kept and sent when the station is back.
    Queue,
}

/// A command as it was taken in.
#[derive(Debug)]
pub struct Command {
    /// The backend's name for it.
    pub id: Arc<str>,
    /// The station, as the backend spells it.
    pub station: String,
    /// The station.
    pub key: IdentityKey,
    /// The OCPP action.
    pub action: String,
    /// A JSON object.
    pub payload: Arc<RawValue>,
    /// How long it may take: from when it was accepted, or, if it was queued for a station that was away, from when it
    /// was sent.
    pub timeout: Duration,
    /// When it was taken in, or written to Kafka.
    pub taken_at: SystemTime,
    /// Not to be sent after this.
    pub expires_at: Option<SystemTime>,
    /// What becomes of it while its station is away.
    pub if_offline: IfOffline,
    /// Its number in the order in which commands were accepted; the store assigns it.
    pub sequence: u64,
    /// Where it is in Kafka, if it came from there.
    pub origin: Option<RecordPlace>,
    /// The batch that it is part of.
    pub batch: Option<Arc<str>>,
    /// Why it cannot be sent whatever the station says: it was not readable as a command.
    pub invalid: Option<String>,
    /// Its place in a trace.
    pub trace: CommandTrace,
}

impl Command {
    /// When it need not be sent any more.
    pub fn send_by(&self) -> SystemTime {
        let own = match self.if_offline {
            IfOffline::Fail => Some(self.taken_at + self.timeout),
            IfOffline::Queue => None,
        };
        match (own, self.expires_at) {
            (Some(own), Some(expires_at)) => own.min(expires_at),
            (Some(one), None) | (None, Some(one)) => one,
            // `request.rs` gives every command that may be queued a time.
            (None, None) => self.taken_at + self.timeout,
        }
    }

    /// How it ends when it was not sent in time.
    pub fn overdue(&self) -> Overdue {
        if self.expires_at.is_some_and(|expires_at| expires_at <= self.send_by()) {
            Overdue::Expired
        } else {
            Overdue::TimedOut
        }
    }
}
