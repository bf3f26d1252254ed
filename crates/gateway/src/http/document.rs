//! What is said about the operations: the OpenAPI document and the index page.
//!
//! Owns both, and the form in which the files of the resources hand their operations over. Both are made from the operations
//! themselves, so what is documented and what is served cannot differ.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use hyper::Method;
use utoipa::OpenApi;
use utoipa::openapi::path::{self, ParameterIn, PathItem, Paths};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::extract::Json;
use super::problem::{self, ProblemDetails};

/// A path with its methods, their handlers and their documentation; its state is in it.
pub(super) type Operation = UtoipaMethodRouter<Pages>;

/// What is served about the interface itself.
#[derive(Clone)]
pub(super) struct Pages {
    document: Arc<Document>,
    index: Arc<str>,
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

/// The methods of each path.
pub(super) type Offered = BTreeMap<String, Vec<Method>>;

/// Puts operations together: a router of them all, what is served about them, and which methods each path offers.
pub(super) fn assemble(operations: impl IntoIterator<Item = Operation>) -> (Router<Pages>, Pages, Offered) {
    let mut router = OpenApiRouter::with_openapi(Interface::openapi());
    let mut index = String::from("ocpp-gateway\n\n");
    for operation in operations {
        let (_, paths, _) = &operation;
        index.extend(paths.paths.iter().flat_map(|(path, item)| index_lines(path, item)));
        router = router.routes(operation);
    }
    let (router, mut document) = router.split_for_parts();
    add_refusals(&mut document);
    let offered = offered(&document.paths);
    (router, Pages { document: Arc::new(document), index: index.into() }, offered)
}

fn offered(paths: &Paths) -> Offered {
    paths
        .paths
        .iter()
        .map(|(path, item)| (path.clone(), methods(item).map(|(method, _)| method).collect()))
        .collect()
}

fn methods(item: &PathItem) -> impl Iterator<Item = (Method, &path::Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// One operation a line: method, path, summary, query parameters.
fn index_lines(path: &str, item: &PathItem) -> impl Iterator<Item = String> {
    methods(item).map(move |(method, operation)| {
        let summary = operation.summary.as_deref().unwrap_or_default();
        let mut line = format!("{:<6} {path:<38} {summary}", method.as_str());
        let parameters = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
            RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(&parameter.name),
            RefOr::T(_) | RefOr::Ref(_) => None,
        });
        for (index, name) in parameters.enumerate() {
            line.push_str(if index == 0 { " ?" } else { " &" });
            line.push_str(name);
            line.push('=');
        }
        line.push('\n');
        line
    })
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
