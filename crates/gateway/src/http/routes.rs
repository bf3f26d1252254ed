//! From a request to its handler, and from the handlers to their document.
//!
//! Owns dispatch: paths, methods and query parameters are those of the OpenAPI document, so that what is documented and what is
//! served cannot differ. Knows no path by itself (`interface.rs`).

use std::collections::BTreeMap;
use std::future::ready;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::interface::{Document, HANDLERS};
use super::{Admin, Answer, PROBLEM, Problem, typed};

/// A request, taken apart.
pub(super) struct Ask {
    pub(super) parameters: Parameters,
    pub(super) query: BTreeMap<String, String>,
    pub(super) request: Request<Incoming>,
}

impl Ask {
    /// The path's parameters, and the request for its body.
    pub(super) fn into_parts(self) -> (Parameters, Request<Incoming>) {
        (self.parameters, self.request)
    }
}

/// What stands in the path for `{name}`, decoded.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// One that the path has. One that it has not is empty.
    pub(super) fn named(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

/// An answer on its way.
pub(super) type Reply = Pin<Box<dyn Future<Output = Answer> + Send>>;
/// What answers the requests of one path and method.
pub(super) type Handler = fn(Arc<Admin>, Ask) -> Reply;

/// An answer that is there.
pub(super) fn now(answer: Answer) -> Reply {
    Box::pin(ready(answer))
}

/// A text for people.
pub(super) fn text(body: Bytes) -> Reply {
    now(Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", body)))
}

/// The paths in force: made from the document, once.
struct Routes {
    paths: Vec<Path>,
    document: serde_json::Result<Bytes>,
    index: Bytes,
}

/// A path and what it offers.
struct Path {
    /// Its segments; `{name}` stands for any that is not empty.
    segments: Vec<String>,
    methods: Vec<Offer>,
}

struct Offer {
    method: Method,
    handler: Handler,
    /// The parameters that the query may have.
    query: Vec<String>,
}

static ROUTES: LazyLock<Routes> = LazyLock::new(Routes::new);

/// Answers a request.
pub(super) fn dispatch(admin: &Arc<Admin>, request: Request<Incoming>) -> Reply {
    match find(&request) {
        Ok((handler, parameters, query)) => handler(Arc::clone(admin), Ask { parameters, query, request }),
        Err(problem) => now(Err(problem)),
    }
}

/// The OpenAPI document.
pub(super) fn document() -> Result<Bytes, &'static serde_json::Error> {
    ROUTES.document.as_ref().map(Bytes::clone)
}

/// Every path in a line.
pub(super) fn index_page() -> Bytes {
    ROUTES.index.clone()
}

type Found = (Handler, Parameters, BTreeMap<String, String>);

fn find<B>(request: &Request<B>) -> Result<Found, Problem> {
    let path = request.uri().path();
    let segments = path
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
    let (known, parameters) = ROUTES
        .paths
        .iter()
        .find_map(|known| Some((known, known.matched(&segments)?)))
        .ok_or_else(|| Problem::not_found(format!("nothing is at {path}")))?;
    let method = request.method();
    let Some(offer) = known.methods.iter().find(|offer| offer.method == *method) else {
        let allow: Vec<&str> = known.methods.iter().map(|offer| offer.method.as_str()).collect();
        return Err(Problem {
            status: StatusCode::METHOD_NOT_ALLOWED,
            title: "method not allowed",
            detail: format!("{method} is not offered for {path}"),
            allow: Some(allow.join(", ")),
        });
    };
    // What takes no parameters does not mind any: probes and scrapers add their own.
    let query = if offer.query.is_empty() { BTreeMap::new() } else { query(request)? };
    match query.keys().find(|name| !offer.query.contains(name)) {
        // A misspelt filter would otherwise show everything.
        Some(name) => Err(Problem::bad_request(format!(
            "unknown parameter {name:?}; known are {}",
            offer.query.join(", ")
        ))),
        None => Ok((offer.handler, parameters, query)),
    }
}

/// The query's parameters, decoded. A parameter given twice counts once, the last time.
fn query<B>(request: &Request<B>) -> Result<BTreeMap<String, String>, Problem> {
    let decode = |part: &str| {
        percent_decode_str(&part.replace('+', " "))
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| Problem::bad_request("the query is not UTF-8"))
    };
    request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

impl Routes {
    fn new() -> Self {
        let document = Document::openapi();
        let mut paths: Vec<Path> = Vec::new();
        let mut index = String::from("ocpp-gateway\n\n");
        // In the order of the list above; the document sorts by path.
        for (name, handler) in HANDLERS {
            let found = document.paths.paths.iter().find_map(|(template, item)| {
                let operation =
                    |(_, operation): &(Method, &Operation)| operation.operation_id.as_deref() == Some(*name);
                operations(item).into_iter().find(operation).map(|found| (template, found))
            });
            // Each handler is in the document, because both come from one list; a test looks.
            let Some((template, (method, operation))) = found else { continue };
            let query = query_parameters(operation);
            index.push_str(&entry(&method, template, operation, &query));
            let segments: Vec<String> = template.split('/').skip(1).map(str::to_owned).collect();
            let offer = Offer { method, handler: *handler, query };
            match paths.iter_mut().find(|path| path.segments == segments) {
                Some(path) => path.methods.push(offer),
                None => paths.push(Path { segments, methods: vec![offer] }),
            }
        }
        // A segment that is spelled out goes before one that stands for any.
        paths.sort_by_key(|path| path.segments.iter().filter(|segment| is_parameter(segment)).count());
        Self { paths, document: document.to_json().map(Bytes::from), index: index.into() }
    }
}

impl Path {
    /// The parameters, if this is the path.
    fn matched(&self, segments: &[String]) -> Option<Parameters> {
        if segments.len() != self.segments.len() {
            return None;
        }
        let mut parameters = Vec::new();
        for (own, given) in self.segments.iter().zip(segments) {
            if is_parameter(own) {
                if given.is_empty() {
                    return None;
                }
                parameters.push((own.trim_matches(['{', '}']).to_owned(), given.clone()));
            } else if own != given {
                return None;
            }
        }
        Some(Parameters(parameters))
    }
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

fn operations(item: &PathItem) -> Vec<(Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?))).collect()
}

