//! The session's port on this node: its publishers, what waits for room, and the way to stations' states, backends and
//! commands. Decides nothing that the session decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ocpp_bus::{DurableWatermark, Publisher, Record, RecordKind};
use ocpp_commands::port::ResultGuard;
use ocpp_commands::{Dispatch, PreparedNote};
use ocpp_protocol::{Action, IdentityKey, Registration, StartKey};
use ocpp_station::delegated_calls::DelegatedCalls;
use ocpp_station::events::{self, Subject};
use ocpp_station::host::{
    Backlog, DelegatedCall, Delegation, Disconnected, Event, Host, Position, RegisteredBy,
};
use ocpp_station::inbox::Inbox;
use ocpp_station::observation::Observation;
use ocpp_station::recent_calls::RecentCalls;
use ocpp_station::{
    CloseReason, Now, Options, OutboundCall, Outcome, Session, SessionId, StationModel, Status, TraceParent,
};
use uuid::Uuid;

use super::call_span::CallSpan;
use super::metrics::Share;
use super::record;
use super::shared::Shared;
use crate::durable_point::Point;
use crate::kinds;
use crate::session::SessionHandle;
use crate::settings::Settings;
use crate::socket::DecodeError;
use crate::spans::{Kind, Span};

/// What a session publishes and asks, on this node.
pub(super) struct SocketHost {
    pub(super) session: Arc<SessionHandle>,
    pub(super) shared: Arc<Shared>,
    pub(super) publisher: Publisher,
    pub(super) states: Publisher,
    /// The command about to be sent, until the note of that is durable.
    pub(super) note: Option<Box<PreparedNote>>,
    /// The rule of the WebSocket that the station broke.
    pub(super) broken: Option<DecodeError>,
    pub(super) key: IdentityKey,
    pub(super) settings: Arc<Settings>,
    replaced: Option<SessionId>,
    /// Records in order that the bus had no room for.
    unpublished: VecDeque<Record>,
    /// Events and state changes so far, published or not.
    position: Position,
    /// Ends of commands, to be reported behind the records that wait.
    reports: VecDeque<(Dispatch, Outcome, ResultGuard)>,
    delegated: Share,
}

impl SocketHost {
    pub(super) fn new(session: Arc<SessionHandle>, shared: Arc<Shared>, replaced: Option<SessionId>) -> Self {
        Self {
            publisher: shared.bus.publisher(),
            states: shared.journal.publisher(),
            note: None,
            broken: None,
            key: session.admission.identity.folded(),
            settings: Arc::clone(&session.admission.settings),
            replaced,
            unpublished: VecDeque::new(),
            position: Position::default(),
            reports: VecDeque::new(),
            delegated: Share::of(&shared.metrics.answers.awaited),
            session,
            shared,
        }
    }

    /// Tells how far events and state changes are durable.
    pub(super) fn watermarks(&self) -> (DurableWatermark, DurableWatermark) {
        (self.publisher.watermark(), self.states.watermark())
    }

    /// Looks at what holds for the station now, if something has changed. Whether it did.
    pub(super) fn refresh_settings(&mut self) -> bool {
        let is_asked = self.session.take_settings_changed();
        if is_asked {
            let listener = self.session.listener_tags();
            self.settings = self.shared.stations.settings(&self.shared.settings, &listener, &self.key);
            self.session.settings.store(Arc::clone(&self.settings));
        }
        is_asked
    }

    /// The first record that waits for room: where, and how much.
    pub(super) fn unpublished(&self) -> Option<(RecordKind, u32)> {
        self.unpublished.front().map(|record| (record.kind, record.cost()))
    }

    /// Publishes what there is room for by now, and reports what waited behind it.
    pub(super) fn publish_what_fits(&mut self) {
        while let Some(record) = self.unpublished.pop_front() {
            if let Err(record) = self.try_publish(record) {
                self.unpublished.push_front(record);
                return;
            }
        }
        self.unpublished = VecDeque::new();
        for (dispatch, outcome, guard) in self.reports.drain(..) {
            dispatch.finish(outcome, guard);
        }
    }

    /// Shows others how the session is doing.
    pub(super) fn show(&mut self, core: &Session<Self>) {
        if core.is_ending() {
            self.session.mark_ending();
        }
        let counters = &self.session.counters;
        let (messages_in, messages_out) = core.messages();
        counters.messages_in.store(messages_in, Ordering::Relaxed);
        counters.messages_out.store(messages_out, Ordering::Relaxed);
        counters.unacknowledged.store(core.unacknowledged() as u64, Ordering::Relaxed);
        counters.command_outstanding.store(core.has_command(), Ordering::Relaxed);
        self.delegated.set(core.delegated());
    }

