//! The admin API as one service.
//!
//! Owns what all operations have in common: which of them there are, what is refused before a handler is reached, and the layers
//! around them. Knows no path.

use std::sync::Arc;

use axum::extract::{MatchedPath, OriginalUri, Request, State};
use axum::middleware::{Next, from_fn_with_state, map_request};
use axum::response::{IntoResponse, Response};
use hyper::header::{ALLOW, CACHE_CONTROL, HeaderValue};
use hyper::{Method, StatusCode};
use tower::ServiceBuilder;
use tower_http::set_header::SetResponseHeaderLayer;

use super::document::{Offered, Operation, about_itself, assemble};
use super::extract::{normalize_path, nothing_at};
use super::problem::Problem;
use super::{answers, batches, commands, deviations, disconnect, events, health, settings, stations};
use crate::backend::Answers;
use crate::deviations::Deviations;
use crate::registry::Registry;
use ocpp_commands::Dispatcher as Commands;

/// What the operations use, each its own part.
pub(crate) struct Api {
    pub(crate) health: health::Sources,
    pub(crate) stations: stations::Directory,
    pub(crate) settings: settings::Settings,
    pub(crate) deviations: Arc<Deviations>,
    pub(crate) commands: Arc<Commands>,
    pub(crate) backend: Arc<Answers>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) events: events::Subscriptions,
}

impl Api {
    /// The whole API as a service. The order of operations is that of the index page.
    pub(crate) fn into_router(self) -> axum::Router {
        let operations = [
            self.health.operations(),
            self.stations.operations(),
            self.settings.operations(),
            deviations::operations(self.deviations),
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

/// Operations with everything that surrounds them.
pub(super) fn router(operations: impl IntoIterator<Item = Operation>) -> axum::Router {
    let (router, pages, offered) = assemble(operations);
    let router = router
        .fallback(nothing_here)
        .layer(from_fn_with_state(Arc::new(offered), only_documented_methods))
        .with_state(pages);
    let no_store = HeaderValue::from_static("no-store");
    let service = ServiceBuilder::new()
        .layer(SetResponseHeaderLayer::if_not_present(CACHE_CONTROL, no_store))
        .layer(map_request(normalize_path))
        .service(router);
    // Layers of a router run after it has matched the path; these must run before.
    axum::Router::new().fallback_service(service)
}

async fn nothing_here(OriginalUri(uri): OriginalUri) -> Problem {
    nothing_at(uri.path())
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
