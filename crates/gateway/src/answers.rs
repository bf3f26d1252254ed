//! Answers that a backend gives to the CALLs of stations: who is asked, how an answer finds its CALL, and what is asked by
//! HTTP.
//!
//! Owns the way from a backend's answer, whoever brings it, to the wait for it. The wait itself belongs to the station's
//! session (`session/waits.rs`), and, while the station is away, to the memory of what it asked (`replays.rs`). The first
//! answer wins, and whoever brings one is told at once what became of it.

mod breaker;
mod hook;
mod message;
pub mod metrics;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ocpp_protocol::{Action, ActionKind, IdentityKey, Version, registration_in, validate_response};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::hook::HookError;
use self::hook::{Heard, Hook, Hooks};
pub(crate) use self::message::Written;
pub use self::message::{AnswerError, BackendAnswer, Reply};
use self::metrics::BackendMetrics;
use crate::config::{self, Fallback, ValidationMode};
use crate::registry::Registry;
use crate::replays::{Recalled, Replays};
use crate::session::waits::{Lapse, Question, Standing, Verdict};
use crate::session::{Session, SessionId};

/// What became of a backend's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// It is the first: it goes to the station as soon as the CALL's event is durable.
    Accepted,
    /// It is the first, and the station is away: it goes out if the station asks again while it is remembered.
    Kept,
    /// The CALL has been answered.
    AlreadyAnswered,
    /// The deadline has passed, and the fallback was applied.
    Late,
    /// Nobody waits for it: no such station, session or message, or one that the gateway answers itself.
    Unknown,
    /// It cannot answer this CALL, for this reason. The wait goes on.
    Invalid(String),
}

impl Delivery {
    /// The word on the metric.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Kept => "kept",
            Self::AlreadyAnswered => "alreadyAnswered",
            Self::Late => "late",
            Self::Unknown => "unknown",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// How an action is answered that a backend answers.
#[derive(Debug)]
pub(crate) struct Policy {
    /// How long a backend may take.
    pub(crate) deadline: Duration,
    /// What the station gets then.
    pub(crate) fallback: Fallback,
    hook: Option<Hook>,
}

/// A CALL to ask a hook about.
#[derive(Debug)]
pub(crate) struct HookCall<'a> {
    pub(crate) station: &'a str,
    pub(crate) question: &'a Question,
    pub(crate) version: Version,
    pub(crate) id_json: &'a str,
    pub(crate) action: &'static Action,
    pub(crate) payload: &'a RawValue,
    /// When the fallback applies, on either clock.
    pub(crate) until: (Instant, SystemTime),
}

