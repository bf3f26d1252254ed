//! Spans as OTLP's messages. Owns which field holds what; the messages are generated (`opentelemetry-proto`).

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::super::{Ended, Kind};

/// This gateway, under OpenTelemetry's names for services.
pub(super) fn resource(node: &str) -> Resource {
    let attributes = [
        ("service.name", "ocpp-gateway"),
        ("service.instance.id", node),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    Resource {
        attributes: attributes.map(|(key, value)| attribute(key, value.into())).into(),
        ..Resource::default()
    }
}

/// A request that carries these spans.
pub(super) fn request(resource: Resource, spans: Vec<Ended>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "ocpp-gateway".into(), ..InstrumentationScope::default() };
    let spans = spans.into_iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn span(ended: Ended) -> Span {
    let kind = match ended.kind {
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
    };
    let code = if ended.is_error { StatusCode::Error } else { StatusCode::Unset };
    let start = nanos(ended.start);
    Span {
        trace_id: ended.context.trace_id().into(),
        span_id: ended.context.span_id().into(),
        parent_span_id: ended.parent.map(|parent| parent.span_id().into()).unwrap_or_default(),
        // Sampled; whether the parent is somebody else's is not said.
        flags: 1,
        name: ended.name,
        kind: kind.into(),
        start_time_unix_nano: start,
        // The monotonic clock measured the duration, so that a span never ends before it begins.
        end_time_unix_nano: start
            .saturating_add(u64::try_from(ended.duration.as_nanos()).unwrap_or(u64::MAX)),
        attributes: ended
            .attributes
            .into_iter()
            .map(|(key, value)| attribute(key, value.into_owned()))
            .collect(),
        status: Some(Status { code: code.into(), ..Status::default() }),
        ..Span::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}
