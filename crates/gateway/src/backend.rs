//! Responses of a backend to the CALLs of stations: who is asked, how a response finds its CALL, and what is asked by HTTP.
//!
//! Owns the way from a backend's response, whoever brings it, to the CALL. Which response is the first is decided by the
//! station's session (`ocpp_station::delegated_calls`) or, while the station is away, by the memory of what it asked
//! (`ocpp_station::recent_calls`); whoever brings one is told at once what became of it.

mod breaker;
mod hook;
mod message;
pub mod metrics;
pub mod options;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ocpp_protocol::{Action, IdentityKey, Version, validate_response};
use ocpp_station::delegated_calls::{CallRef, CallStatus, Decided, FallbackReason};
use ocpp_station::host::{DelegatedCall, Delegation};
use ocpp_station::recent_calls::{Recalled, RecentCalls};
use ocpp_station::{Response, SessionId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::hook::HookError;
use self::hook::{Heard, Hook, Hooks};
pub(crate) use self::message::Written;
pub use self::message::{AnswerError, BackendAnswer};
use self::metrics::BackendMetrics;
use self::options::{AnswersOptions, HookOptions};
use crate::durable_point::Point;
use crate::registry::Registry;
use crate::session::SessionHandle;

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
struct Policy {
    delegation: Delegation,
    hook: Option<Hook>,
}

/// Brings backends' answers to the sessions that wait for them.
#[derive(Debug)]
pub struct Answers {
    /// By [`Action::index`].
    policies: Vec<Option<Policy>>,
    hooks: Hooks,
    /// The largest reply, in bytes.
    largest: u64,
    registry: Arc<Registry>,
    recent_calls: Arc<RecentCalls<Point>>,
    metrics: Arc<BackendMetrics>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What answers by a backend depend on.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Which actions a backend answers.
    pub answers: &'a AnswersOptions,
    /// How its URLs are asked.
    pub hooks: &'a HookOptions,
    /// The largest reply, in bytes.
    pub largest: u64,
}

impl Answers {
    /// Reads what hooks need. Requests to hooks run in `tasks` and end with `stop`.
    ///
    /// # Errors
    /// When a token cannot be read, or the system's certificates where they are needed.
    pub fn open(
        rules: &Rules<'_>,
        registry: Arc<Registry>,
        recent_calls: Arc<RecentCalls<Point>>,
        metrics: Arc<BackendMetrics>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, HookError> {
        let (hooks, mut by_action) = Hooks::open(rules.answers, rules.hooks)?;
        let policies = Action::all().iter().map(|action| {
            let answer = rules.answers.actions.get(action.name).filter(|answer| answer.is_by_backend())?;
            let hook = by_action.remove(action.name);
            if hook.is_some() {
                metrics.breaker(action.name, false);
            }
            let delegation = Delegation {
                deadline: answer.deadline,
                fallback: answer.fallback,
                status: answer.refusal_status(action),
            };
            Some(Policy { delegation, hook })
        });
        let policies = policies.collect();
        let largest = rules.largest;
        Ok(Self { policies, hooks, largest, registry, recent_calls, metrics, tasks, stop })
    }

    /// Everything that keeps [`open`](Self::open) from succeeding.
    pub fn problems(rules: &Rules<'_>) -> Vec<HookError> {
        Hooks::problems(rules.answers, rules.hooks)
    }

    /// How a backend answers this action; none if the gateway does.
    pub(crate) fn delegation(&self, action: &Action) -> Option<Delegation> {
        self.policy(action).map(|policy| policy.delegation)
    }

    fn policy(&self, action: &Action) -> Option<&Policy> {
        self.policies.get(action.index()).and_then(Option::as_ref)
    }

    /// Reads an answer as it is on the topic of commands, and brings it to its CALL. Never waits.
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
    fn offer(&self, session: &SessionHandle, answer: &BackendAnswer) -> Option<Delivery> {
        let BackendAnswer { session: asked_in, message_id, response: reply, .. } = answer;
        let mut status = session.delegated_calls.status(message_id, *asked_in);
        if let CallStatus::Waiting(action) = status {
            if let Err(problem) = self.check(session.admission.version, action, reply) {
                return Some(Delivery::Invalid(problem));
            }
            status = session.delegated_calls.decide(message_id, *asked_in, Decided::Response(reply.clone()));
        }
        match status {
            CallStatus::Waiting(_) => Some(Delivery::Accepted),
            CallStatus::Answered => Some(Delivery::AlreadyAnswered),
            CallStatus::FellBack => Some(Delivery::Late),
            CallStatus::Unknown => None,
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
        let BackendAnswer { session: asked_in, message_id, response: reply, .. } = answer;
        match self.recent_calls.recall(station, message_id, *asked_in, serving, Instant::now()) {
            Recalled::Waiting(asked) => match self.check(asked.version, asked.action, reply) {
                Ok(()) => self
                    .recent_calls
                    .store(station, message_id, asked, serving, reply.clone().into())
                    .then_some(Delivery::Kept),
                Err(problem) => Some(Delivery::Invalid(problem)),
            },
            Recalled::JustJoined => None,
            Recalled::Answered => Some(Delivery::AlreadyAnswered),
            Recalled::TooLate => Some(Delivery::Late),
            Recalled::Unknown => Some(Delivery::Unknown),
        }
    }

    /// The session that waits for the answers to a station's CALLs, at the end of its connection, too.
    fn serving(&self, key: &IdentityKey) -> Option<Arc<SessionHandle>> {
        self.registry.holder(key).filter(|session| !session.delegated_calls.is_closed())
    }

    /// Whether a reply can answer a CALL of this action.
    fn check(&self, version: Version, action: &'static Action, reply: &Response) -> Result<(), String> {
        // What is larger would not fit into the event that tells of it.
        if reply.size() as u64 > self.largest {
            return Err(format!("at most {} bytes (session.max_message_size)", self.largest));
        }
        let Response::Payload(payload) = reply else { return Ok(()) };
        validate_response(version, action, payload).map_err(|violation| {
            self.metrics.violation(action.name, violation.code().as_str(version));
            tracing::debug!(action = action.name, %violation, "a backend's answer violates its schema");
            violation.to_string()
        })
    }

    /// Asks the hook of an action, if it has one, at the same time as the event of the CALL becomes durable: the answer
    /// waits for that, the question need not.
    pub(crate) fn ask(self: &Arc<Self>, station: &str, call: &DelegatedCall<'_>) {
        let hook = self.policy(call.action).and_then(|policy| policy.hook.as_ref());
        let Some(hook) = hook else { return };
        let (name, action) = (call.name.clone(), call.action);
        let Some(permit) = hook.permit() else {
            self.fall_back(station, &name, FallbackReason::Overloaded);
            return;
        };
        let (body, until) = (question_json(station, call), call.until.0);
        let (this, station) = (Arc::clone(self), station.to_owned());
        drop(self.tasks.spawn(async move {
            let _permit = permit;
            let stop = this.stop.clone();
            stop.run_until_cancelled(Box::pin(this.ask_hook(station, name, action, body, until))).await;
        }));
    }

    async fn ask_hook(
        &self,
        station: String,
        name: CallRef,
        action: &'static Action,
        body: Bytes,
        until: Instant,
    ) {
        let Some(hook) = self.policy(action).and_then(|policy| policy.hook.as_ref()) else { return };
        match self.hooks.ask(hook, body, until, &self.metrics).await {
            Heard::Replied(reply) => {
                let answer = BackendAnswer {
                    station: station.clone(),
                    session: Some(name.asked_in),
                    message_id: name.message_id.clone(),
                    response: reply,
                };
                if let Delivery::Invalid(problem) = self.deliver(&answer) {
                    tracing::debug!(
                        action = action.name,
                        problem,
                        "a hook's response does not answer the CALL"
                    );
                    self.fall_back(&station, &name, FallbackReason::HookFailed);
                }
            }
            Heard::Deferred => {}
            Heard::Failed(reason) => self.fall_back(&station, &name, reason),
        }
    }

    /// Lets the fallback apply before the deadline.
    fn fall_back(&self, station: &str, name: &CallRef, reason: FallbackReason) {
        let key = IdentityKey::of(station);
        let CallRef { message_id, asked_in } = name;
        let status = self.serving(&key).map(|session| {
            session.delegated_calls.decide(message_id, Some(*asked_in), Decided::Fallback(reason))
        });
        if status.is_none_or(|status| status == CallStatus::Unknown) {
            self.recent_calls.give_up(&key, message_id, *asked_in);
        }
    }
}

/// What a hook is asked: the names are those of the event.
fn question_json(station: &str, call: &DelegatedCall<'_>) -> Bytes {
    let json = ocpp_station::envelope::json_string;
    let payload = call.payload.get();
    let mut body = String::with_capacity(payload.len() + 320);
    for (name, value) in [
        (r#"{"stationId":"#, json(station).as_str()),
        (r#","sessionId":"#, json(&call.name.asked_in.to_string()).as_str()),
        (r#","ocppVersion":"#, json(call.version.as_str()).as_str()),
        (r#","messageId":"#, &*ocpp_station::envelope::id_text(call.id_json)),
        (r#","action":"#, json(call.action.name).as_str()),
        (r#","payload":"#, payload),
        (r#","answerUntil":"#, json(&ocpp_station::envelope::rfc3339(call.until.1)).as_str()),
    ] {
        body.push_str(name);
        body.push_str(value);
    }
    body.push('}');
    Bytes::from(body)
}

/// A wait moves at most once while an answer is on its way to it: stations do not reconnect that fast.
const LOOKS: usize = 3;