/// Brings backends' answers to the sessions that wait for them.
#[derive(Debug)]
pub struct Answers {
    /// By [`Action::index`].
    policies: Vec<Option<Policy>>,
    hooks: Hooks,
    validation: ValidationMode,
    /// The largest reply, in bytes.
    largest: u64,
    registry: Arc<Registry>,
    replays: Arc<Replays>,
    metrics: Arc<BackendMetrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Answers {
    /// What the configuration says. Requests to hooks run in `tasks` and end with `stop`.
    ///
    /// # Errors
    /// When a token cannot be read, or the system's certificates where they are needed.
    pub fn open(
        config: &config::Config,
        registry: Arc<Registry>,
        replays: Arc<Replays>,
        metrics: Arc<BackendMetrics>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, HookError> {
        let (hooks, mut by_action) = Hooks::open(&config.answers, &config.hooks)?;
        let policies = Action::all().iter().map(|action| {
            let answer = config.answers.actions.get(action.name).filter(|answer| answer.is_by_backend())?;
            let hook = by_action.remove(action.name);
            if hook.is_some() {
                metrics.breaker(action.name, false);
            }
            Some(Policy { deadline: answer.deadline, fallback: answer.fallback, hook })
        });
        let policies = policies.collect();
        let validation = config.validation.mode;
        let largest = config.session.max_message_size.as_u64();
        Ok(Self { policies, hooks, validation, largest, registry, replays, metrics, tasks, stop })
    }

    /// How a backend answers this action; none if the gateway does.
    pub(crate) fn policy(&self, action: &Action) -> Option<&Policy> {
        self.policies.get(action.index()).and_then(Option::as_ref)
    }

    /// Reads an answer as it is on the topic of commands ([`BackendAnswer::is_meant`] tells it from a command), and
    /// brings it to its CALL. Never waits.
    ///
    /// # Errors
    /// When it is no answer; that is counted, too.
    pub fn take(&self, json: &[u8]) -> Result<Delivery, AnswerError> {
        self.deliver_read(BackendAnswer::parse(json))
    }

    /// The same for an answer that is posted to a station.
    ///
    /// # Errors
    /// When it is no answer; that is counted, too.
    pub fn take_for(&self, station: &str, json: &[u8]) -> Result<Delivery, AnswerError> {
        self.deliver_read(BackendAnswer::parse_for(station, json))
    }

    fn deliver_read(&self, read: Result<BackendAnswer, AnswerError>) -> Result<Delivery, AnswerError> {
        read.map(|answer| self.deliver(&answer)).inspect_err(|_| self.metrics.delivered("malformed"))
    }

    /// Brings a backend's answer to its CALL. Never waits.
    pub fn deliver(&self, answer: &BackendAnswer) -> Delivery {
        let delivery = self.find_and_deliver(answer);
        self.metrics.delivered(delivery.as_str());
        delivery
    }

    fn find_and_deliver(&self, answer: &BackendAnswer) -> Delivery {
        let station = IdentityKey::of(&answer.station);
        // The second look finds what moved from the memory to a session, or from one session to another, meanwhile.
        (0..LOOKS)
            .find_map(|_| {
                let session = self.serving(&station);
                let told = session.as_deref().and_then(|session| self.offer(session, answer));
                told.or_else(|| self.keep(&station, answer, session.map(|session| session.id)))
            })
            .unwrap_or(Delivery::Unknown)
    }

    /// Brings an answer to a session; none if that knows of no such CALL.
    fn offer(&self, session: &Session, answer: &BackendAnswer) -> Option<Delivery> {
        let BackendAnswer { session: asked_in, message_id, reply, .. } = answer;
        let mut standing = session.waits.standing(message_id, *asked_in);
        if let Standing::Waits(action) = standing {
            if let Err(problem) = self.check(session.admission.version, action, reply) {
                return Some(Delivery::Invalid(problem));
            }
            standing = session.waits.decide(message_id, *asked_in, Verdict::Answered(reply.clone()));
        }
        match standing {
            Standing::Waits(_) => Some(Delivery::Accepted),
            Standing::Answered => Some(Delivery::AlreadyAnswered),
            Standing::Lapsed => Some(Delivery::Late),
            Standing::Unknown => None,
        }
    }

    /// Keeps an answer for a station that is away, or on a connection on which it has not asked again; none if the wait has
    /// just moved to a session.
    fn keep(
        &self,
        station: &IdentityKey,
        answer: &BackendAnswer,
        serving: Option<SessionId>,
    ) -> Option<Delivery> {
        let BackendAnswer { session: asked_in, message_id, reply, .. } = answer;
        match self.replays.recall(station, message_id, *asked_in, serving, Instant::now()) {
            Recalled::Waits(asked) => match self.check(asked.version, asked.action, reply) {
                Ok(()) => self
                    .replays
                    .keep(station, message_id, asked, serving, reply.clone().into())
                    .then_some(Delivery::Kept),
                Err(problem) => Some(Delivery::Invalid(problem)),
            },
            Recalled::JustJoined => None,
            Recalled::Answered => Some(Delivery::AlreadyAnswered),
            Recalled::Lapsed => Some(Delivery::Late),
            Recalled::Unknown => Some(Delivery::Unknown),
        }
    }

    /// The session that waits for the answers to a station's CALLs, at the end of its connection, too.
    fn serving(&self, key: &IdentityKey) -> Option<Arc<Session>> {
        self.registry.holder(key).filter(|session| !session.waits.is_shut())
    }

    /// Whether a reply can answer a CALL of this action. What the gateway needs of it must be there; the rest is as in
    /// `validation.mode`.
    fn check(&self, version: Version, action: &'static Action, reply: &Reply) -> Result<(), String> {
        // What is larger would not fit into the event that tells of it.
        if reply.size() as u64 > self.largest {
            return Err(format!("at most {} bytes (session.max_message_size)", self.largest));
        }
        let Reply::Payload(payload) = reply else { return Ok(()) };
        if action.kind() == ActionKind::Boot && registration_in(payload).is_none() {
            return Err("payload.status must be Accepted, Pending or Rejected".to_owned());
        }
        if self.validation == ValidationMode::Off {
            return Ok(());
        }
        let Err(violation) = validate_response(version, action, payload) else { return Ok(()) };
        self.metrics.violation(action.name, violation.code.as_str(version));
        tracing::debug!(action = action.name, %violation, "a backend's answer violates its schema");
        match self.validation {
            ValidationMode::Enforce => Err(format!("payload: {violation}")),
            ValidationMode::Off | ValidationMode::Warn => Ok(()),
        }
    }

    /// Asks the hook of an action, if it has one, at the same time as the event of the CALL becomes durable: the answer
    /// waits for that, the question need not.
    pub(crate) fn ask(self: &Arc<Self>, call: &HookCall<'_>) {
        let hook = self.policy(call.action).and_then(|policy| policy.hook.as_ref());
        let Some(hook) = hook else { return };
        let (station, question, action) = (call.station.to_owned(), call.question.clone(), call.action);
        let Some(place) = hook.place() else {
            self.lapse(&station, &question, Lapse::Overloaded);
            return;
        };
        let (body, until) = (question_json(call), call.until.0);
        let this = Arc::clone(self);
        drop(self.tasks.spawn(async move {
            let _place = place;
            let stop = this.stop.clone();
            stop.run_until_cancelled(Box::pin(this.ask_hook(station, question, action, body, until))).await;
        }));
    }

    async fn ask_hook(
        &self,
        station: String,
        question: Question,
        action: &'static Action,
        body: Bytes,
        until: Instant,
    ) {
        let Some(hook) = self.policy(action).and_then(|policy| policy.hook.as_ref()) else { return };
        match self.hooks.ask(hook, body, until, &self.metrics).await {
            Heard::Replied(reply) => {
                let answer = BackendAnswer {
                    station: station.clone(),
                    session: Some(question.asked_in),
                    message_id: question.message_id.clone(),
                    reply,
                };
                if let Delivery::Invalid(problem) = self.deliver(&answer) {
                    tracing::debug!(
                        action = action.name,
                        problem,
                        "a hook's response does not answer the CALL"
                    );
                    self.lapse(&station, &question, Lapse::HookFailed);
                }
            }
            Heard::Deferred => {}
            Heard::Lapsed(lapse) => self.lapse(&station, &question, lapse),
        }
    }

    /// Lets the fallback apply before the deadline.
    fn lapse(&self, station: &str, question: &Question, lapse: Lapse) {
        let key = IdentityKey::of(station);
        let Question { message_id, asked_in } = question;
        let standing = self
            .serving(&key)
            .map(|session| session.waits.decide(message_id, Some(*asked_in), Verdict::Lapsed(lapse)));
        if standing.is_none_or(|standing| standing == Standing::Unknown) {
            self.replays.give_up(&key, message_id, *asked_in);
        }
    }
}

/// What a hook is asked: the names are those of the event.
fn question_json(call: &HookCall<'_>) -> Bytes {
    let json = ocpp_bus::event::json_string;
    let payload = call.payload.get();
    let mut body = String::with_capacity(payload.len() + 320);
    for (name, value) in [
        (r#"{"stationId":"#, json(call.station).as_str()),
        (r#","sessionId":"#, json(&call.question.asked_in.to_string()).as_str()),
        (r#","ocppVersion":"#, json(call.version.as_str()).as_str()),
        (r#","messageId":"#, call.id_json),
        (r#","action":"#, json(call.action.name).as_str()),
        (r#","payload":"#, payload),
        (r#","answerUntil":"#, json(&ocpp_bus::event::rfc3339(call.until.1)).as_str()),
    ] {
        body.push_str(name);
        body.push_str(value);
    }
    body.push('}');
    Bytes::from(body)
}

/// A wait moves at most once while an answer is on its way to it: stations do not reconnect that fast.
const LOOKS: usize = 3;
