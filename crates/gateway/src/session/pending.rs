//! What a session holds back until its events are durable: answers to the station (P1).
//!
//! One queue in the order of what came. Answers leave in the order of the CALLs they answer, so one that a backend has still
//! to give holds up those behind it.

use std::collections::VecDeque;
use std::time::Instant;

use ocpp_protocol::{Action, ErrorCode, StartKey, Version};
use prometheus::IntGauge;
use serde_json::value::RawValue;

use super::waits::{Question, Ticket};
use crate::answers::Reply;
use crate::events::AnsweredBy;
use crate::replays::{CallKey, Milestone};
use crate::spans::Span;

/// What is held, in the order in which it may go. Knows without a look at each whether there is any of the rarer kinds, because
/// that is asked at every turn of the session's loop. Bounded by `session.max_unacknowledged`: the session reads no more then.
#[derive(Debug, Default)]
pub(super) struct Holding {
    queue: VecDeque<Pending>,
    awaited: usize,
    repeated: usize,
}

impl Holding {
    /// How many.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// None.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The one that goes first.
    pub(super) fn front(&self) -> Option<&Pending> {
        self.queue.front()
    }

    /// Puts one behind all others.
    pub(super) fn push(&mut self, pending: Pending) {
        self.count(&pending);
        self.queue.push_back(pending);
    }

    /// Takes the first if it is an answer. Gives the room back with the last: most stations have nothing here most of the time.
    pub(super) fn pop_answer(&mut self) -> Option<Answer> {
        let first = self.queue.pop_front_if(|first| matches!(first.held, Held::Answer(_)))?;
        self.discount(&first);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        match first.held {
            Held::Answer(answer) => Some(answer),
            Held::Awaited(_) => None,
        }
    }

    /// The CALLs that wait for a backend.
    pub(super) fn awaited(&self) -> impl Iterator<Item = &Awaited> {
        let all = if self.awaited > 0 { self.queue.iter() } else { Default::default() };
        all.filter_map(|pending| match &pending.held {
            Held::Awaited(awaited) => Some(&**awaited),
            Held::Answer(_) => None,
        })
    }

    /// One of them.
    pub(super) fn awaited_mut(&mut self, ticket: Ticket) -> Option<&mut Awaited> {
        self.queue.iter_mut().find_map(|pending| match &mut pending.held {
            Held::Awaited(awaited) if awaited.ticket == ticket => Some(&mut **awaited),
            Held::Awaited(_) | Held::Answer(_) => None,
        })
    }

    /// Takes one of them out, with its place, what stood there less what was held.
    pub(super) fn take_awaited(&mut self, ticket: Ticket) -> Option<(usize, Slot, Awaited)> {
        let is_meant = |pending: &Pending| matches!(&pending.held, Held::Awaited(it) if it.ticket == ticket);
        let at = self.queue.iter().position(is_meant)?;
        let pending = self.queue.remove(at)?;
        self.discount(&pending);
        let Pending { events, earlier, held, .. } = pending;
        match held {
            Held::Awaited(awaited) => Some((at, Slot { events, earlier }, *awaited)),
            Held::Answer(_) => None,
        }
    }

    /// Puts one back where one was taken out.
    pub(super) fn insert(&mut self, at: usize, pending: Pending) {
        self.count(&pending);
        self.queue.insert(at, pending);
    }

    /// Drops those that wait for a backend.
    pub(super) fn drop_awaited(&mut self) {
        self.queue.retain(|pending| matches!(pending.held, Held::Answer(_)));
        self.awaited = 0;
        self.repeated = self.queue.iter().filter(|pending| pending.earlier.is_some()).count();
    }

    /// Drops all.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// One waits for what an earlier session published.
    pub(super) fn waits_for_earlier(&self) -> bool {
        self.repeated > 0 && self.queue.iter().any(Pending::waits_for_earlier)
    }

    fn count(&mut self, pending: &Pending) {
        self.awaited += usize::from(matches!(pending.held, Held::Awaited(_)));
        self.repeated += usize::from(pending.earlier.is_some());
    }

    fn discount(&mut self, pending: &Pending) {
        self.awaited -= usize::from(matches!(pending.held, Held::Awaited(_)));
        self.repeated -= usize::from(pending.earlier.is_some());
    }
}

