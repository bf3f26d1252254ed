//! The interface: every path of the operators' listener, with what it takes and gives.
//!
//! Owns the one list from which both dispatch and the OpenAPI document come (`routes.rs`). A handler here only takes a request
//! apart; what it means is in the other files of this folder. A refusal needs a status and a description only: its body and
//! what any request may meet are added to all.

use std::sync::Arc;

use hyper::StatusCode;
use utoipa::OpenApi;

use super::routes::{Ask, Handler, Refusals, Reply, document, index_page, now, text};
use crate::answers::Written;
use crate::command::batch;
use crate::command::request::{BatchRequest, CommandRequest};

use super::{
    Admin, Problem, ProblemDetails, answers, body_of, commands, disconnect, health, stations, typed,
};

/// Declares the interface. The order is that of the index page.
macro_rules! interface {
    ($($handler:ident),* $(,)?) => {
        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "ocpp-gateway",
                description = "The operators' listener of one gateway. Events have a contract of their own: docs/asyncapi.yaml.",
            ),
            paths($($handler),*),
            components(schemas(ProblemDetails)),
            modifiers(&Refusals),
        )]
        pub(super) struct Document;

        /// Each handler by its operation id, which is its name.
        pub(super) const HANDLERS: &[(&str, Handler)] = &[$((stringify!($handler), $handler)),*];
    };
}

interface! {
    livez,
    readyz,
    health,
    stats,
    metrics,
    list_stations,
    show_station,
    decide_registration,
    tag_station,
    send_command,
    show_command,
    call_command_back,
    send_batch,
    show_batch,
    call_batch_back,
    answer_call,
    disconnect_station,
    watch_events,
    openapi,
    index,
}

/// The process answers.
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
fn livez(_: Arc<Admin>, _: Ask) -> Reply {
    text("ok\n".into())
}

/// Stations are accepted and events become durable.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "Ready", body = String, content_type = "text/plain"),
    (status = 503, description = "Not ready, and why", body = String, content_type = "text/plain"),
))]
fn readyz(admin: Arc<Admin>, _: Ask) -> Reply {
    now(Ok(admin.readyz()))
}

/// The same, with the state of both buses.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "Ready", body = health::Health),
    (status = 503, description = "Not ready", body = health::Health),
))]
fn health(admin: Arc<Admin>, _: Ask) -> Reply {
    now(Ok(admin.health()))
}

/// Sessions, stations known, and what is in flight.
#[utoipa::path(get, path = "/stats", tag = "health",
    responses((status = 200, description = "At this moment", body = health::Stats)))]
fn stats(admin: Arc<Admin>, _: Ask) -> Reply {
    now(Ok(admin.stats()))
}

/// Everything that is counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus's text format", body = String, content_type = "text/plain"),
    (status = 500, description = "A metric cannot be written"),
))]
fn metrics(admin: Arc<Admin>, _: Ask) -> Reply {
    now(admin.metrics())
}

/// Stations that are known or connected, page by page.
///
/// In the order of their identities, folded to one case.
#[utoipa::path(get, path = "/api/v1/stations", tag = "stations",
    params(
        ("limit" = Option<usize>, Query, description = "Stations on a page", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
        ("prefix" = Option<String>, Query, description = "How the identity begins, in any case"),
        ("connected" = Option<bool>, Query, description = "Only those that are connected, or only those that are not"),
        ("version" = Option<String>, Query, description = "Only those connected with this OCPP version"),
        ("tag" = Option<String>, Query, description = "Only those that carry this tag"),
    ),
    responses(
        (status = 200, description = "A page", body = stations::Page),
        (status = 400, description = "A parameter is wrong or unknown"),
    ))]
fn list_stations(admin: Arc<Admin>, ask: Ask) -> Reply {
    now(admin.list_stations(&ask.query))
}

/// One station.
#[utoipa::path(get, path = "/api/v1/stations/{id}", tag = "stations",
    params(("id" = String, Path, description = "Its identity, in any case")),
    responses(
        (status = 200, description = "It is known or connected", body = stations::Station),
        (status = 404, description = "It is neither"),
    ))]
