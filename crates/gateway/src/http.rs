//! The operators' listener: health, metrics and the API, as thin HTTP.
//!
//! Owns the connections and the shape of answers and errors (`application/problem+json`, RFC 9457). Every decision is made
//! elsewhere: this parses, calls, and maps outcomes to status codes. Never on the stations' port.
//!
//! To add a path: a method of [`Admin`] that answers it, in a file of `http/`; a function in `http/interface.rs` that says the
//! path, the parameters and every answer (`#[utoipa::path]`) and calls the method; its name in the list there. Dispatch,
//! `Allow`, unknown query parameters, `/` and `/api/v1/openapi.json` follow from that. What is read or written as JSON derives
//! `ToSchema`. `tests/e2e/test_openapi.py` wants a real answer of each path, and compares it with the document.

mod answers;
mod batches;
mod commands;
mod disconnect;
mod events;
mod health;
mod interface;
mod routes;
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
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use crate::command::router::Router;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::session::shared::Shared;

/// The largest request body: a command with the largest payload that a station would take.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send its request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The media type of refusals.
const PROBLEM: &str = "application/problem+json";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The operators' listener.
pub struct Admin {
    /// Sends commands.
    pub router: Arc<Router>,
    /// Every metric of this process.
    pub metrics: prometheus::Registry,
    /// Brought up to date when the metrics are asked for.
    pub stations_known: IntGauge,
    /// The buses and the stations.
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
    allow: Option<String>,
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
        let problem = ProblemDetails {
            kind: "about:blank",
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
        };
        // A struct of texts and a number can always be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = typed(self.status, PROBLEM, Bytes::from(body));
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::from_str(&allow).ok()) {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// An error as its body says it: problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
struct ProblemDetails {
    /// Always `about:blank`: the status says the kind.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind of problem, for people.
    title: &'static str,
    /// The status again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// This problem, for people.
    detail: String,
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
                let response = routes::dispatch(&this, request).await.unwrap_or_else(Problem::response);
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
