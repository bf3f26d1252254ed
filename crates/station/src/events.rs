//! The gateway's events: which members each type has (`docs/asyncapi.yaml` is the contract).
//!
//! Owns the spelling of `data`; the envelope is [`crate::envelope`]'s. Publishes nothing and reads no clock.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ocpp_protocol::{Identity, Version};
use uuid::Uuid;

use crate::close::CloseReason;
use crate::envelope::{EventWriter, id_text, json_string, rfc3339};
use crate::outcome::Outcome;
use crate::session_id::SessionId;
use crate::time::{millis, unix_millis};
use crate::trace::TraceParent;

/// The text of a malformed message in its event is cut to this many characters.
const RAW_CHARS: usize = 4096;

/// Encodes the events of this node.
#[derive(Clone, Debug)]
pub struct Events {
    source_json: Arc<str>,
    next_id: fn() -> Uuid,
}

/// An event as the bus takes it.
#[derive(Clone, Debug)]
pub struct EncodedEvent {
    /// What it is ordered by: the station's identity, but for rejections without one and for batches.
    pub key: Arc<str>,
    /// When what it tells of happened, in milliseconds since 1970.
    pub time_ms: u64,
    /// One CloudEvents object.
    pub json: Vec<u8>,
}

/// The session that an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its number.
    pub session: SessionId,
    /// Its station, in the registered spelling.
    pub identity: &'a Identity,
    /// What it speaks.
    pub version: Version,
}

/// A station that was admitted, as `ocpp.station.connected` tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    /// When it was admitted.
    pub at: SystemTime,
    /// Where it comes from.
    pub remote: SocketAddr,
    /// OCPP security profile.
    pub security_profile: u8,
    /// The subprotocol answered; none when a lenient listener assumed 1.6.
    pub subprotocol: Option<&'static str>,
    /// Whether compression was agreed on.
    pub compression: bool,
    /// The session that this one replaced.
    pub replaced: Option<SessionId>,
}

/// A session's end, as `ocpp.station.disconnected` tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Disconnected<'a> {
    /// When it ended.
    pub at: SystemTime,
    /// Why.
    pub reason: CloseReason,
    /// More about the reason: an operator's words, or the rule that the station broke.
    pub note: Option<&'a str>,
    /// The code of the station's close frame, or of ours.
    pub close_code: Option<u16>,
    /// How long it lasted.
    pub duration: Duration,
    /// Messages from the station; none if whoever counted them is gone.
    pub messages_in: Option<u64>,
    /// Messages to the station; likewise.
    pub messages_out: Option<u64>,
}

/// A refused handshake, as `ocpp.station.rejected` tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Rejected<'a> {
    /// The path that was requested, printable and bounded.
    pub path: &'a str,
    /// Who asked.
    pub remote: SocketAddr,
    /// Why it was refused.
    pub reason: &'static str,
    /// The status of the response.
    pub status: u16,
}

/// An OCPP message as an event shows it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `CALL`, `CALLRESULT`, `CALLERROR`, `CALLRESULTERROR`, `SEND` or `MALFORMED`.
    pub message_type: &'static str,
    /// The message id as a JSON string literal; none if it could not be read.
    pub id_json: Option<&'a str>,
    /// The action; for an answer, the action it answers, when known.
    pub action: Option<&'a str>,
    /// The rest.
    pub body: Body<'a>,
    /// Who answers a CALL of a station.
    pub answered_by: Option<AnsweredBy>,
    /// The command that it carries or answers.
    pub command_id: Option<&'a str>,
    /// How its payload violates its schema, if somebody looked.
    pub violation: Option<&'a str>,
    /// The trace that it belongs to, if it is known.
    pub traceparent: Option<TraceParent>,
}

/// Who answers a CALL of a station.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnsweredBy {
    /// The gateway.
    Gateway,
    /// A backend.
    Backend {
        /// Until when it may, in the event of the CALL.
        until: Option<SystemTime>,
    },
}

/// What a message carries.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// JSON text, spliced in byte for byte.
    Payload(&'a str),
    /// A CALLERROR or CALLRESULTERROR.
    Error {
        /// Any word.
        code: &'a str,
        /// Any text.
        description: &'a str,
        /// JSON text; none if it was missing.
        details: Option<&'a str>,
    },
    /// Text that is not an OCPP message.
    Malformed {
        /// A closed set of words.
        reason: &'static str,
        /// What the station sent.
        raw: &'a str,
    },
}

