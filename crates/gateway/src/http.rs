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

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use self::events::Subscriptions;
pub(crate) use self::health::Sources;
pub(crate) use self::interface::Api;
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

impl Server {
    /// Accepts connections until told to stop; beyond `max_connections` they wait to be accepted.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
        loop {
            // The semaphore is never closed.
            let Some(Ok(permit)) = self.stop.run_until_cancelled(Arc::clone(&permits).acquire_owned()).await
            else {
                return;
            };
            match self.stop.run_until_cancelled(listener.accept()).await {
                Some(Ok((stream, _))) => {
                    let connection = serve_connection(stream, self.api.clone(), self.stop.clone());
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

async fn serve_connection(stream: TcpStream, api: axum::Router, stop: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(api));
    if let Some(Err(error)) = stop.run_until_cancelled(Box::pin(connection)).await {
        tracing::debug!(%error, "admin connection");
    }
}