fn show_station(admin: Arc<Admin>, ask: Ask) -> Reply {
    now(admin.show_station(ask.parameters.named("id")))
}

/// Decides what a station's next BootNotification is answered with.
///
/// Durable when it is answered.
#[utoipa::path(put, path = "/api/v1/stations/{id}/registration", tag = "stations",
    params(("id" = String, Path, description = "Its identity")),
    request_body = stations::Decision,
    responses(
        (status = 200, description = "The station, as it is now", body = stations::Station),
        (status = 400, description = "No such decision, or no such identity"),
        (status = 409, description = "registration.max_stations is reached"),
    ))]
fn decide_registration(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move {
        let (parameters, request) = ask.into_parts();
        admin.decide_registration(parameters.named("id"), request).await
    })
}

/// Puts a station into groups: these tags and no others.
///
/// Durable when it is answered. A listener's own tags are added again at the station's next connection.
#[utoipa::path(put, path = "/api/v1/stations/{id}/tags", tag = "stations",
    params(("id" = String, Path, description = "Its identity")),
    request_body = stations::Tags,
    responses(
        (status = 200, description = "The station, as it is now", body = stations::Station),
        (status = 400, description = "Not tags, or no such identity"),
        (status = 409, description = "registration.max_stations is reached"),
    ))]
fn tag_station(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move {
        let (parameters, request) = ask.into_parts();
        admin.tag_station(parameters.named("id"), request).await
    })
}

/// Sends a command to a station and waits for its outcome.
///
/// Whatever the outcome, its `ocpp.command.result` event is durable when this is answered. With `Prefer: respond-async` it is
/// answered as soon as the command is taken in, durably. A `commandId` that is known gets the first outcome, and nothing is
/// sent.
#[utoipa::path(post, path = "/api/v1/stations/{id}/commands", tag = "commands",
    params(
        ("id" = String, Path, description = "The station's identity, in any case"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context: the trace that the command belongs to"),
    ),
    request_body = CommandRequest,
    responses(
        (status = 200, description = "The command ended; `status` says how", body = commands::Outcome<'static>),
        (status = 202, description = "It is kept while the station is away, or taken in", body = commands::Running<'static>),
        (status = 400, description = "This is no command"),
        (status = 409, description = "The commandId is another command's"),
        (status = 413, description = "The payload is larger than a station's messages may be"),
        (status = 503, description = "Too many commands are under way, or the gateway is leaving"),
    ))]
fn send_command(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move {
        let (parameters, request) = ask.into_parts();
        admin.send_command(parameters.named("id"), request).await
    })
}

/// A command, and its outcome if it has ended.
#[utoipa::path(get, path = "/api/v1/commands/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its commandId")),
    responses(
        (status = 200, description = "Its outcome, or how far it is", body = commands::Known<'static>),
        (status = 404, description = "It is not known, or was forgotten"),
    ))]
fn show_command(admin: Arc<Admin>, ask: Ask) -> Reply {
    now(admin.show_command(ask.parameters.named("id")))
}

/// Calls a command back that has not been sent.
#[utoipa::path(delete, path = "/api/v1/commands/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its commandId")),
    responses(
        (status = 200, description = "It has ended so", body = commands::Outcome<'static>),
        (status = 404, description = "It is not known, or was forgotten"),
        (status = 409, description = "It is being sent, or has ended"),
    ))]
fn call_command_back(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move { admin.call_command_back(ask.parameters.named("id")).await })
}

/// Sends one command to many stations, at a pace.
///
/// Each has its own `ocpp.command.result`; an `ocpp.command.summary` follows the last. Taken in, durably, when it is answered. A
/// `batchId` that is known is not sent again.
#[utoipa::path(post, path = "/api/v1/commands", tag = "commands",
    params(("traceparent" = Option<String>, Header, description = "W3C Trace Context: the trace that the commands belong to")),
    request_body = BatchRequest,
    responses(
        (status = 202, description = "It is taken in", body = batch::Summary),
        (status = 400, description = "This is no command for stations"),
        (status = 413, description = "Too many stations, or too large a payload"),
        (status = 503, description = "commands.max_batches is reached"),
    ))]
fn send_batch(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move { admin.send_batch(ask.request).await })
}

