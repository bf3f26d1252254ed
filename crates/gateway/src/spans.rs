//! Spans: how long a command or a station's CALL took, and as part of which trace, for whoever collects them.
//!
//! Owns which spans there are, sampling, and the bounded way to the exporter (`spans/export.rs`). A span never waits and never
//! fails: with a full queue it is dropped and counted. Switched off, nothing is made: a trace that a command names is then carried
//! through unchanged (`trace.rs`).
//!
//! * `command ACTION`: from a command's receipt to its outcome; its parent is the `traceparent` it came with.
//! * `CALL ACTION`, a client's: the station's part of it, from the CALL's being sent to its answer.
//! * `CALL ACTION`, a server's: a CALL of a station, from its frame's being read to its answer's being handed to the socket's writer.
//!
//! A connection makes no span: it lasts for years, and its events say more.

pub mod endpoint;
pub mod export;
pub mod metrics;
pub mod options;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_protocol::Action;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use self::metrics::SpanMetrics;
use crate::command::{Command, Outcome, Status};
use ocpp_station::trace::{self, TraceParent};

/// Characters of an attribute that are kept.
const LONGEST_ATTRIBUTE: usize = 256;

/// Makes spans, if somebody wants them.
#[derive(Clone, Debug)]
pub struct Tracer {
    metrics: Arc<SpanMetrics>,
    wanted: Option<Wanted>,
}

#[derive(Clone, Debug)]
struct Wanted {
    queue: mpsc::Sender<Ended>,
    /// A trace that begins here is recorded if its number is below.
    below: u64,
}

/// A span in progress. It ends when it is dropped; off the hot path, so that whatever holds one stays small.
#[derive(Debug)]
pub struct Span(Box<Open>);

#[derive(Debug)]
struct Open {
    /// Taken out at the end.
    span: Option<Ended>,
    started: Instant,
    wanted: Wanted,
    metrics: Arc<SpanMetrics>,
}

/// A span that has ended, for the exporter.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its trace and itself.
    pub(crate) context: TraceParent,
    /// The span it belongs to.
    pub(crate) parent: Option<TraceParent>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) start: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// It did not end as it should.
    pub(crate) is_error: bool,
}

/// Who asks whom, in OTLP's numbers (`SpanKind`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Somebody asked the gateway.
    Server = 2,
    /// The gateway asked somebody.
    Client = 3,
}

impl Tracer {
    /// One that makes no spans.
    pub fn off(metrics: Arc<SpanMetrics>) -> Self {
        Self { metrics, wanted: None }
    }

    /// One that hands its spans to a queue. `sampling`: the share, from 0 to 1, of the traces beginning here that are recorded.
    fn on(metrics: Arc<SpanMetrics>, queue: mpsc::Sender<Ended>, sampling: f64) -> Self {
        // The cast saturates: 1.0 is everything.
        let below = (sampling * u64::MAX as f64) as u64;
        Self { metrics, wanted: Some(Wanted { queue, below }) }
    }

    /// Begins a span at a moment that has just been. None if nobody wants it: spans are not exported, the parent's sender
    /// does not record its own, or a trace that would begin here is not in the sample.
    pub fn begin(
        &self,
        kind: Kind,
        parent: Option<TraceParent>,
        start: (SystemTime, Instant),
        name: impl FnOnce() -> String,
    ) -> Option<Span> {
        let context = self.recorded(parent)?;
        let wanted = self.wanted.as_ref()?;
        let span = Ended {
            context,
            parent,
            kind,
            name: name(),
            start: start.0,
            duration: Duration::ZERO,
            attributes: Vec::with_capacity(8),
            is_error: false,
        };
        Some(Span(Box::new(Open {
            span: Some(span),
            started: start.1,
            wanted: wanted.clone(),
            metrics: Arc::clone(&self.metrics),
        })))
    }

    /// A command with its place in a trace, as it is taken in.
    pub fn admitted(&self, command: Command) -> Command {
        self.stated(command.trace);
        let trace = CommandTrace { span: self.recorded(command.trace.parent), ..command.trace };
        Command { trace, ..command }
    }

    /// What a command or a batch came with: counted if it breaks the rules.
    pub fn stated(&self, trace: CommandTrace) {
        if trace.is_ignored {
            self.metrics.traceparent_invalid();
        }
    }