    fn publish_event(&mut self, event: events::EncodedEvent) {
        self.position.events += 1;
        self.publish_record(record(kinds::EVENT, event));
    }

    fn publish_state(&mut self, record: Record) {
        self.position.states += 1;
        self.publish_record(record);
    }

    /// Publishes behind everything that waits for room; where nothing waits, a session has no queue of its own.
    fn publish_record(&mut self, record: Record) {
        let refused = if self.unpublished.is_empty() { self.try_publish(record).err() } else { Some(record) };
        self.unpublished.extend(refused);
    }

    fn try_publish(&mut self, record: Record) -> Result<(), Record> {
        let is_state = record.kind == kinds::STATION_STATE;
        let publisher = if is_state { &mut self.states } else { &mut self.publisher };
        publisher.try_publish(record).map(drop)
    }

    /// Notes in the journal that the session begins, before its first event may be published.
    pub(super) async fn note_beginning(&self) {
        let events = self.publisher.watermark();
        self.shared.sessions.opened(&self.session, self.connected_event(), events).await;
    }

    /// Notes in the journal that the session has ended, once its last event is durable. Nobody may wait for its events any more.
    pub(super) fn note_end(&self) {
        let events = self.publisher.watermark();
        self.shared.sessions.ended(vec![self.session.id], events, self.position.events);
    }

    /// The same bytes each time.
    fn connected_event(&self) -> events::EncodedEvent {
        let admission = &self.session.admission;
        let connected = events::Connected {
            at: self.session.connected_at,
            remote: admission.remote,
            security_profile: admission.security_profile,
            subprotocol: admission.subprotocol,
            compression: admission.deflate.is_some(),
            replaced: self.replaced,
        };
        self.shared.events.connected(self.session.subject(), &connected)
    }

    fn connected(&mut self) {
        let admission = &self.session.admission;
        let tagged = self.shared.stations.add_tags(&admission.identity, &admission.tags);
        let event = self.connected_event();
        self.publish_event(event);
        if let Some(record) = tagged {
            self.publish_state(record);
        }
    }

    fn disconnected(&mut self, ended: Disconnected) {
        let Disconnected { at, reason, close_code: code, messages_in, messages_out } = ended;
        let duration = self.session.started.elapsed();
        // From the beginning of an end to this nothing is read: a rule that was broken is the reason.
        let rule = self.broken.map(|rule| rule.to_string());
        let note = rule
            .as_deref()
            .or_else(|| self.session.operator_note().filter(|_| reason == CloseReason::Operator));
        let disconnected = events::Disconnected {
            at,
            reason,
            note,
            close_code: code,
            duration,
            messages_in: Some(messages_in),
            messages_out: Some(messages_out),
        };
        let event = self.shared.events.disconnected(self.session.subject(), &disconnected);
        let (reason, seconds) = (reason.as_str(), duration.as_secs());
        self.session.log(|| {
            tracing::info!(reason, note, code, messages_in, messages_out, seconds, "station disconnected")
        });
        self.publish_event(event);
        self.publish_what_fits();
    }

    /// Says in a span of whom and what it is.
    fn describe(&self, span: &mut Span, action: &'static str, message_id: &str) {
        let admission = &self.session.admission;
        span.set("ocpp.station.id", admission.identity.as_str().to_owned());
        span.set("ocpp.action", action);
        span.set("ocpp.version", admission.version.as_str());
        span.set("ocpp.session.id", self.session.id.to_string());
        span.set("ocpp.message.id", message_id.to_owned());
    }
}

impl Host for SocketHost {
    type Trace = CallSpan;
    type Dispatch = Dispatch;
    type Point = Point;