impl Events {
    /// Events whose `source` names this node and whose ids come from `next_id`, which gives a fresh one each time. Only the ids of
    /// a session's first and last event follow from its number.
    pub fn new(node_id: &str, next_id: fn() -> Uuid) -> Self {
        Self { source_json: json_string(&format!("/ocpp-gateway/{node_id}")).into(), next_id }
    }

    /// A station is admitted. The same session always gives the same bytes.
    pub fn connected(&self, subject: Subject<'_>, connected: &Connected) -> EncodedEvent {
        let writer = self
            .open_as(subject.session.connected_id(), "ocpp.station.connected", subject, connected.at)
            .string("remoteAddress", &connected.remote.to_string())
            .number("securityProfile", u64::from(connected.security_profile));
        let writer = match connected.subprotocol {
            Some(subprotocol) => writer.string("subprotocol", subprotocol),
            None => writer.raw("subprotocol", "null"),
        };
        let writer = if connected.compression { writer.raw("compression", "true") } else { writer };
        let writer = writer.optional("replaced", connected.replaced.map(|id| id.to_string()).as_deref());
        encoded(subject.identity.as_str(), connected.at, writer)
    }

    /// A session ended. Its id follows from the session, whoever tells of it.
    pub fn disconnected(&self, subject: Subject<'_>, ended: &Disconnected<'_>) -> EncodedEvent {
        let writer = self
            .open_as(subject.session.disconnected_id(), "ocpp.station.disconnected", subject, ended.at)
            .string("reason", ended.reason.as_str())
            .optional("note", ended.note)
            .raw("closeCode", &number_or_null(ended.close_code))
            .number("durationMs", millis(ended.duration))
            .raw("messagesIn", &number_or_null(ended.messages_in))
            .raw("messagesOut", &number_or_null(ended.messages_out));
        encoded(subject.identity.as_str(), ended.at, writer)
    }

    /// A handshake was refused. Without a usable identity the key is the remote address.
    pub fn rejected(&self, now: SystemTime, identity: Option<&str>, rejected: &Rejected<'_>) -> EncodedEvent {
        let remote = rejected.remote.to_string();
        let subject = identity.unwrap_or(&remote);
        let writer = self
            .open("ocpp.station.rejected", subject, now, 160 + rejected.path.len())
            .string("reason", rejected.reason)
            .string("remoteAddress", &remote)
            .number("httpStatus", u64::from(rejected.status))
            .string("path", rejected.path);
        encoded(subject, now, writer)
    }

    /// Two devices use one identity and push each other out: so many living sessions were replaced lately, by connections from
    /// these addresses. `is_damped` if further connections have to wait.
    pub fn twins(
        &self,
        now: SystemTime,
        identity: &str,
        replacements: usize,
        addresses: &[IpAddr],
        is_damped: bool,
    ) -> EncodedEvent {
        let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let writer = self
            .open("ocpp.station.twins", identity, now, 192)
            .number("replacements", replacements as u64)
            .raw("remoteAddresses", &format!("[{}]", addresses.join(",")))
            .raw("damped", if is_damped { "true" } else { "false" });
        encoded(identity, now, writer)
    }

    /// An OCPP message from the station; `time` is when its frame was read.
    pub fn received(&self, subject: Subject<'_>, time: SystemTime, message: &Message<'_>) -> EncodedEvent {
        self.message(subject, "ocpp.message.received", time, message)
    }

    /// An OCPP message to the station; `time` is when it was handed to the socket's writer.
    pub fn sent(&self, subject: Subject<'_>, time: SystemTime, message: &Message<'_>) -> EncodedEvent {
        self.message(subject, "ocpp.message.sent", time, message)
    }

