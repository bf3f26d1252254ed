//! Every operation of the admin API, as one service and one OpenAPI document.
//!
//! Owns what all operations have in common: how a path and a method find their handler, what is refused before one is reached, the
//! document and the index page. Both are made from the operations themselves, so what is documented and what is served
//! cannot differ. Knows no path but its own two.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue};
use hyper::{Method, StatusCode};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa::openapi::path::{ParameterIn, PathItem, Paths};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::extract::{Json, normalize_path, nothing_at};
use super::problem::{self, Problem, ProblemDetails};
use super::{answers, batches, commands, disconnect, events, health, stations};
use crate::answers::Answers;
use crate::command::router::Router as Commands;
use crate::registry::Registry;

/// What the operations use, each its own part.
pub(crate) struct Api {
    pub(crate) health: health::Sources,
    pub(crate) stations: stations::Directory,
    pub(crate) commands: Arc<Commands>,
    pub(crate) backend: Arc<Answers>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: events::Subscriptions,
}

/// A path with its methods, their handlers and their documentation; its state is in it.
pub(super) type Operation = UtoipaMethodRouter<Pages>;

/// What is served about the interface itself.
#[derive(Clone)]
pub(super) struct Pages {
    document: Arc<Document>,
    index: Arc<str>,
}

impl Api {
    /// The whole API as a service. The order of operations is that of the index page.
    pub(crate) fn into_router(self) -> axum::Router {
        let operations = [
            self.health.operations(),
            self.stations.operations(),
            commands::operations(&self.commands),
            batches::operations(&self.commands),
            answers::operations(self.backend),
            disconnect::operations(self.registry),
            self.events.operations(),
            about_itself(),
        ];
        router(operations.into_iter().flatten())
    }
}

pub(super) fn router(operations: impl IntoIterator<Item = Operation>) -> axum::Router {
    let mut router = OpenApiRouter::with_openapi(Interface::openapi());
    let mut index = String::from("ocpp-gateway\n\n");
    for operation in operations {
        index_lines(&operation.1, &mut index);
        router = router.routes(operation);
    }
    let (router, mut document) = router.split_for_parts();
    add_refusals(&mut document);
    let offered = Arc::new(offered(&document.paths));
    let router = router
        .fallback(nothing_here)
        .layer(from_fn_with_state(offered, only_documented_methods))
        .with_state(Pages { document: Arc::new(document), index: index.into() });
    let no_store = HeaderValue::from_static("no-store");
    let service = ServiceBuilder::new()
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store))
        .layer(map_request(normalize_path))
        .service(router);
    // Layers of a router run after it has matched the path; these must run before.
    axum::Router::new().fallback_service(service)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "ocpp-gateway",
        description = "The operators' listener of one gateway. Events have a contract of their own: docs/asyncapi.yaml.",
    ),
    components(schemas(ProblemDetails))
)]
struct Interface;

/// The operations that describe the others.
pub(super) fn about_itself() -> Vec<Operation> {
    vec![routes!(openapi), routes!(index)]
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "interface",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn openapi(State(pages): State<Pages>) -> Json<Arc<Document>> {
    Json(pages.document)
}

/// What there is, for people.
#[utoipa::path(get, path = "/", tag = "interface",
    responses((status = 200, description = "One path a line", body = String, content_type = "text/plain")))]
async fn index(State(pages): State<Pages>) -> String {
    pages.index.as_ref().to_owned()
}

async fn nothing_here(OriginalUri(uri): OriginalUri) -> Problem {
    nothing_at(uri.path())
}

/// The methods of each path.
type Offered = BTreeMap<String, Vec<Method>>;

fn offered(paths: &Paths) -> Offered {
    paths
        .paths
        .iter()
        .map(|(path, item)| (path.clone(), methods(item).map(|(method, _)| method).collect()))
        .collect()
}

/// Refuses every other method. Left to itself the router would answer HEAD by what GET does, and open a stream of events for it.
async fn only_documented_methods(
    State(offered): State<Arc<Offered>>,
    path: Option<MatchedPath>,
    OriginalUri(uri): OriginalUri,
    request: Request,
    next: Next,
) -> Response {
    let method = request.method();
    match path.and_then(|path| offered.get(path.as_str())) {
        Some(methods) if !methods.contains(method) => {
            let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let detail = format!("{method} is not offered for {}", uri.path());
            let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", detail);
            ([(ALLOW, allow.join(", "))], problem).into_response()
        }
        _ => next.run(request).await,
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = (Method, &utoipa::openapi::path::Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// One operation a line: method, path, summary, query parameters.
fn index_lines(paths: &Paths, index: &mut String) {
    for (path, item) in &paths.paths {
        for (method, operation) in methods(item) {
            let summary = operation.summary.as_deref().unwrap_or_default();
            index.push_str(&format!("{:<6} {path:<38} {summary}", method.as_str()));
            let mut separator = " ?";
            for parameter in operation.parameters.iter().flatten() {
                let RefOr::T(parameter) = parameter else { continue };
                if parameter.parameter_in == ParameterIn::Query {
                    index.push_str(&format!("{separator}{}=", parameter.name));
                    separator = " &";
                }
            }
            index.push('\n');
        }
    }
}

/// Gives every documented refusal its body, and every operation the refusals that any request may meet.
fn add_refusals(document: &mut Document) {
    let problem = || Content::new(Some(Ref::from_schema_name("Problem")));
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete] {
            let Some(operation) = operation else { continue };
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.content.is_empty()
                    && !status.starts_with('2')
                {
                    response.content.insert(problem::MEDIA_TYPE.to_owned(), problem().into());
                }
            }
            let other = ResponseBuilder::new()
                .description("The request is not understood, too large or too slow")
                .content(problem::MEDIA_TYPE, problem())
                .build();
            operation.responses.responses.insert("default".to_owned(), other.into());
        }
    }
}