    fn subject(&self) -> Subject<'_> {
        self.session.subject()
    }

    fn station(&self) -> &IdentityKey {
        &self.key
    }

    fn options(&self) -> &Options {
        &self.settings.session
    }

    fn publish(&mut self, event: Event<'_>) {
        match event {
            Event::Received(time, message) => {
                let event = self.shared.events.received(self.session.subject(), time, message);
                self.publish_event(event);
            }
            Event::Sent(time, message) => {
                let event = self.shared.events.sent(self.session.subject(), time, message);
                self.publish_event(event);
            }
            Event::Connected => self.connected(),
            Event::Disconnected(ended) => self.disconnected(ended),
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn point(&self) -> Point {
        let (events, states) = self.watermarks();
        Point::new((events, self.position.events), (states, self.position.states))
    }

    fn backlog(&self) -> Backlog {
        if !self.unpublished.is_empty() {
            Backlog::Unpublished
        } else if self.publisher.unacknowledged_bytes() >= self.shared.limits.max_unacknowledged_size.as_u64()
        {
            Backlog::Unacknowledged
        } else {
            Backlog::None
        }
    }

    fn holds_too_long(&self) -> bool {
        self.shared.holds_too_long()
    }

    fn sheds(&self, action: &'static str) -> bool {
        let sheddable = &self.shared.expendable;
        sheddable.actions.iter().any(|one| one == action) && self.publisher.fill() >= sheddable.above
    }

    fn introduce(&mut self, model: StationModel) {
        self.shared.stations.introduce(&self.session.admission.identity, model);
    }

    fn register(&mut self, by: RegisteredBy) -> Registration {
        let (identity, stations) = (&self.session.admission.identity, &self.shared.stations);
        let (registration, record) = match by {
            RegisteredBy::Backend(registration) => {
                (registration, stations.registered(identity, registration))
            }
            RegisteredBy::Operator => stations.boot(identity, self.shared.registration.default),
            RegisteredBy::Fallback(registration) => stations.boot(identity, registration),
        };
        self.publish_state(record);
        registration
    }

    fn start_transaction(&mut self, now: Now, start: &StartKey) -> i32 {
        let (id, record) =
            self.shared.stations.transaction(&self.session.admission.identity, start, now.wall);
        self.publish_state(record);
        id
    }

    fn recent_calls(&self) -> &RecentCalls<Point> {
        &self.shared.recent_calls
    }

    fn delegation(&self, action: &'static Action) -> Option<Delegation> {
        let delegation = self.shared.backend.delegation(action)?;
        let fallback = self.settings.fallback.of(action).unwrap_or(delegation.fallback);
        Some(Delegation { fallback, ..delegation })
    }

    fn delegated_calls(&self) -> &DelegatedCalls {
        &self.session.delegated_calls
    }

    fn delegate(&mut self, call: &DelegatedCall<'_>) {
        self.shared.backend.ask(self.session.admission.identity.as_str(), call);
    }

    fn inbox(&self) -> &Inbox<Dispatch> {
        &self.session.inbox
    }

    fn prepare(&mut self, call: &OutboundCall<Dispatch>) -> bool {
        self.note = self.shared.dispatcher.prepare(&call.dispatch.command).map(Box::new);
        self.note.is_some()
    }

    fn defer(&mut self, call: OutboundCall<Dispatch>) -> Result<(), OutboundCall<Dispatch>> {
        self.shared.dispatcher.defer(call)
    }

    fn hand_back(&mut self, calls: Vec<OutboundCall<Dispatch>>, status: Status) {
        // Or the way of the commands would lead here again.
        self.session.mark_ending();
        self.shared.dispatcher.hand_back(calls, status);
    }

    fn finished(&mut self, call: OutboundCall<Dispatch>, outcome: Outcome) {
        let mut dispatch = call.dispatch;
        if let Some(span) = dispatch.span.take() {
            span.end(&outcome);
        }
        self.reports.push_back((dispatch, outcome, Box::new(self.session.hold_for_result())));
        self.publish_what_fits();
    }

    fn has_unpublished_results(&self) -> bool {
        self.session.has_unpublished_results()
    }

    fn station_ready(&mut self, is_ready: bool) {
        self.session.mark_ready(is_ready);
        if is_ready {
            self.shared.dispatcher.station_ready(&self.key);
        }
    }

    fn message_id(&mut self) -> String {
        Uuid::now_v7().to_string()
    }

    fn trace_call(&mut self, now: Now, action: &'static str, message_id: &str) -> CallSpan {
        let start = (now.wall, now.monotonic);
        let mut span = self.shared.tracer.begin(Kind::Server, None, start, || format!("CALL {action}"));
        if let Some(span) = &mut span {
            self.describe(span, action, message_id);
        }
        CallSpan(span)
    }

    fn trace_command(
        &mut self,
        _: Now,
        call: &mut OutboundCall<Dispatch>,
        message_id: &str,
    ) -> Option<TraceParent> {
        let action = call.action.name;
        let mut trace = self.shared.tracer.call(call.dispatch.command.trace, action);
        if let Some(span) = trace.span_mut() {
            self.describe(span, action, message_id);
        }
        call.dispatch.span.insert(Box::new(trace)).context()
    }

    fn observe(&mut self, what: Observation<'_>) {
        self.count(what);
    }
}