/// What an answer inherits from the wait in whose place it stands.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) events: u64,
    pub(super) earlier: Option<Milestone>,
}

/// An answer held back.
#[derive(Debug)]
pub(super) struct Pending {
    /// This session's events up to this ordinal must be durable first …
    pub(super) events: u64,
    /// … and its station's state changes up to this one.
    pub(super) states: u64,
    /// … or, for the answer to a repeated CALL, what its first answer waited for, perhaps in an earlier session.
    pub(super) earlier: Option<Milestone>,
    /// What is held.
    pub(super) held: Held,
}

impl Pending {
    /// What the first answer waited for is not durable yet.
    pub(super) fn waits_for_earlier(&self) -> bool {
        self.earlier.as_ref().is_some_and(|milestone| !milestone.is_reached())
    }
}

/// What is held.
#[derive(Debug)]
pub(super) enum Held {
    /// An answer to the station.
    Answer(Answer),
    /// The place of an answer that a backend is to give.
    Awaited(Box<Awaited>),
}

/// An answer to the station.
#[derive(Debug)]
pub(super) struct Answer {
    /// The station's message id as a JSON string literal, to be echoed byte for byte.
    pub(super) id_json: String,
    /// The action answered: a name from the table, `None` if there is none.
    pub(super) action: Option<&'static str>,
    /// What is said.
    pub(super) content: Content,
    /// When the frame was read.
    pub(super) read_at: Instant,
    /// No event tells of it: the station is told again what it was told before, or the operator has called such messages
    /// expendable.
    pub(super) quiet: bool,
    /// Who answers, where the CALL's event said that a backend would.
    pub(super) by: Option<AnsweredBy>,
    /// It answers a BootNotification for which commands wait.
    pub(super) settles_boot: bool,
    /// Ends when the answer is handed to the socket's writer.
    pub(super) span: Option<Span>,
}

/// A CALL that a backend is to answer.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) ticket: Ticket,
    pub(super) question: Question,
    /// When the fallback applies.
    pub(super) until: Instant,
    /// The station's message id as a JSON string literal.
    pub(super) id_json: String,
    pub(super) action: &'static Action,
    pub(super) read_at: Instant,
    pub(super) key: CallKey,
    /// What the CALL's event must reach, in this session or in the one that published it.
    pub(super) milestone: Milestone,
    pub(super) fallback: Prepared,
    /// Goes on with the answer.
    pub(super) span: Option<Span>,
    /// Counts it as awaited for as long as it exists.
    pub(super) _counted: Counted,
}

/// What a station gets if no backend answers. Made ready when the CALL is read, so that its payload need not be kept.
#[derive(Debug)]
pub(super) enum Prepared {
    /// This.
    Content(Content),
    /// The built-in answer to BootNotification.
    Boot,
    /// The built-in answer to a 1.6 StartTransaction, with a transaction id that is given out only then.
    Start(StartKey),
    /// Nothing.
    Silence,
}

/// One on a gauge until it is dropped.
#[derive(Debug)]
pub(super) struct Counted(IntGauge);

impl Counted {
    /// One more.
    pub(super) fn on(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What an answer says.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// CALLRESULT with this payload.
    Result(String),
    /// CALLRESULT that carries the time and nothing from the request: written when it leaves, so that a station that had
    /// to wait does not set its clock back by the wait.
    ResultWithTime(&'static Action),
    /// CALLERROR.
    Error(ErrorCode, String),
    /// CALLERROR with details, a JSON object.
    ErrorWithDetails(ErrorCode, String, Box<RawValue>),
    /// CALLRESULTERROR (2.1).
    ResultError(ErrorCode, String),
}

impl Content {
    /// How the CALL ended, for its metric: `answered`, or the error code.
    pub(super) fn outcome(&self, version: Version) -> &'static str {
        match self {
            Self::Result(_) | Self::ResultWithTime(_) => "answered",
            Self::Error(code, _) | Self::ErrorWithDetails(code, ..) | Self::ResultError(code, _) => {
                code.as_str(version)
            }
        }
    }
}

impl From<Reply> for Content {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Payload(payload) => Self::Result(Box::<str>::from(payload).into_string()),
            Reply::Error { code, description, details: Some(details) } => {
                Self::ErrorWithDetails(code, description, details)
            }
            Reply::Error { code, description, details: None } => Self::Error(code, description),
        }
    }
}
