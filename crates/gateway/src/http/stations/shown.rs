//! How a station is shown: who it is, how its session is doing, and what is known of it.

use std::sync::atomic::Ordering;

use serde::Serialize;
use utoipa::ToSchema;

use crate::session::SessionHandle;
use crate::twins::Noticed;
use ocpp_station::time::millis;

/// A station that is known or connected.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Station {
    /// Its identity, in its registered spelling.
    pub(super) id: String,
    /// Whether it is connected; if so, the members of its session are here, too.
    pub(super) connected: bool,
    #[serde(flatten)]
    #[schema(value_type = Connected)]
    pub(super) session: Option<Connected>,
    /// What its last BootNotification was answered with; null if it never sent one.
    pub(super) registration: Option<&'static str>,
    /// What an operator has decided about it: its next one is answered with this. Counts at once, until a backend answers one
    /// otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registration_decision: Option<&'static str>,
    /// Who made it, as its last BootNotification said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vendor: Option<String>,
    /// What it is called, as its last BootNotification said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
    /// The groups that it belongs to, for commands to many.
    pub(super) tags: Vec<String>,
    /// Commands that are kept until it is back.
    pub(super) commands_kept: usize,
    /// Two devices use its identity and push each other out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) twins: Option<TwinsShown>,
}

/// Two devices that use one identity.
#[derive(Serialize, ToSchema)]
#[schema(as = Twins)]
#[serde(rename_all = "camelCase")]
pub(super) struct TwinsShown {
    /// Living sessions that were replaced within `twins.window`.
    pub(super) replacements: usize,
    /// Where their connections come from; four at most.
    pub(super) addresses: Vec<String>,
    /// Further connections have to wait for `twins.pause`.
    pub(super) damped: bool,
    /// Milliseconds since they were noticed.
    pub(super) for_ms: u64,
}

impl From<Noticed> for TwinsShown {
    fn from(noticed: Noticed) -> Self {
        Self {
            replacements: noticed.replacements,
            addresses: noticed.addresses.iter().map(ToString::to_string).collect(),
            damped: noticed.is_damped,
            for_ms: millis(noticed.for_long),
        }
    }
}

/// The session by which a station is connected. All of it is there, or nothing: among the members of a [`Station`] none is
/// required.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connected {
    /// Its number; a later one is greater.
    #[schema(required = false)]
    pub(super) session_id: String,
    /// The version agreed on.
    #[schema(required = false)]
    pub(super) ocpp_version: &'static str,
    /// The token answered in the handshake; null when a lenient listener assumed 1.6.
    #[schema(required = false)]
    pub(super) subprotocol: Option<&'static str>,
    /// Address and port of the TCP peer.
    #[schema(required = false)]
    pub(super) remote_address: String,
    /// OCPP security profile; 0 for none.
    #[schema(required = false)]
    pub(super) security_profile: u8,
    /// When it was admitted.
    #[schema(required = false, format = DateTime)]
    pub(super) connected_at: String,
    /// Milliseconds since the last frame from the station.
    #[schema(required = false)]
    pub(super) silent_ms: u64,
    /// Messages from the station in this session.
    #[schema(required = false)]
    pub(super) messages_in: u64,
    /// Messages to the station in this session.
    #[schema(required = false)]
    pub(super) messages_out: u64,
    /// Messages that wait for durability or for the socket.
    #[schema(required = false)]
    pub(super) unacknowledged: u64,
    /// Commands that wait to be sent.
    #[schema(required = false)]
    pub(super) commands_waiting: usize,
    /// Whether a command is with the station.
    #[schema(required = false)]
    pub(super) command_outstanding: bool,
}

/// What is shown of a session.
pub(super) fn connected(session: &SessionHandle) -> Connected {
    let counters = &session.counters;
    Connected {
        session_id: session.id.to_string(),
        ocpp_version: session.admission.version.as_str(),
        subprotocol: session.admission.subprotocol,
        remote_address: session.admission.remote.to_string(),
        security_profile: session.admission.security_profile,
        connected_at: ocpp_station::envelope::rfc3339(session.connected_at),
        silent_ms: millis(session.silence()),
        messages_in: counters.messages_in.load(Ordering::Relaxed),
        messages_out: counters.messages_out.load(Ordering::Relaxed),
        unacknowledged: counters.unacknowledged.load(Ordering::Relaxed),
        commands_waiting: session.inbox.waiting(),
        command_outstanding: counters.command_outstanding.load(Ordering::Relaxed),
    }
}
