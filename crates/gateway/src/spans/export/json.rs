//! OTLP's `ExportTraceServiceRequest` as JSON: protobuf's mapping, but for ids, which are hex, and enums, which are numbers
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>). Owns the spelling only.

use std::time::UNIX_EPOCH;

use serde::Serialize;

use super::super::Ended;

/// Who sends spans.
#[derive(Debug, Serialize)]
pub(super) struct Resource {
    attributes: Vec<Attribute>,
}

impl Resource {
    /// This gateway, under OpenTelemetry's names for services.
    pub(super) fn of(node: &str) -> Self {
        let attributes = [
            ("service.name", "ocpp-gateway"),
            ("service.instance.id", node),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        Self { attributes: attributes.map(|(key, value)| attribute(key, value)).into() }
    }
}

/// A request with these spans.
pub(super) fn request(resource: &Resource, spans: &[Ended]) -> serde_json::Result<Vec<u8>> {
    let spans = spans.iter().map(Span::of).collect();
    serde_json::to_vec(&Request {
        resource_spans: [ResourceSpans {
            resource,
            scope_spans: [ScopeSpans { scope: Scope { name: "ocpp-gateway" }, spans }],
        }],
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: &'a Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    /// The trace flags; whether the parent is somebody else's is not said.
    flags: u32,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    /// 0: nothing to say. 2: an error.
    code: u8,
}

#[derive(Debug, Serialize)]
struct Attribute {
    key: String,
    value: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Value {
    string_value: String,
}

impl Span {
    fn of(ended: &Ended) -> Self {
        let start = ended.start.duration_since(UNIX_EPOCH).unwrap_or_default();
        // The monotonic clock measured the duration, so that a span never ends before it begins.
        let end = start + ended.duration;
        Self {
            trace_id: ended.context.trace_hex(),
            span_id: ended.context.span_hex(),
            parent_span_id: ended.parent.map(crate::trace::TraceParent::span_hex),
            flags: 1,
            name: ended.name.clone(),
            kind: ended.kind as u8,
            start_time_unix_nano: start.as_nanos().to_string(),
            end_time_unix_nano: end.as_nanos().to_string(),
            attributes: ended.attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
            status: Status { code: if ended.is_error { 2 } else { 0 } },
        }
    }
}

fn attribute(key: &str, value: &str) -> Attribute {
    Attribute { key: key.to_owned(), value: Value { string_value: value.to_owned() } }
}