    fn message(
        &self,
        subject: Subject<'_>,
        event: &str,
        time: SystemTime,
        message: &Message<'_>,
    ) -> EncodedEvent {
        let room = match message.body {
            Body::Payload(payload) => payload.len(),
            Body::Error { description, details, .. } => description.len() + details.map_or(0, str::len) + 64,
            Body::Malformed { raw, .. } => raw.len().min(RAW_CHARS) + 64,
        };
        let mut writer =
            self.of_session(subject, event, time, room + 192).string("messageType", message.message_type);
        if let Some(id_json) = message.id_json {
            writer = writer.raw("messageId", &id_text(id_json));
        }
        writer = writer.optional("action", message.action).optional("commandId", message.command_id);
        writer = match message.body {
            Body::Payload(payload) => writer.raw("payload", payload),
            Body::Error { code, description, details } => writer
                .string("errorCode", code)
                .string("errorDescription", description)
                .raw("errorDetails", details.unwrap_or("{}")),
            Body::Malformed { reason, raw } => writer
                .string("reason", reason)
                .string("raw", &raw.chars().take(RAW_CHARS).collect::<String>()),
        };
        let writer = match message.answered_by {
            None => writer,
            Some(AnsweredBy::Gateway) => writer.string("answeredBy", "gateway"),
            Some(AnsweredBy::Backend { until }) => {
                writer.string("answeredBy", "backend").optional("answerUntil", until.map(rfc3339).as_deref())
            }
        };
        let writer = traced(writer, message.traceparent).extension("violation", message.violation);
        encoded(subject.identity.as_str(), time, writer)
    }

    /// A command ended. `session` is the one that carried it, if any did.
    pub fn command_result(
        &self,
        now: SystemTime,
        station: &str,
        session: Option<Subject<'_>>,
        command: CommandResult<'_>,
    ) -> EncodedEvent {
        let CommandResult { id, action, outcome, traceparent } = command;
        let room = 256 + outcome.payload.as_ref().map_or(0, |payload| payload.get().len());
        let mut writer = match session {
            Some(session) => self.of_session(session, "ocpp.command.result", now, room),
            None => self.open("ocpp.command.result", station, now, room),
        };
        writer = writer
            .string("commandId", id)
            .optional("action", Some(action).filter(|action| !action.is_empty()))
            .string("status", outcome.status.as_str())
            .string("sent", outcome.sent.as_str());
        if let Some(payload) = &outcome.payload {
            writer = writer.raw("payload", payload.get());
        }
        writer = writer.optional("violation", outcome.violation.as_deref());
        if let Some(error) = &outcome.error {
            writer = writer.raw("error", &error.to_json());
        }
        encoded(station, now, traced(writer, traceparent))
    }

    /// Every command of a batch has ended. The key is the batch.
    pub fn batch_ended(
        &self,
        now: SystemTime,
        batch: &str,
        members: impl FnOnce(EventWriter) -> EventWriter,
    ) -> EncodedEvent {
        encoded(batch, now, members(self.open("ocpp.command.summary", batch, now, 128)))
    }

    fn of_session(&self, subject: Subject<'_>, event: &str, time: SystemTime, room: usize) -> EventWriter {
        with_subject(self.open(event, subject.identity.as_str(), time, room), subject)
    }

    /// Opens an event whose id follows from its session.
    fn open_as(&self, id: Uuid, event: &str, subject: Subject<'_>, time: SystemTime) -> EventWriter {
        let identity = subject.identity.as_str();
        with_subject(EventWriter::open(id, &self.source_json, event, identity, time, 256), subject)
    }

    fn open(&self, event: &str, subject: &str, time: SystemTime, room: usize) -> EventWriter {
        EventWriter::open((self.next_id)(), &self.source_json, event, subject, time, room)
    }
}

/// A command's end, as `ocpp.command.result` tells of it.
#[derive(Clone, Copy, Debug)]
pub struct CommandResult<'a> {
    /// The backend's name for the command.
    pub id: &'a str,
    /// Its action; empty if it could not be read.
    pub action: &'a str,
    /// How it ended.
    pub outcome: &'a Outcome,
    /// The trace that it belongs to, if it is known.
    pub traceparent: Option<TraceParent>,
}

fn with_subject(writer: EventWriter, subject: Subject<'_>) -> EventWriter {
    writer
        .string("sessionId", subject.session.encode(&mut SessionId::buffer()))
        .string("ocppVersion", subject.version.as_str())
}

fn number_or_null(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// CloudEvents' extension for distributed tracing.
fn traced(writer: EventWriter, traceparent: Option<TraceParent>) -> EventWriter {
    match traceparent {
        Some(traceparent) => writer.extension("traceparent", Some(&traceparent.to_string())),
        None => writer,
    }
}

fn encoded(key: &str, time: SystemTime, writer: EventWriter) -> EncodedEvent {
    EncodedEvent { key: key.into(), time_ms: unix_millis(time), json: writer.close() }
}
