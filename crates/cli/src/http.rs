//! The client of the admin API: requests, their limits of time and size, and the gateway's reasons for refusing one.
//!
//! Owns the connection (hyper-util's client, rustls). Follows no redirects and uses no proxy: it connects to the given
//! address and to no other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::time::timeout;

use super::Failure;
use super::origin::{InvalidOrigin, Origin};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the head of most responses, and again for a body.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Enough for a page of a thousand stations and for the largest answer of a station.
const LARGEST_PAGE: usize = 128 << 20;
/// Everything but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The admin API of one gateway.
#[derive(Debug)]
pub(super) struct Api {
    origin: Origin,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why there is no complete response.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] InvalidOrigin),
    /// The system's certificates cannot be read; they are needed for https only.
    #[error("cannot read the system's root certificates")]
    Roots(#[source] std::io::Error),
    /// The name does not resolve, the connection is refused, or the TLS handshake fails.
    #[error("cannot connect to {address}: {cause}")]
    Connect { address: String, cause: String },
    /// No response in time.
    #[error("{address} did not answer within {limit:?}")]
    Timeout { address: String, limit: Duration },
    /// The body is larger than any that a gateway sends.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or the other side does not speak HTTP.
    #[error("the connection broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A successful response whose body has yet to be read.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: StatusCode,
    address: String,
    body: Incoming,
}

/// The part of a problem document (RFC 9457) that is shown.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Api {
    /// Does not connect yet.
    ///
    /// # Errors
    /// When the address is https and the system's certificates cannot be read.
    pub(super) fn new(origin: Origin) -> Result<Self, ClientError> {
        let client = client(origin.is_https())?;
        Ok(Self { origin, client })
    }

    /// Sends a `GET` and reads the whole body.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        let request = Request::new(Full::default());
        Ok(self.send(request, path, PAGE_TIMEOUT).await?.collect().await?)
    }

    /// Sends a `POST` with a JSON body and waits for the response for at most `limit`.
    pub(super) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.send(request, path, limit).await?;
        let status = response.status;
        Ok((status, response.collect().await?))
    }

    /// Sends a `GET` for a stream of events, which resumes after the event at a position if one is given.
    pub(super) async fn watch(&self, path: &str, after: Option<u64>) -> Result<Response, Failure> {
        let mut request = Request::new(Full::default());
        if let Some(position) = after {
            request.headers_mut().insert("last-event-id", HeaderValue::from(position));
        }
        self.send(request, path, PAGE_TIMEOUT).await
    }

    /// Sends a request and waits for the response's head. A status other than 2xx is a failure with the gateway's reason.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        path: &str,
        limit: Duration,
    ) -> Result<Response, Failure> {
        *request.uri_mut() = self.origin.join(path).map_err(ClientError::Address)?;
        let address = self.origin.address();
        let answer = timeout(limit, self.client.request(request))
            .await
            .map_err(|_| ClientError::Timeout { address: address.to_owned(), limit })?
            .map_err(|error| request_failed(address, error))?;
        let status = answer.status();
        let response = Response { status, address: address.to_owned(), body: answer.into_body() };
        if status.is_success() {
            return Ok(response);
        }
        let detail = match serde_json::from_slice::<Problem>(&response.collect().await?) {
            Ok(problem) => problem.detail,
            Err(_) => format!("{} does not answer as a gateway's admin listener does", self.origin),
        };
        Err(Failure::Refused { status, detail })
    }
}

impl Response {
    async fn collect(self) -> Result<Bytes, ClientError> {
        let Self { address, body, .. } = self;
        let collected = timeout(PAGE_TIMEOUT, Limited::new(body, LARGEST_PAGE).collect()).await;
        match collected.map_err(|_| ClientError::Timeout { address, limit: PAGE_TIMEOUT })? {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(ClientError::TooLarge(LARGEST_PAGE)),
            Err(error) => Err(ClientError::Broken(error)),
        }
    }

    /// The body in the pieces in which it arrives. Fails when nothing has arrived for `limit`.
    pub(super) fn pieces(self, limit: Duration) -> impl Stream<Item = Result<Bytes, ClientError>> {
        stream::try_unfold(self, move |mut response| async move {
            loop {
                let address = || response.address.clone();
                let next = timeout(limit, response.body.frame()).await;
                let Some(frame) = next.map_err(|_| ClientError::Timeout { address: address(), limit })?
                else {
                    return Ok(None);
                };
                // Trailers are skipped.
                if let Ok(piece) = frame.map_err(|error| ClientError::Broken(error.into()))?.into_data() {
                    return Ok(Some((piece, response)));
                }
            }
        })
    }
}

fn client(is_https: bool) -> Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, ClientError> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(is_https).map_err(ClientError::Roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// Trusts the system's certificates, and reads them only when they are needed: containers often have none.
fn tls(is_https: bool) -> std::io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?;
    let builder = if is_https {
        builder.with_native_roots()?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// Leaves out the client's generic messages ("client error", "tcp connect error") and keeps the cause.
fn request_failed(address: &str, error: legacy::Error) -> ClientError {
    let address = address.to_owned();
    if !error.is_connect() {
        return match std::error::Error::source(&error).map(super::chain) {
            Some(cause) => ClientError::Broken(cause.into()),
            None => ClientError::Broken(error.into()),
        };
    }
    let mut cause: &(dyn std::error::Error + 'static) = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let is_timeout = cause
        .downcast_ref::<std::io::Error>()
        .is_some_and(|cause| cause.kind() == std::io::ErrorKind::TimedOut && cause.raw_os_error().is_none());
    if is_timeout {
        ClientError::Timeout { address, limit: CONNECT_TIMEOUT }
    } else {
        ClientError::Connect { address, cause: cause.to_string() }
    }
}
/// Percent-encodes a text as one segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Appends the parameters that have a value to a path.
pub(super) fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut whole = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            whole.push(separator);
            whole.push_str(name);
            whole.push('=');
            whole.push_str(&encoded(value));
            separator = '&';
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_parameters_are_sent_and_values_are_encoded() {
        let parameters = [("limit", Some("5")), ("version", None), ("prefix", Some("A&b=c/ü"))];
        assert_eq!(with_query("/stations", &parameters), "/stations?limit=5&prefix=A%26b%3Dc%2F%C3%BC");
        assert_eq!(with_query("/stations", &[("after", None)]), "/stations");
    }
}
