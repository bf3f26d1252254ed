//! The admin API: health, metrics, stations, commands and events over HTTP, on a listener of its own and never on the stations'.
//!
//! Owns the connections: how many there may be, how long a client may take for the head of a request, and that they end with
//! the gateway. `interface.rs` lists the operations. A handler takes a request apart, asks whoever decides, and gives the outcome
//! a status; it decides nothing itself.
//!
//! To add an operation: write an async function in the file of its resource, with extractors of `extract.rs` as arguments and
//! `Json` or a `Problem` as its result; document its path, its parameters and every answer with `#[utoipa::path]`; list it in the
//! file's `operations`. Routing, `Allow`, `/` and `/api/v1/openapi.json` follow. Types that are read or written as JSON
//! derive `ToSchema`. `tests/e2e/test_openapi.py` asks for a real answer of every operation and compares it with the document.

mod answers;
mod batches;
mod commands;
mod deviations;
mod disconnect;
mod document;
mod events;
mod extract;
mod health;
mod interface;
pub(crate) mod options;
mod problem;
mod settings;
mod stations;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::header::RETRY_AFTER;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::events::Subscriptions;
pub(crate) use self::health::Sources;
pub(crate) use self::interface::Api;
use self::problem::Problem;
pub(crate) use self::settings::Settings;
pub(crate) use self::stations::Directory;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the admin API.
pub(crate) struct Server {
    pub(crate) api: axum::Router,
    /// Connections at once.
    pub(crate) max_connections: usize,
    /// Every connection is a task in here …
    pub(crate) tasks: TaskTracker,
    /// … and ends with this.
    pub(crate) stop: CancellationToken,
}

/// Connections that are accepted when no others are, to ask how the gateway is.
const PROBES: usize = 16;

/// What answers a probe, whoever else waits for an answer.
const PROBE_PATHS: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

impl Server {
    /// Accepts connections until told to stop.
    ///
    /// Beyond `max_connections`, as many again wait for their turn with what they ask; beyond these, what they ask is refused with
    /// 503. Probes are answered at once in any case, so that a gateway with many waiting commands is not taken for a dead one.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let served = Arc::new(Semaphore::new(self.max_connections));
        let queued = Arc::new(Semaphore::new(self.max_connections));
        let probes = Arc::new(Semaphore::new(PROBES));
        loop {
            match self.stop.run_until_cancelled(listener.accept()).await {
                Some(Ok((stream, _))) => {
                    let (permit, turn) = if let Ok(permit) = Arc::clone(&served).try_acquire_owned() {
                        (permit, None)
                    } else if let Ok(permit) = Arc::clone(&queued).try_acquire_owned() {
                        (permit, Some(Crowd::Waits(Arc::clone(&served))))
                    } else {
                        // The semaphore is never closed.
                        let probe = self.stop.run_until_cancelled(Arc::clone(&probes).acquire_owned()).await;
                        let Some(Ok(permit)) = probe else { return };
                        (permit, Some(Crowd::Refused))
                    };
                    let is_alone = turn.is_none();
                    let api = match turn {
                        None => self.api.clone(),
                        Some(turn) => self.api.clone().layer(from_fn_with_state(turn, in_a_crowd)),
                    };
                    let connection = serve_connection(stream, api, is_alone, self.stop.clone());
                    drop(self.tasks.spawn(async move {
                        let _permit = permit;
                        connection.await;
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
}

/// What becomes of a request, other than a probe, on a connection beyond the limit.
#[derive(Clone)]
enum Crowd {
    /// It waits for one of these.
    Waits(Arc<Semaphore>),
    /// It is refused.
    Refused,
}

async fn in_a_crowd(State(crowd): State<Crowd>, request: Request, next: Next) -> Response {
    let is_probe = PROBE_PATHS.contains(&request.uri().path());
    let _permit = match crowd {
        _ if is_probe => None,
        // The semaphore is never closed.
        Crowd::Waits(served) => served.acquire_owned().await.ok(),
        Crowd::Refused => {
            let problem = Problem::unavailable("too many connections", "admin.max_connections is reached");
            return ([(RETRY_AFTER, "1")], problem).into_response();
        }
    };
    next.run(request).await
}

async fn serve_connection(stream: TcpStream, api: axum::Router, keep_alive: bool, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keep_alive)
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(api));
    if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(connection)).await {
        tracing::debug!(%error, "admin connection");
    }
}