fn query_parameters(operation: &Operation) -> Vec<String> {
    let all = operation.parameters.iter().flatten();
    all.filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query => Some(parameter.name.clone()),
        RefOr::T(_) | RefOr::Ref(_) => None,
    })
    .collect()
}

/// A line of the index page.
fn entry(method: &Method, template: &str, operation: &Operation, query: &[String]) -> String {
    let summary = operation.summary.as_deref().unwrap_or_default();
    let mut line = format!("{:<6} {template:<38} {summary}", method.as_str());
    for (index, name) in query.iter().enumerate() {
        line.push_str(if index == 0 { " ?" } else { " &" });
        line.push_str(name);
        line.push('=');
    }
    line.push('\n');
    line
}

/// Gives every refusal its body, and every operation the refusals that any request may meet.
pub(super) struct Refusals;

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let problem = || Content::new(Some(Ref::from_schema_name("Problem")));
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.put, &mut item.post, &mut item.delete] {
                let Some(operation) = operation else { continue };
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response
                        && response.content.is_empty()
                        && !status.starts_with('2')
                    {
                        response.content.insert(PROBLEM.to_owned(), problem().into());
                    }
                }
                let other = ResponseBuilder::new()
                    .description("The request is not understood, too large or too slow")
                    .content(PROBLEM, problem())
                    .build();
                operation.responses.responses.insert("default".to_owned(), other.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, uri: &str) -> Result<Found, Problem> {
        find(&Request::builder().method(method).uri(uri).body(()).unwrap())
    }

    #[test]
    fn what_is_dispatched_and_what_is_documented_are_the_same() {
        let document = Document::openapi();
        let mut documented = 0;
        for (template, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                documented += 1;
                let uri = template.replace("{id}", "CP-1");
                let (handler, parameters, _) = found(method.clone(), &uri).unwrap();
                let name = operation.operation_id.as_deref().unwrap();
                let listed = HANDLERS.iter().find(|(known, _)| *known == name).unwrap();
                assert!(std::ptr::fn_addr_eq(handler, listed.1), "{method} {template}");
                let in_path = operation.parameters.iter().flatten().filter(
                    |parameter| matches!(parameter, RefOr::T(it) if it.parameter_in == ParameterIn::Path),
                );
                assert_eq!(in_path.count(), parameters.0.len(), "{method} {template}");
                assert!(operation.summary.as_ref().is_some_and(|summary| !summary.is_empty()));
            }
        }
        assert_eq!(documented, HANDLERS.len());
        assert_eq!(ROUTES.paths.iter().map(|path| path.methods.len()).sum::<usize>(), HANDLERS.len());
        let index = std::str::from_utf8(&ROUTES.index).unwrap();
        assert_eq!(index.lines().count(), HANDLERS.len() + 2);
    }

    #[test]
    fn a_path_is_found_segment_by_segment() {
        let (_, parameters, query) = found(Method::GET, "/api/v1/stations/a%2Fb%20c").ok().unwrap();
        assert_eq!(parameters.named("id"), "a/b c");
        assert!(query.is_empty());
        let status = |method, uri| found(method, uri).err().map(|problem| problem.status.as_u16());
        assert_eq!(status(Method::GET, "/api/v1/stations?limit=5&after=a+b"), None);
        assert_eq!(status(Method::GET, "/api/v1/stations?limt=5"), Some(400));
        assert_eq!(status(Method::GET, "/livez?verbose=1"), None);
        assert_eq!(status(Method::GET, "/api/v1/stations/"), Some(404));
        assert_eq!(status(Method::GET, "/api/v1/stations/%ff"), Some(400));
        assert_eq!(status(Method::DELETE, "/api/v1/stations/CP-1"), Some(405));
        assert_eq!(status(Method::GET, "/api/v2/stations"), Some(404));
    }
}
