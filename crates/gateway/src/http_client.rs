//! HTTP/1.1 as a client: one request on a connection of its own.
//!
//! Owns addresses, connecting, and limits of time and size. Does not know what is asked or answered. Plain `http` only:
//! what the gateway asks is beside it or behind a proxy that speaks TLS. No task is spawned: whoever reads the answer
//! drives the connection, and dropping the answer closes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not an address that can be asked.
    #[error("{0:?} is not an address like http://HOST:PORT")]
    Address(String),
    /// Nobody listens there, or the name has no address.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The time was over.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The answer is larger than whoever asked wants to keep.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came is not HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
}

/// Where requests go: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Host and port.
    address: String,
    /// What comes before every request's path, without a slash at its end.
    path: String,
}

impl FromStr for Origin {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        let refused = || ClientError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| refused())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || uri.query().is_some() || userinfo {
            return Err(refused());
        }
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(80));
        Ok(Self { address, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "http://{}{}", self.address, self.path)
    }
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    address: String,
    body: Incoming,
    connection: Option<Connection>,
}

type Connection = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

impl Origin {
    /// Sends a request and waits for the head of the answer, at most `limit` after connecting. The request's URI is a path
    /// with its query; the `Host` header is set here.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let address = self.address.clone();
        let refused = || ClientError::Address(format!("{self}{}", request.uri()));
        let uri: Uri = format!("{}{}", self.path, request.uri()).parse().map_err(|_| refused())?;
        let host = HeaderValue::from_str(&address).map_err(|_| refused())?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(header::HOST, host);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&address))
            .await
            .map_err(|_| ClientError::Timeout { address: address.clone(), limit: CONNECT_TIMEOUT })?
            .map_err(|source| ClientError::Connect { address: address.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Broken)?;
        let mut connection = Some(Box::pin(connection));
        let answer = {
            let mut answer = std::pin::pin!(sender.send_request(request));
            let answered = poll_fn(|context| {
                drive(&mut connection, context);
                answer.as_mut().poll(context)
            });
            tokio::time::timeout(limit, answered)
                .await
                .map_err(|_| ClientError::Timeout { address: address.clone(), limit })?
                .map_err(ClientError::Broken)?
        };
        let (head, body) = answer.into_parts();
        Ok(Response { status: head.status, address, body, connection })
    }
}

impl Response {
    /// The next piece of the body; none at its end. Cancel-safe.
    ///
    /// # Errors
    /// When the connection broke, or nothing came for `limit`.
    pub async fn piece(&mut self, limit: Duration) -> Result<Option<Bytes>, ClientError> {
        let Self { body, connection, address, .. } = self;
        let next = poll_fn(|context| {
            loop {
                drive(connection, context);
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(Ok(None)),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(ClientError::Broken(error))),
                    Poll::Ready(Some(Ok(frame))) => {
                        // Trailers say nothing here.
                        if let Ok(piece) = frame.into_data() {
                            return Poll::Ready(Ok(Some(piece)));
                        }
                    }
                }
            }
        });
        let timeout = |_| ClientError::Timeout { address: address.clone(), limit };
        tokio::time::timeout(limit, next).await.map_err(timeout)?
    }

    /// The whole body, of at most `most` bytes, `limit` after now.
    ///
    /// # Errors
    /// When it is larger, comes too slowly, or not to its end.
    pub async fn collect(mut self, most: usize, limit: Duration) -> Result<Bytes, ClientError> {
        let address = self.address.clone();
        let collected = async {
            let mut whole = BytesMut::new();
            while let Some(piece) = self.piece(limit).await? {
                if whole.len() + piece.len() > most {
                    return Err(ClientError::TooLarge(most));
                }
                whole.extend_from_slice(&piece);
            }
            Ok(whole.freeze())
        };
        tokio::time::timeout(limit, collected).await.map_err(|_| ClientError::Timeout { address, limit })?
    }
}

/// Lets the connection do what it can. Its error is not told here: the answer or the body that waits for it ends with one.
fn drive(connection: &mut Option<Connection>, context: &mut std::task::Context<'_>) {
    if let Some(running) = connection
        && running.as_mut().poll(context).is_ready()
    {
        *connection = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port() {
        for (text, shown) in [
            ("http://localhost", "http://localhost:80"),
            ("http://127.0.0.1:9100/", "http://127.0.0.1:9100"),
            ("http://[::1]:4318/otlp/", "http://[::1]:4318/otlp"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "localhost:9100",
            "https://localhost",
            "http://",
            "http://a b",
            "http://u:p@h",
            "http://h/?x",
        ] {
            assert!(matches!(text.parse::<Origin>(), Err(ClientError::Address(_))), "{text:?}");
        }
    }
}
