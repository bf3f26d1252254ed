//! The gateway's events: which members each type has (`docs/asyncapi.yaml` is the contract).
//!
//! Owns the spelling of `data`. Does not publish anything; the envelope is the bus's (`ocpp_bus::event`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use ocpp_bus::event::{EventWriter, json_string};
use ocpp_bus::{Record, RecordKind};

use crate::command::Outcome;
use crate::kinds;
use crate::session::close::CloseReason;
use crate::session::{Session, SessionId};
use crate::trace::TraceParent;

/// The text of a malformed message in its event is cut to this many characters.
const RAW_CHARS: usize = 4096;

/// Writes events of this node.
#[derive(Clone, Debug)]
pub struct Events {
    source_json: Arc<str>,
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
    /// Events whose `source` names this node.
    pub fn new(node_id: &str) -> Self {
        Self { source_json: json_string(&format!("/ocpp-gateway/{node_id}")).into() }
    }

    /// A station is admitted.
    pub fn connected(&self, session: &Session, replaced: Option<SessionId>) -> Record {
        let admission = &session.admission;
        let writer = self
            .of_session(session, "ocpp.station.connected", session.connected_at, 256)
            .string("remoteAddress", &admission.remote.to_string())
            .number("securityProfile", u64::from(admission.security_profile));
        let writer = match admission.subprotocol {
            Some(subprotocol) => writer.string("subprotocol", subprotocol),
            None => writer.raw("subprotocol", "null"),
        };
        let writer = if admission.deflate.is_some() { writer.raw("compression", "true") } else { writer };
        let writer = writer.optional("replaced", replaced.map(|id| id.to_string()).as_deref());
        record(session.admission.identity.as_str(), session.connected_at, kinds::EVENT, writer)
    }

    /// A session ended.
    pub fn disconnected(
        &self,
        session: &Session,
        reason: CloseReason,
        close_code: Option<u16>,
        messages: (u64, u64),
    ) -> Record {
        let now = SystemTime::now();
        let writer = self
            .of_session(session, "ocpp.station.disconnected", now, 256)
            .string("reason", reason.as_str())
            .optional("note", session.operator_note().filter(|_| reason == CloseReason::Operator))
            .raw("closeCode", &close_code.map_or_else(|| "null".to_owned(), |code| code.to_string()));
        let writer = writer
            .number("durationMs", millis(session.started.elapsed()))
            .number("messagesIn", messages.0)
            .number("messagesOut", messages.1);
        record(session.admission.identity.as_str(), now, kinds::EVENT, writer)
    }

    /// A handshake was refused. Without a usable identity the key is the remote address.
    pub fn rejected(
        &self,
        identity: Option<&str>,
        remote: SocketAddr,
        reason: &str,
        http_status: u16,
    ) -> Record {
        let now = SystemTime::now();
        let remote = remote.to_string();
        let subject = identity.unwrap_or(&remote);
        let writer = EventWriter::open(&self.source_json, "ocpp.station.rejected", subject, now, 128)
            .string("reason", reason)
            .string("remoteAddress", &remote)
            .number("httpStatus", u64::from(http_status));
        record(subject, now, kinds::EVENT, writer)
    }

    /// An OCPP message from the station; `time` is when its frame was read.
    pub fn received(&self, session: &Session, time: SystemTime, message: &Message<'_>) -> Record {
        self.message(session, "ocpp.message.received", time, message)
    }

    /// An OCPP message to the station; `time` is when it was handed to the socket's writer.
    pub fn sent(&self, session: &Session, time: SystemTime, message: &Message<'_>) -> Record {
        self.message(session, "ocpp.message.sent", time, message)
    }

    fn message(&self, session: &Session, event: &str, time: SystemTime, message: &Message<'_>) -> Record {
        let room = match message.body {
            Body::Payload(payload) => payload.len(),
            Body::Error { description, details, .. } => description.len() + details.map_or(0, str::len) + 64,
            Body::Malformed { raw, .. } => raw.len().min(RAW_CHARS) + 64,
        };
        let mut writer =
            self.of_session(session, event, time, room + 192).string("messageType", message.message_type);
        if let Some(id_json) = message.id_json {
            writer = writer.raw("messageId", id_json);
        }
        writer = writer.optional("action", message.action);
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
            Some(AnsweredBy::Backend { until }) => writer
                .string("answeredBy", "backend")
                .optional("answerUntil", until.map(ocpp_bus::event::rfc3339).as_deref()),
        };
        let writer = traced(writer, message.traceparent);
        record(session.admission.identity.as_str(), time, kinds::EVENT, writer)
    }

    /// A command ended. `session` is the one that carried it, if any did.
    pub fn command_result(
        &self,
        station: &str,
        session: Option<&Session>,
        command_id: &str,
        action: &str,
        outcome: &Outcome,
        traceparent: Option<TraceParent>,
    ) -> Record {
        let now = SystemTime::now();
        let room = 256 + outcome.payload.as_ref().map_or(0, |payload| payload.get().len());
        let mut writer = match session {
            Some(session) => self.of_session(session, "ocpp.command.result", now, room),
            None => EventWriter::open(&self.source_json, "ocpp.command.result", station, now, room),
        };
        writer = writer
            .string("commandId", command_id)
            .optional("action", Some(action).filter(|action| !action.is_empty()))
            .string("status", outcome.status.as_str())
            .string("sent", outcome.sent.as_str());
        if let Some(payload) = &outcome.payload {
            writer = writer.raw("payload", payload.get());
        }
        if let Some(error) = &outcome.error {
            writer = writer.raw("error", &error.to_json());
        }
        let writer = traced(writer, traceparent);
        record(station, now, kinds::COMMAND_RESULT, writer)
    }

    /// Every command of a batch has ended. The key is the batch.
    pub fn batch_ended(&self, batch: &str, members: impl FnOnce(EventWriter) -> EventWriter) -> Record {
        let now = SystemTime::now();
        let writer = EventWriter::open(&self.source_json, "ocpp.command.summary", batch, now, 128);
        record(batch, now, kinds::COMMAND_RESULT, members(writer))
    }

    fn of_session(&self, session: &Session, event: &str, time: SystemTime, room: usize) -> EventWriter {
        EventWriter::open(&self.source_json, event, session.admission.identity.as_str(), time, room)
            .string("sessionId", session.id.encode(&mut SessionId::buffer()))
            .string("ocppVersion", session.admission.version.as_str())
    }
}

/// CloudEvents' extension for distributed tracing.
fn traced(writer: EventWriter, traceparent: Option<TraceParent>) -> EventWriter {
    match traceparent {
        Some(traceparent) => writer.extension("traceparent", Some(&traceparent.to_string())),
        None => writer,
    }
}

fn record(key: &str, time: SystemTime, kind: RecordKind, writer: EventWriter) -> Record {
    let time_ms = millis(time.duration_since(UNIX_EPOCH).unwrap_or_default());
    Record { kind, time_ms, key: key.into(), value: Bytes::from(writer.close()) }
}

/// Whole milliseconds.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
