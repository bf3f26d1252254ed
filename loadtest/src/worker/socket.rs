//! How a station connects: TCP from a source address of its worker, and the WebSocket handshake.
//!
//! Owns source addresses, buffer sizes and the names of failures. The only file that connects to a station port. The client is
//! tokio-tungstenite, so that the gateway is tested against an implementation that is not its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Uri, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, handshake};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::station::Version;

/// A connection of a station.
pub(super) type Socket = WebSocketStream<TcpStream>;

/// Stations that share a source address. A pair of addresses has about 28,000 ports, and a used one stays in TIME_WAIT for a
/// minute: this many stations can all reconnect several times a minute.
const STATIONS_PER_ADDRESS: u32 = 4_000;
/// Bytes per read. The library's default buffers would cost 136 KB per connection (measured).
const READ_BUFFER: usize = 1024;
/// Bytes buffered before they are written without a flush.
const WRITE_BUFFER: usize = 2048;
/// The largest message accepted from the gateway.
const LARGEST_MESSAGE: usize = 1 << 20;
/// A slow reader has the small segments of a mobile connection and a small window, so that what it does not read soon fills the
/// gateway's side. On the loopback interface the kernel would buffer megabytes.
const SLOW_SEGMENT: u32 = 536;
const SLOW_WINDOW: u32 = 4096;

/// Where stations connect.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The URL without the identity.
    base: String,
    address: SocketAddr,
}

/// Why a connection failed.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// The gateway answered with a status other than 101.
    #[error("HTTP {0}")]
    Status(u16),
    /// TCP failed.
    #[error("TCP: {}", .0.kind())]
    Tcp(#[from] std::io::Error),
    /// TCP and the handshake took too long.
    #[error("timeout")]
    Timeout,
    /// The response to the handshake is invalid.
    #[error("handshake: {0}")]
    Handshake(String),
}

/// Why a target cannot be used.
#[derive(Debug, Error)]
#[error("{target}: {problem}")]
pub(super) struct TargetError {
    target: String,
    problem: String,
}

impl Target {
    /// Parses `ws://HOST:PORT/PATH` and resolves the host, once for all stations.
    ///
    /// # Errors
    /// When the URL is of another form, or the host cannot be resolved.
    pub(super) async fn resolve(url: &str) -> Result<Self, TargetError> {
        let wrong = |problem: String| TargetError { target: url.to_owned(), problem };
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| wrong(format!("{error}")))?;
        let host = uri.host().ok_or_else(|| wrong("no host".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(80)))
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let found: Vec<SocketAddr> = found.collect();
        // `localhost` may resolve to both; a gateway listens on IPv4 by default.
        let address = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
        let address = *address.ok_or_else(|| wrong("the host has no address".into()))?;
        Ok(Self { base, address })
    }

    /// Returns the source address for a station of a worker; `None` unless the target is on this machine, where all of
    /// 127.0.0.0/8 can be used.
    fn source(&self, worker: u32, index: u32) -> Option<SocketAddr> {
        let IpAddr::V4(address) = self.address.ip() else { return None };
        let byte = |number: u32| u8::try_from(number % 250).unwrap_or_default();
        let source = Ipv4Addr::new(127, 1, byte(worker) + 1, byte(index / STATIONS_PER_ADDRESS) + 1);
        address.is_loopback().then(|| SocketAddr::from((source, 0)))
    }
}

/// Connects one station to its target.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    /// Where to connect.
    pub(super) target: Target,
    /// The number of the worker.
    pub(super) worker: u32,
    /// The station's index in its worker.
    pub(super) index: u32,
    /// Limit for TCP and the handshake together.
    pub(super) timeout: Duration,
    /// Whether the station will stop reading at some time.
    pub(super) slow_reader: bool,
}

impl Dialer {
    /// Connects, and makes the handshake.
    ///
    /// # Errors
    /// When TCP or the handshake fails, or takes too long.
    pub(super) async fn dial(&self, identity: &str, version: Version) -> Result<Socket, Refusal> {
        let dialing = async {
            let stream = self.connect().await?;
            let (socket, _) = client_async_with_config(
                self.request(identity, version).map_err(refusal)?,
                stream,
                Some(config()),
            )
            .await
            .map_err(refusal)?;
            Ok(socket)
        };
        tokio::time::timeout(self.timeout, dialing).await.unwrap_or(Err(Refusal::Timeout))
    }

    async fn connect(&self) -> Result<TcpStream, std::io::Error> {
        let address = self.target.address;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if self.slow_reader {
            SockRef::from(&socket).set_tcp_mss(SLOW_SEGMENT)?;
            socket.set_recv_buffer_size(SLOW_WINDOW)?;
        }
        if let Some(source) = self.target.source(self.worker, self.index) {
            socket.bind(source)?;
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn request(&self, identity: &str, version: Version) -> Result<handshake::client::Request, Error> {
        let mut request = format!("{}/{identity}", self.target.base).into_client_request()?;
        request
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(version.subprotocol()));
        Ok(request)
    }
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
}

fn refusal(error: Error) -> Refusal {
    match error {
        Error::Http(response) => Refusal::Status(response.status().as_u16()),
        Error::Io(error) => Refusal::Tcp(error),
        other => Refusal::Handshake(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_have_their_own_source_addresses_on_this_machine_only() {
        let target = Target::resolve("ws://127.0.0.1:9000/ocpp/").await.unwrap();
        assert_eq!(target.base, "ws://127.0.0.1:9000/ocpp");
        let mut sources = Vec::new();
        for (worker, index) in [(0, 0), (0, 3999), (0, 4000), (1, 0), (1, 17_999)] {
            sources.push(target.source(worker, index).unwrap().ip().to_string());
        }
        assert_eq!(sources, ["127.1.1.1", "127.1.1.1", "127.1.1.2", "127.1.2.1", "127.1.2.5"]);
        let far = Target { base: String::new(), address: "192.0.2.1:80".parse().unwrap() };
        assert_eq!(far.source(0, 0), None);
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refusal() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let target = Target::resolve(&format!("ws://{address}/ocpp")).await.unwrap();
        let dialer =
            Dialer { target, worker: 0, index: 0, timeout: Duration::from_secs(5), slow_reader: true };
        let refusal = dialer.dial("CP", Version::V16).await.unwrap_err();
        assert_eq!(refusal.to_string(), "TCP: connection refused");
    }
}