    /// A command has ended: its span, from when it was taken in, or written to Kafka. It is made at its end only, so that it
    /// outlives a restart as the command does.
    pub fn command_ended(&self, command: &Command, outcome: &Outcome) {
        let (Some(context), Some(wanted)) = (command.trace.span, &self.wanted) else { return };
        // The name is one of a few: whatever a backend calls an action must not become one.
        let action = Action::find(&command.action).map_or("unknown", |known| known.name);
        let mut span = Ended {
            context,
            parent: command.trace.parent,
            kind: Kind::Server,
            name: format!("command {action}"),
            start: command.taken_at,
            duration: SystemTime::now().duration_since(command.taken_at).unwrap_or_default(),
            attributes: Vec::with_capacity(6),
            is_error: false,
        };
        span.set("ocpp.station.id", command.station.clone());
        span.set("ocpp.command.id", command.id.to_string());
        span.set("ocpp.action", command.action.clone());
        span.end_as(outcome);
        wanted.hand_over(span, &self.metrics);
    }

    /// A CALL leaves for a station as part of a command.
    pub fn call(&self, of: CommandTrace, action: &'static str) -> CallTrace {
        let start = (SystemTime::now(), Instant::now());
        // Only as part of a span: a CALL whose command is not in the sample is not in it either.
        let span = of
            .span
            .and_then(|parent| self.begin(Kind::Client, Some(parent), start, || format!("CALL {action}")));
        CallTrace { command: of, span }
    }

    /// A new span under a parent, or at the root of a trace, if it is to be recorded.
    fn recorded(&self, parent: Option<TraceParent>) -> Option<TraceParent> {
        let wanted = self.wanted.as_ref()?;
        match parent {
            Some(parent) => parent.is_sampled().then(|| parent.child()),
            None => {
                let low = trace::random();
                (low < wanted.below).then(|| TraceParent::sampled_root(low))
            }
        }
    }
}

impl Wanted {
    fn hand_over(&self, span: Ended, metrics: &SpanMetrics) {
        // Counted first: the exporter may take it out before this goes on.
        metrics.span_queued();
        if self.queue.try_send(span).is_err() {
            metrics.spans_taken(1);
            metrics.spans_ended("dropped", 1);
        }
    }
}

impl Ended {
    /// Adds an attribute. A long text is cut: what waits in the queue must not grow with what stations say.
    fn set(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        let mut value = value.into();
        if let Some((end, _)) = value.char_indices().nth(LONGEST_ATTRIBUTE) {
            value = value[..end].to_owned().into();
        }
        self.attributes.push((name, value));
    }

    fn end_as(&mut self, outcome: &Outcome) {
        self.set("ocpp.outcome", outcome.status.as_str());
        if let Some(error) = &outcome.error {
            self.set("ocpp.error", format!("{}: {}", error.code, error.description));
        }
        self.is_error = outcome.status != Status::Answered;
    }
}

impl Span {
    /// What `traceparent` is for whatever this span causes.
    pub fn context(&self) -> Option<TraceParent> {
        self.0.span.as_ref().map(|span| span.context)
    }

    /// Adds an attribute. A long text is cut.
    pub fn set(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0.span {
            span.set(name, value);
        }
    }

    /// It does not end as it should.
    pub fn failed(&mut self) {
        if let Some(span) = &mut self.0.span {
            span.is_error = true;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(mut span) = self.span.take() else { return };
        span.duration = self.started.elapsed();
        self.wanted.hand_over(span, &self.metrics);
    }
}

/// A command's place in a trace. The journal keeps it for as long as the command.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct CommandTrace {
    /// What it came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<TraceParent>,
    /// Its own span, if it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<TraceParent>,
    /// What it came with breaks the rules.
    #[serde(skip)]
    is_ignored: bool,
}

impl CommandTrace {
    /// That of a command that came with this `traceparent`. One that breaks the rules counts as none.
    pub fn stated(traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(TraceParent::parse);
        Self { parent, span: None, is_ignored: traceparent.is_some() && parent.is_none() }
    }

    /// What `traceparent` is for whatever comes of it: its own span, or else what it came with, unchanged.
    pub fn context(self) -> Option<TraceParent> {
        self.span.or(self.parent)
    }

    /// That of each command of a batch which came with this.
    #[must_use]
    pub fn of_each(self) -> Self {
        Self { is_ignored: false, ..self }
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.context().is_none()
    }
}

/// The place in a trace of the CALL that carries a command. Ends its span when it is dropped.
#[derive(Debug)]
pub struct CallTrace {
    command: CommandTrace,
    span: Option<Span>,
}

impl CallTrace {
    /// What `traceparent` is for whatever comes of it.
    pub fn context(&self) -> Option<TraceParent> {
        self.span.as_ref().and_then(Span::context).or_else(|| self.command.context())
    }

    /// Its span, if it has one.
    pub fn span_mut(&mut self) -> Option<&mut Span> {
        self.span.as_mut()
    }