/// How a command for many stations is going.
#[utoipa::path(get, path = "/api/v1/batches/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its batchId")),
    responses(
        (status = 200, description = "It is known", body = batch::Summary),
        (status = 404, description = "It is not, or was forgotten"),
    ))]
fn show_batch(admin: Arc<Admin>, ask: Ask) -> Reply {
    now(admin.show_batch(ask.parameters.named("id")))
}

/// Calls back what has not been sent of a command for many stations.
#[utoipa::path(delete, path = "/api/v1/batches/{id}", tag = "commands",
    params(("id" = String, Path, description = "Its batchId")),
    responses(
        (status = 202, description = "What has not been sent comes to its end", body = batch::Summary),
        (status = 404, description = "It is not known, or was forgotten"),
        (status = 409, description = "It has ended"),
    ))]
fn call_batch_back(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move { admin.call_batch_back(ask.parameters.named("id")).await })
}

/// Answers a station's CALL that waits for a backend.
///
/// The first answer counts. Which actions wait, and what happens without an answer, says `[answers]` in the configuration.
#[utoipa::path(post, path = "/api/v1/stations/{id}/answers", tag = "answers",
    params(("id" = String, Path, description = "The station's identity, in any case")),
    request_body = Written,
    responses(
        (status = 200, description = "It is the first", body = answers::Taken),
        (status = 400, description = "This is no answer"),
        (status = 404, description = "No such CALL waits for a backend"),
        (status = 409, description = "The CALL has been answered, or the deadline has passed"),
        (status = 422, description = "It does not fit the CALL, which waits on"),
    ))]
fn answer_call(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move {
        let (parameters, request) = ask.into_parts();
        admin.take_answer(parameters.named("id"), request).await
    })
}

/// Asks a station's session to end.
///
/// The station is told with close code 1000 and is free to come back. The `ocpp.station.disconnected` event says when it has
/// ended.
#[utoipa::path(post, path = "/api/v1/stations/{id}/disconnect", tag = "stations",
    params(("id" = String, Path, description = "The station's identity, in any case")),
    request_body(content = Option<disconnect::Wish>, description = "May be left out"),
    responses(
        (status = 202, description = "It is asked to end", body = disconnect::Asked),
        (status = 400, description = "This is not understood"),
        (status = 404, description = "The station is not connected"),
        (status = 409, description = "It is connected by another session"),
    ))]
fn disconnect_station(admin: Arc<Admin>, ask: Ask) -> Reply {
    Box::pin(async move {
        let (parameters, request) = ask.into_parts();
        admin.disconnect_station(parameters.named("id"), &body_of(request).await?)
    })
}

/// Watches events as they become durable, as server-sent events.
///
/// Each has its CloudEvents object as `data`, its type as `event` and, on the local bus, its position as `id`. `gap`, `missed`
/// and `error` tell of the stream itself.
#[utoipa::path(get, path = "/api/v1/events", tag = "events",
    params(
        ("from" = Option<String>, Query, description = "`earliest` or a position; from now on if not given. Local bus only"),
        ("station" = Option<String>, Query, description = "Only this station's, in any case of its identity"),
        ("type" = Option<String>, Query, description = "Only events of this type"),
        ("follow" = Option<bool>, Query, description = "`false`: end with the durable end. Local bus only"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this position; counts more than `from`"),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter is wrong or unknown"),
        (status = 409, description = "The Kafka bus keeps no positions here"),
        (status = 503, description = "Half of admin.max_connections watch already"),
    ))]
fn watch_events(admin: Arc<Admin>, ask: Ask) -> Reply {
    let last = ask.request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    now(admin.watch_events(&ask.query, last))
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "interface",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
fn openapi(_: Arc<Admin>, _: Ask) -> Reply {
    now(match document() {
        Ok(document) => Ok(typed(StatusCode::OK, "application/json", document)),
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no document", error.to_string())),
    })
}

/// What there is, for people.
#[utoipa::path(get, path = "/", tag = "interface",
    responses((status = 200, description = "One path a line", body = String, content_type = "text/plain")))]
fn index(_: Arc<Admin>, _: Ask) -> Reply {
    text(index_page())
}
