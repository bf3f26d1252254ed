//! Spans: how long a command or a station's CALL took, and which trace it belongs to.
//!
//! Owns which spans exist, sampling, and the bounded queue to the exporter (`spans/export.rs`). Ending a span never blocks and
//! never fails: if the queue is full, the span is dropped and counted. Without a collector no span is made, and the trace
//! context of a command is passed on unchanged.
//!
//! * `command ACTION`: from the receipt of a command to its outcome; its parent is the `traceparent` of the command.
//! * `CALL ACTION` (client): the station's part of a command, from sending the CALL to its answer.
//! * `CALL ACTION` (server): a CALL of a station, from reading its frame to handing its answer to the socket's writer.
//!
//! A connection has no span: it lasts for months, and its events say more.

pub mod endpoint;
pub mod export;
pub mod metrics;
pub mod options;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocpp_commands::Command;
use ocpp_commands::port::{CallSpan, Traces};
use ocpp_commands::trace::CommandTrace;
use ocpp_protocol::Action;
use ocpp_station::trace::{self, TraceParent};
use ocpp_station::{Outcome, Status};
use tokio::sync::mpsc;

use self::metrics::SpanMetrics;

/// The most characters of an attribute; the rest is cut off.
const MAX_ATTRIBUTE: usize = 256;

/// Makes spans, if they are exported. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tracer {
    metrics: Arc<SpanMetrics>,
    recorder: Option<Recorder>,
}

#[derive(Clone, Debug)]
struct Recorder {
    queue: mpsc::Sender<Ended>,
    /// A trace that starts here is recorded if a random number is below this.
    below: u64,
}

/// A span in progress; dropping it ends it. Boxed, because most CALLs have none and what holds one should stay small.
#[derive(Debug)]
pub struct Span(Box<Open>);

#[derive(Debug)]
struct Open {
    span: Option<Ended>,
    started: Instant,
    recorder: Recorder,
    metrics: Arc<SpanMetrics>,
}

/// A span that has ended, for the exporter.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its trace and its own id.
    pub(crate) context: TraceParent,
    /// The span that caused it.
    pub(crate) parent: Option<TraceParent>,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) start: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// Whether it failed.
    pub(crate) is_error: bool,
}

/// Who asks whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Somebody asked the gateway.
    Server,
    /// The gateway asked somebody.
    Client,
}

impl Tracer {
    /// A tracer that makes no spans.
    pub fn off(metrics: Arc<SpanMetrics>) -> Self {
        Self { metrics, recorder: None }
    }

    /// A tracer that hands its spans to a queue. It records `sampling`, from 0 to 1, of the traces that start here.
    fn on(metrics: Arc<SpanMetrics>, queue: mpsc::Sender<Ended>, sampling: f64) -> Self {
        // The cast saturates: 1.0 is everything.
        let below = (sampling * u64::MAX as f64) as u64;
        Self { metrics, recorder: Some(Recorder { queue, below }) }
    }

    /// Begins a span that started at the given moment, on both clocks. Returns none if it is not recorded: spans are not
    /// exported, the sender of the parent does not record its own, or a trace that would start here is not sampled.
    pub fn begin(
        &self,
        kind: Kind,
        parent: Option<TraceParent>,
        start: (SystemTime, Instant),
        name: impl FnOnce() -> String,
    ) -> Option<Span> {
        let context = self.recorded(parent)?;
        let recorder = self.recorder.as_ref()?;
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
            recorder: recorder.clone(),
            metrics: Arc::clone(&self.metrics),
        })))
    }

    /// Begins the span of a CALL that leaves for a station as part of a command.
    pub fn call(&self, of: CommandTrace, action: &'static str) -> CallTrace {
        let start = (SystemTime::now(), Instant::now());
        // A CALL whose command is not sampled is not sampled either.
        let span = of
            .span
            .and_then(|parent| self.begin(Kind::Client, Some(parent), start, || format!("CALL {action}")));
        CallTrace { command: of, span }
    }

    /// The ids of a new span below a parent, or at the root of a trace, if it is recorded.
    fn recorded(&self, parent: Option<TraceParent>) -> Option<TraceParent> {
        let recorder = self.recorder.as_ref()?;
        match parent {
            Some(parent) => parent.is_sampled().then(|| parent.child()),
            None => {
                let low = trace::random();
                (low < recorder.below).then(|| TraceParent::sampled_root(low))
            }
        }
    }
}