    /// Says how it ended.
    pub fn end(mut self, outcome: &Outcome) {
        if let Some(ended) = self.span.as_mut().and_then(|span| span.0.span.as_mut()) {
            ended.end_as(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use ocpp_bus::Registrar;

    use super::*;

    fn tracer(sampling: f64, queue: usize) -> (Tracer, mpsc::Receiver<Ended>) {
        let metrics = Arc::new(SpanMetrics::register(&Registrar::default()).unwrap());
        let (sender, receiver) = mpsc::channel(queue);
        (Tracer::on(metrics, sender, sampling), receiver)
    }

    fn parent(flags: &str) -> TraceParent {
        TraceParent::parse(&format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}")).unwrap()
    }

    fn command(flags: Option<&str>) -> Command {
        let traceparent = flags.map(|flags| parent(flags).to_string());
        Command {
            id: "c-1".into(),
            station: "CP-1".into(),
            key: ocpp_protocol::IdentityKey::of("CP-1"),
            action: "Reset".into(),
            payload: serde_json::value::RawValue::from_string("{}".into()).unwrap().into(),
            timeout: Duration::from_secs(1),
            taken_at: SystemTime::now(),
            expires_at: None,
            if_offline: crate::command::IfOffline::Fail,
            sequence: 0,
            origin: None,
            batch: None,
            flaw: None,
            trace: CommandTrace::stated(traceparent.as_deref()),
        }
    }

    #[test]
    fn the_journal_gives_a_place_in_a_trace_back() {
        let (tracer, _ended) = tracer(0.0, 1);
        for flags in [None, Some("00"), Some("01")] {
            let trace = tracer.admitted(command(flags)).trace;
            let text = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<CommandTrace>(&text).unwrap(), trace, "{text}");
            assert_eq!(trace.is_empty(), flags.is_none());
        }
    }

    #[test]
    fn a_command_and_its_call_belong_to_the_callers_trace() {
        let (tracer, mut ended) = tracer(0.0, 8);
        let command = tracer.admitted(command(Some("01")));
        let call = tracer.call(command.trace, "Reset");
        let (outer, inner) = (command.trace.context().unwrap(), call.context().unwrap());
        let outcome = Outcome::failed(Status::Timeout, "no answer");
        call.end(&outcome);
        tracer.command_ended(&command, &outcome);
        let (first, second) = (ended.try_recv().unwrap(), ended.try_recv().unwrap());
        assert_eq!((first.context, first.parent, first.kind), (inner, Some(outer), Kind::Client));
        assert_eq!((second.context, second.parent, second.kind), (outer, Some(parent("01")), Kind::Server));
        assert_eq!(outer.trace_id(), parent("01").trace_id());
        assert!(first.is_error && first.attributes.contains(&("ocpp.outcome", "timeout".into())));
        assert_eq!(second.name, "command Reset");
    }

    #[test]
    fn what_the_caller_does_not_record_is_carried_through_and_not_recorded() {
        let (tracer, mut ended) = tracer(1.0, 8);
        let command = tracer.admitted(command(Some("00")));
        assert_eq!(tracer.call(command.trace, "Reset").context(), Some(parent("00")));
        tracer.command_ended(&command, &Outcome::failed(Status::Offline, "away"));
        assert!(ended.try_recv().is_err());
    }

    #[test]
    fn what_stations_say_is_cut() {
        let (tracer, mut ended) = tracer(1.0, 1);
        let command = tracer.admitted(command(None));
        tracer.command_ended(&command, &Outcome::failed(Status::Timeout, "ü".repeat(1000)));
        let span = ended.try_recv().unwrap();
        let error = span.attributes.iter().find(|(name, _)| *name == "ocpp.error").unwrap();
        assert_eq!(error.1, format!("timeout: {}", "ü".repeat(247)));
    }

    #[test]
    fn the_sample_is_as_large_as_asked() {
        let begun = |sampling| {
            let (tracer, _ended) = tracer(sampling, 1);
            let start = (SystemTime::now(), Instant::now());
            let begin = || tracer.begin(Kind::Server, None, start, String::new);
            (0..4000).filter(|_| begin().is_some()).count()
        };
        assert_eq!(begun(0.0), 0);
        assert_eq!(begun(1.0), 4000);
        // Nine standard deviations around a quarter.
        assert!((750..1250).contains(&begun(0.25)));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tracer, mut ended) = tracer(1.0, 1);
        for _ in 0..3 {
            drop(tracer.call(tracer.admitted(command(None)).trace, "Reset"));
        }
        assert!(ended.try_recv().is_ok() && ended.try_recv().is_err());
        assert_eq!(tracer.metrics.ended("dropped"), 2);
    }
}
