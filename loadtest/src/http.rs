//! A small HTTP client for the gateway's admin listener: one connection per request.
//!
//! Owns timeouts and the limit on bodies that are collected. Streams are read by whoever asked for them.

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

/// The largest body that is collected: a page of metrics has some 100 KB.
const MAX_BODY: usize = 16 << 20;
/// Timeout of a request, body included.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a command; longer than the gateway's own.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(45);

/// Why a request failed.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Not `http://HOST:PORT`.
    #[error("{0:?} is not http://HOST:PORT")]
    Url(String),
    /// TCP failed.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// HTTP failed.
    #[error("the HTTP connection failed")]
    Http(#[from] hyper::Error),
    /// The request could not be built.
    #[error("the request could not be built")]
    Request(#[from] hyper::http::Error),
    /// The body could not be read, or exceeds the limit.
    #[error("no body, or one over the limit")]
    Body,
    /// A status other than 200.
    #[error("HTTP {0}")]
    Status(StatusCode),
    /// The timeout passed.
    #[error("the request timed out")]
    Timeout,
}

/// An HTTP server, by its base URL.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    tasks: TaskTracker,
}

impl Http {
    /// A client of `http://HOST:PORT`. `tasks` tracks its connections.
    pub fn new(base: &str, tasks: TaskTracker) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), tasks }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the body of a GET, collected.
    ///
    /// # Errors
    /// When there is no response with status 200 in time.
    pub async fn get(&self, path: &str) -> Result<Bytes, HttpError> {
        let getting = async { collect(self.stream(path).await?).await };
        tokio::time::timeout(TIMEOUT, getting).await.map_err(|_| HttpError::Timeout)?
    }

    /// Posts JSON and returns the body of the response.
    ///
    /// # Errors
    /// When there is no response with status 200 in time.
    pub async fn post(&self, path: &str, json: String) -> Result<Bytes, HttpError> {
        let posting = async {
            let response = self.send(Method::POST, path, json.into()).await?;
            collect(check_status(response)?).await
        };
        tokio::time::timeout(COMMAND_TIMEOUT, posting).await.map_err(|_| HttpError::Timeout)?
    }

    /// Returns the body of a GET as a stream.
    ///
    /// # Errors
    /// When there is no response with status 200 in time.
    pub async fn stream(&self, path: &str) -> Result<Incoming, HttpError> {
        let asking = self.send(Method::GET, path, Bytes::new());
        check_status(tokio::time::timeout(TIMEOUT, asking).await.map_err(|_| HttpError::Timeout)??)
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
            // Whoever waits for the response gets the error, too.
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

fn check_status(response: Response<Incoming>) -> Result<Incoming, HttpError> {
    match response.status() {
        StatusCode::OK => Ok(response.into_body()),
        other => Err(HttpError::Status(other)),
    }
}

async fn collect(body: Incoming) -> Result<Bytes, HttpError> {
    let collected = Limited::new(body, MAX_BODY).collect().await.map_err(|_| HttpError::Body)?;
    Ok(collected.to_bytes())
}
