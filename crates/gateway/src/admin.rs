//! The operators' listener: health, metrics and the API, as thin HTTP.
//!
//! Owns routing and the shape of answers and errors (`application/problem+json`, RFC 9457). Every decision is made
//! elsewhere: this parses, calls, and maps outcomes to status codes. Never on the stations' port.

mod commands;
mod disconnect;
mod events;
mod health;
mod stations;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Readiness;
use crate::command::router::Router;
use crate::registry::Registry;
use crate::session::shared::Shared;

/// The largest request body: a command with the largest payload that a station would take.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send its request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The operators' listener.
pub struct Admin {
    /// Sends commands.
    pub router: Arc<Router>,
    /// The buses, the stations, the metrics.
    pub shared: Arc<Shared>,
    /// The sessions.
    pub registry: Arc<Registry>,
    /// Whether the gateway is ready.
    pub readiness: Arc<Readiness>,
    /// Connections at once.
    pub max_connections: usize,
    /// Watchers of events at once: fewer, so that health can always be asked for.
    pub watchers: Arc<Semaphore>,
    /// Every task sits here.
    pub tasks: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// An error as HTTP says it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    /// The `Allow` header of a 405 (RFC 9110 section 15.5.6).
    allow: Option<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), allow: None }
    }

    fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "the request is not understood", detail)
    }

    fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    fn response(self) -> Response<Body> {
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = typed(self.status, "application/problem+json", Bytes::from(problem.to_string()));
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

type Answer = Result<Response<Body>, Problem>;

impl Admin {
    /// Serves until told to stop.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            // The semaphore is never closed.
            let Some(Ok(place)) = self.stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await
            else {
                return;
            };
            match self.stop.run_until_cancelled(listener.accept()).await {
                Some(Ok((stream, _))) => {
                    let this = Arc::clone(&self);
                    drop(self.tasks.spawn(async move {
                        let _place = place;
                        this.converse(stream).await;
                    }));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None => return,
            }
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let stop = self.stop.clone();
        let service = service_fn(move |request| {
            let this = Arc::clone(&self);
            async move {
                let response = this.route(request).await.unwrap_or_else(Problem::response);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(connection)).await {
            tracing::debug!(%error, "admin connection");
        }
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect::<Result<_, _>>()
            .map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let method = request.method().clone();
        match (&method, segments.as_slice()) {
            (&Method::GET, ["livez"]) => Ok(text("ok\n")),
            (&Method::GET, ["readyz"]) => Ok(self.readyz()),
            (&Method::GET, ["health"]) => Ok(self.health()),
            (&Method::GET, ["stats"]) => Ok(self.stats()),
            (&Method::GET, ["metrics"]) => self.metrics(),
            (&Method::GET, ["api", "v1", "stations"]) => self.list_stations(&query(&request)?),
            (&Method::GET, ["api", "v1", "stations", id]) => self.show_station(id),
            (&Method::PUT, ["api", "v1", "stations", id, "registration"]) => {
                self.decide_registration(id, request).await
            }
            (&Method::POST, ["api", "v1", "stations", id, "commands"]) => {
                self.send_command(id, request).await
            }
            (&Method::GET, ["api", "v1", "commands", id]) => self.show_command(id),
            (&Method::DELETE, ["api", "v1", "commands", id]) => self.call_command_back(id).await,
            (&Method::POST, ["api", "v1", "stations", id, "disconnect"]) => {
                self.disconnect_station(id, &body_of(request).await?)
            }
            (&Method::GET, ["api", "v1", "events"]) => {
                let last_event = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
                let last_event = last_event.map(str::to_owned);
                self.watch_events(&query(&request)?, last_event.as_deref())
            }
            (&Method::GET, [""]) => Ok(text(INDEX)),
            (_, path_segments) => Err(match offered(path_segments) {
                Some(allow) => Problem {
                    status: StatusCode::METHOD_NOT_ALLOWED,
                    title: "method not allowed",
                    detail: format!("{method} is not offered for {path}"),
                    allow: Some(allow),
                },
                None => Problem::not_found(format!("nothing is at {path}")),
            }),
        }
    }
}

/// The method that a path offers; none if there is nothing.
fn offered(segments: &[&str]) -> Option<&'static str> {
    match segments {
        ["api", "v1", "stations", _, "registration"] => Some("PUT"),
        ["api", "v1", "commands", _] => Some("GET, DELETE"),
        ["api", "v1", "stations", _, "commands" | "disconnect"] => Some("POST"),
        ["api", "v1", "stations", _]
        | ["api", "v1", "stations" | "events"]
        | ["livez" | "readyz" | "health" | "stats" | "metrics" | ""] => Some("GET"),
        _ => None,
    }
}

const INDEX: &str = "ocpp-gateway\n\n\
    /livez /readyz /health /stats /metrics\n\
    /api/v1/stations                      ?limit= &after= &prefix= &connected= &version=\n\
    /api/v1/stations/{id}\n\
    /api/v1/stations/{id}/registration    PUT {\"status\":\"Accepted|Pending|Rejected\"}\n\
    /api/v1/stations/{id}/commands        POST {\"action\":…,\"payload\":{…}}\n\
    /api/v1/commands/{id}                 GET; DELETE calls it back\n\
    /api/v1/stations/{id}/disconnect      POST {\"reason\":…,\"sessionId\":…}\n\
    /api/v1/events                        ?from=earliest|POSITION &station= &type= &follow=false\n";

/// The query's parameters, decoded. A parameter given twice counts once, the last time.
fn query<B>(request: &Request<B>) -> Result<std::collections::BTreeMap<String, String>, Problem> {
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

/// Refuses parameters that nothing reads: a misspelt filter would otherwise show everything.
fn only(query: &std::collections::BTreeMap<String, String>, known: &[&str]) -> Result<(), Problem> {
    match query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            Err(Problem::bad_request(format!("unknown parameter {name:?}; known are {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

async fn body_of(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let limited = http_body_util::Limited::new(request.into_body(), MAX_BODY_BYTES);
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited.collect()).await.map_err(|_| {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not come", format!("within {BODY_TIMEOUT:?}"))
    })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large",
            format!("at most {MAX_BODY_BYTES} bytes"),
        )),
        Err(error) => Err(Problem::bad_request(error.to_string())),
    }
}

fn typed(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(body: &'static str) -> Response<Body> {
    typed(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(body.as_bytes()))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => typed(status, "application/json", Bytes::from(body)),
        Err(error) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "not serializable", error.to_string()).response()
        }
    }
}

/// A body whose pieces come from a task; the bounded channel slows the task down to what the client takes.
struct StreamedBody(mpsc::Receiver<Bytes>);

impl hyper::body::Body for StreamedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
