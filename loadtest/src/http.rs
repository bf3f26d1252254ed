//! A small HTTP client for the gateway's admin listener: one connection a request.
//!
//! Owns time limits and the largest body that is taken whole. Streams are read by whoever asked for them.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// The largest body that is taken whole: a page of metrics is some 100 KB.
const LARGEST_BODY: usize = 16 << 20;
/// How long a request may take, body included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a command may take; more than the gateway's own limit.
const COMMAND_PATIENCE: Duration = Duration::from_secs(45);

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Not `http://HOST:PORT`.
    #[error("{0:?} is not http://HOST:PORT")]
    Url(String),
    /// TCP failed.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// HTTP failed.
    #[error("no HTTP")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("no request")]
    Request(#[from] hyper::http::Error),
    /// Longer than allowed.
    #[error("no body, or one that is too long")]
    Body,
    /// Another status than 200.
    #[error("HTTP {0}")]
    Status(StatusCode),
    /// Too slow.
    #[error("no answer in time")]
    Timeout,
}

/// A server, by its base URL.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    tasks: TaskTracker,
}

impl Http {
    /// Of `http://HOST:PORT`. Connections are served by `tasks`.
    pub fn new(base: &str, tasks: TaskTracker) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), tasks }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The text at a path.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, path: &str) -> Result<Bytes, HttpError> {
        let getting = async { whole(self.stream(path).await?).await };
        tokio::time::timeout(PATIENCE, getting).await.map_err(|_| HttpError::Timeout)?
    }

    /// Posts JSON and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer with status 200.
    pub async fn post(&self, path: &str, json: String) -> Result<Bytes, HttpError> {
        let posting = async {
            let response = self.send(Method::POST, path, json.into()).await?;
            whole(checked(response)?).await
        };
        tokio::time::timeout(COMMAND_PATIENCE, posting).await.map_err(|_| HttpError::Timeout)?
    }

    /// The body at a path, as it comes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn stream(&self, path: &str) -> Result<Incoming, HttpError> {
        let asking = self.send(Method::GET, path, Bytes::new());
        checked(tokio::time::timeout(PATIENCE, asking).await.map_err(|_| HttpError::Timeout)??)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, HttpError> {
        let wrong = || HttpError::Url(self.base.clone());
        let base: Uri = self.base.parse().map_err(|_| wrong())?;
        let authority = base.authority().filter(|_| base.scheme_str() == Some("http")).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80)))
            .await
            .map_err(HttpError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        drop(self.tasks.spawn(async move {
            // Whoever waits for the answer hears of it, too.
            drop(connection.await);
        }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        Ok(sender.send_request(request).await?)
    }
}

fn checked(response: Response<Incoming>) -> Result<Incoming, HttpError> {
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        other => Err(HttpError::Status(other)),
    }
}

async fn whole(body: Incoming) -> Result<Bytes, HttpError> {
    let collected = Limited::new(body, LARGEST_BODY).collect().await.map_err(|_| HttpError::Body)?;
    Ok(collected.to_bytes())
}