impl Traces for Tracer {
    fn stated(&self, trace: CommandTrace) {
        if trace.is_ignored {
            self.metrics.traceparent_invalid();
        }
    }

    fn admitted(&self, trace: CommandTrace) -> CommandTrace {
        self.stated(trace);
        CommandTrace { span: self.recorded(trace.parent), ..trace }
    }

    /// The span runs from when the command was accepted or written to Kafka. It is made only now,
    /// so that it survives a restart as the command does.
    fn ended(&self, command: &Command, outcome: &Outcome) {
        let (Some(context), Some(recorder)) = (command.trace.span, &self.recorder) else { return };
        // Span names are a closed set: what a backend calls an action must not become one.
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
        recorder.hand_over(span, &self.metrics);
    }
}

impl Recorder {
    fn hand_over(&self, span: Ended, metrics: &SpanMetrics) {
        // Counted first: once it is in the queue, the exporter may take it at any moment.
        metrics.span_queued();
        if self.queue.try_send(span).is_err() {
            metrics.spans_taken(1);
            metrics.spans_ended("dropped", 1);
        }
    }
}

impl Ended {
    /// Adds an attribute. A long value is cut: what a station says must not make the queue grow.
    fn set(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        let mut value = value.into();
        if let Some((end, _)) = value.char_indices().nth(MAX_ATTRIBUTE) {
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
    /// The `traceparent` for what this span causes.
    pub fn context(&self) -> Option<TraceParent> {
        self.0.span.as_ref().map(|span| span.context)
    }

    /// Adds an attribute, of at most 256 characters.
    pub fn set(&mut self, name: &'static str, value: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0.span {
            span.set(name, value);
        }
    }

    /// Marks it as failed.
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
        self.recorder.hand_over(span, &self.metrics);
    }
}

/// The place in a trace of the CALL that carries a command. Dropping it ends its span.
#[derive(Debug)]
pub struct CallTrace {
    command: CommandTrace,
    span: Option<Span>,
}

impl CallTrace {
    /// Its span, if it has one.
    pub fn span_mut(&mut self) -> Option<&mut Span> {
        self.span.as_mut()
    }
}

impl CallSpan for CallTrace {
    fn context(&self) -> Option<TraceParent> {
        self.span.as_ref().and_then(Span::context).or_else(|| self.command.context())
    }

    fn end(mut self: Box<Self>, outcome: &Outcome) {
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
            if_offline: ocpp_commands::IfOffline::Fail,
            sequence: 0,
            origin: None,
            batch: None,
            invalid: None,
            trace: CommandTrace::stated(traceparent.as_deref()),
        }
    }

    fn admitted(tracer: &Tracer, flags: Option<&str>) -> Command {
        let command = command(flags);
        Command { trace: tracer.admitted(command.trace), ..command }
    }

    #[test]
    fn the_journal_gives_a_place_in_a_trace_back() {
        let (tracer, _ended) = tracer(0.0, 1);
        for flags in [None, Some("00"), Some("01")] {
            let trace = tracer.admitted(command(flags).trace);
            let text = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<CommandTrace>(&text).unwrap(), trace, "{text}");
            assert_eq!(trace.is_empty(), flags.is_none());
        }
    }

    #[test]
    fn a_command_and_its_call_belong_to_the_callers_trace() {
        let (tracer, mut ended) = tracer(0.0, 8);
        let command = admitted(&tracer, Some("01"));
        let call = tracer.call(command.trace, "Reset");
        let (outer, inner) = (command.trace.context().unwrap(), call.context().unwrap());
        let outcome = Outcome::failed(Status::Timeout, "no answer");
        Box::new(call).end(&outcome);
        tracer.ended(&command, &outcome);
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
        let command = admitted(&tracer, Some("00"));
        assert_eq!(tracer.call(command.trace, "Reset").context(), Some(parent("00")));
        tracer.ended(&command, &Outcome::failed(Status::Offline, "away"));
        assert!(ended.try_recv().is_err());
    }

    #[test]
    fn what_stations_say_is_cut() {
        let (tracer, mut ended) = tracer(1.0, 1);
        let command = admitted(&tracer, None);
        tracer.ended(&command, &Outcome::failed(Status::Timeout, "ü".repeat(1000)));
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
            drop(tracer.call(admitted(&tracer, None).trace, "Reset"));
        }
        assert!(ended.try_recv().is_ok() && ended.try_recv().is_err());
        assert_eq!(tracer.metrics.ended("dropped"), 2);
    }
}
