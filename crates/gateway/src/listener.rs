//! Where stations connect: accepting, the bounded time before a connection is a session, and the way into it.
//!
//! Owns the listening socket and every connection until its 101. First the request has to come: at most
//! `handshake.max_arriving` connections are not sessions yet, and when that many are, the oldest whose request has not come
//! whole gives way after `handshake.yield_after`, so that connections which never finish their handshake cannot keep stations
//! out (P6). Then it is answered: `handshake.max_concurrent` at once, because only from here on a connection has buffers.
//!
//! Each listener accepts on a thread of its own. Between two turns of a task thousands of others may have theirs, and meanwhile
//! the kernel's backlog overflows and stations wait for their next attempt, a second or more.

mod arrival;
mod handshake;
pub mod metrics;
mod permits;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticate;
use crate::config;
use crate::registry::{Crowded, Registry};
use crate::session::actor::{self, Admitted};
use crate::session::outbox::Outbox;
use crate::session::shared::Shared;
use crate::session::{Admission, OverGuard, Session};
use crate::socket::{Deflate, Socket, SocketLimits, Turn};
use handshake::{Decision, Handshake, Refusal};

use metrics::HandshakeMetrics;
use permits::{Place, Places};

pub use permits::RateLimit;

/// One listener and everything a new connection needs.
pub struct Listener {
    /// Its name in the configuration.
    pub name: String,
    /// Its rules.
    pub rules: config::Listener,
    /// Limits before a connection is a session.
    pub handshake: config::Handshake,
    /// What listeners count.
    pub metrics: Arc<HandshakeMetrics>,
    /// None on a listener that admits every station.
    pub authenticator: Option<Arc<dyn Authenticate>>,
    /// Answer 401 instead of 404 for unknown stations.
    pub hide_unknown: bool,
    /// What sessions share.
    pub shared: Arc<Shared>,
    /// The sessions.
    pub registry: Arc<Registry>,
    /// Every task sits here, so that the drain can wait for it.
    pub tasks: TaskTracker,
    /// Stops accepting.
    pub stop: CancellationToken,
    /// Requests being answered at once.
    pub desks: Arc<Semaphore>,
    /// Refusals that are told as events: strangers must not be able to fill the log with them.
    pub rejections: RateLimit,
}

/// A place and a desk.
type Seat = (Place, OwnedSemaphorePermit);

/// Binds an address.
///
/// # Errors
/// What the operating system says: most often that the address is in use.
pub fn bind(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

impl Listener {
    /// Starts the thread that accepts until told to stop. Called inside a runtime, which everything else runs on.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub fn start(self: Arc<Self>, listener: TcpListener, tasks: &TaskTracker) -> std::io::Result<()> {
        let (runtime, token) = (Handle::current(), tasks.token());
        std::thread::Builder::new().name(format!("accept-{}", self.name)).spawn(move || {
            runtime.block_on(self.serve(listener));
            drop(token);
        })?;
        Ok(())
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Places::new(self.handshake.max_arriving, Arc::clone(&self.metrics)));
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, remote)) => {
                    let Some(place) =
                        self.stop.run_until_cancelled(places.take(self.handshake.yield_after)).await
                    else {
                        return;
                    };
                    let this = Arc::clone(&self);
                    let task = self.tasks.spawn(async move { this.shake_hands(stream, remote, place).await });
                    drop(task);
                }
                Err(error) => {
                    // Most often too many open files: those give way that have nothing to say, and accepting again at once would
                    // only burn the processor.
                    let yielding = places.clear(self.handshake.yield_after);
                    tracing::warn!(listener = self.name, %error, yielding, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// The time of one connection before it is a session.
    async fn shake_hands(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, place: Place) {
        if let Err(error) = self.tune(&stream) {
            tracing::debug!(%remote, %error, "socket options not set");
        }
        let gone = place.gone.clone();
        let outcome = tokio::select! {
            result = tokio::time::timeout(self.handshake.timeout, self.converse(stream, remote, place)) => {
                result.unwrap_or(Some("timeout"))
            }
            () = gone.cancelled() => Some("yielded"),
            () = self.draining() => Some("draining"),
        };
        if let Some(outcome) = outcome {
            self.metrics.handshake_ended(&self.name, outcome);
        }
    }

    /// Waits for the request and answers it. What else than its own outcome there is to count.
    async fn converse(
        self: &Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        place: Place,
    ) -> Option<&'static str> {
        if let Err(error) = arrival::request(&stream).await {
            tracing::debug!(%remote, %error, "no request");
            return Some("broken");
        }
        place.arrived();
        // Never closed, so there is always one to wait for.
        let desk = Arc::clone(&self.desks).acquire_owned().await.ok()?;
        // Boxed, so that connections whose request has not come do not have the room for it.
        Box::pin(self.answer(stream, remote, Arc::new((place, desk)))).await
    }

    async fn answer(
        self: &Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        place: Arc<Seat>,
    ) -> Option<&'static str> {
        let this = Arc::clone(self);
        let service = service_fn(move |request| {
            let (this, place) = (Arc::clone(&this), Arc::clone(&place));
            async move { Ok::<_, Infallible>(this.respond(request, remote, place).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake.timeout)
            // Some stations compare header names with their case.
            .title_case_headers(true)
            .max_buf_size(arrival::MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        served.err().map(|error| {
            tracing::debug!(%remote, %error, "handshake failed");
            "broken"
        })
    }

    /// The gateway leaves, and a handshake has had a moment to be told so.
    async fn draining(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn tune(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        SockRef::from(stream).set_tcp_user_timeout(Some(self.shared.limits.write_timeout))
    }

    async fn respond(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        remote: SocketAddr,
        place: Arc<Seat>,
    ) -> Response<Full<Bytes>> {
        if self.stop.is_cancelled() {
            return self.refuse(remote, unavailable("draining", "the gateway is going away"));
        }
        if self.shared.holds_too_long() {
            return self.refuse(remote, unavailable("busHolding", "events cannot be stored at the moment"));
        }
        let handshake = Handshake {
            rules: &self.rules,
            authenticator: self.authenticator.as_deref(),
            compression: self.shared.limits.compression,
            hide_unknown: self.hide_unknown,
            stations: &self.shared.stations,
            max_stations: self.shared.registration.max_stations,
        };
        let decision = handshake.decide(&request, remote).await;
        let upgrade = hyper::upgrade::on(&mut request);
        match decision {
            Err(refusal) => self.refuse(remote, refusal),
            Ok(Decision::Admit { admission, accept, subprotocol }) => {
                // Before the 101 leaves: of two connections, the one that a station opens after it has seen the other's
                // 101 must be the newer one here, too, whichever task runs first.
                let (identity, deflate) = (admission.identity.clone(), admission.deflate);
                let Ok(admitted) = self.admit(admission) else {
                    let text = "earlier connections of this station still wait for storage";
                    let refusal = Refusal { identity: Some(identity), ..unavailable("overloaded", text) };
                    return self.refuse(remote, refusal);
                };
                self.metrics.handshake_ended(&self.name, "admitted");
                let this = Arc::clone(&self);
                let task = self.tasks.spawn(async move {
                    let upgraded = upgrade.await;
                    drop(place);
                    this.begin_session(upgraded, admitted);
                });
                drop(task);
                switching(&accept, subprotocol, deflate)
            }
            Ok(Decision::NoSubprotocol { identity, accept }) => {
                self.metrics.handshake_ended(&self.name, "noSubprotocol");
                tracing::info!(station = %identity, %remote, "no common subprotocol");
                self.publish_rejection(Some(identity.as_str()), remote, "noSubprotocol", 101);
                let this = Arc::clone(&self);
                let task = self.tasks.spawn(async move {
                    let upgraded = upgrade.await;
                    drop(place);
                    if let Ok(upgraded) = upgraded {
                        this.close_at_once(upgraded).await;
                    }
                });
                drop(task);
                switching(&accept, None, None)
            }
        }
    }

    fn admit(&self, admission: Admission) -> Result<Admitted, Crowded> {
        let key = admission.identity.folded();
        let queue = self.shared.limits.command_queue;
        let create = |id, predecessors| Session::new(id, admission, queue, predecessors);
        let (entry, session, replaced) = self.registry.admit(key, create)?;
        Ok(Admitted { over: OverGuard(session), entry, replaced })
    }

    fn begin_session(self: Arc<Self>, upgraded: hyper::Result<Upgraded>, admitted: Admitted) {
        let socket = match upgraded {
            Ok(upgraded) => self.socket(upgraded, admitted.over.0.admission.deflate),
            Err(error) => {
                tracing::debug!(%error, "the connection broke before its upgrade");
                None
            }
        };
        let session = Arc::clone(&admitted.over.0);
        if self.stop.is_cancelled() {
            // The drain may have counted the sessions already.
            session.end(crate::session::close::CloseReason::Shutdown);
        }
        // A task of its own: the handshake's future is larger than a session's (measured 0.5 KB).
        let task = self.tasks.spawn(actor::run(socket, admitted, Arc::clone(&self.shared)));
        drop(task);
    }

    /// The plain stream taken back from HTTP, with what was read of it too far.
    fn socket(&self, upgraded: Upgraded, deflate: Option<Deflate>) -> Option<Socket<TcpStream>> {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let limits = SocketLimits {
            max_message_bytes: bytes(self.shared.limits.max_message_size),
            read_buffer_bytes: bytes(self.shared.limits.read_buffer_size),
            compress_above_bytes: bytes(self.shared.limits.compress_above),
        };
        match upgraded.downcast::<TokioIo<TcpStream>>() {
            Ok(parts) => Some(Socket::accept(parts.io.into_inner(), &parts.read_buf, limits, deflate)),
            Err(_) => {
                tracing::error!("the upgraded connection is not a TCP stream");
                None
            }
        }
    }

    /// What all versions ask for when no subprotocol matches: the handshake completes, and the connection closes.
    async fn close_at_once(&self, upgraded: Upgraded) {
        let Some(mut socket) = self.socket(upgraded, None) else { return };
        let mut outbox = Outbox::default();
        outbox.close(1002, "no common subprotocol");
        let closing =
            async { while !matches!(socket.turn(&mut outbox, true).await, Turn::Ended | Turn::Broken(_)) {} };
        // Out of time is out of time; the socket is dropped either way.
        drop(tokio::time::timeout(self.shared.limits.close_timeout, Box::pin(closing)).await);
        socket.linger(Duration::from_millis(500)).await;
    }

    fn refuse(&self, remote: SocketAddr, refusal: Refusal) -> Response<Full<Bytes>> {
        let Refusal { reason, status, text, identity } = refusal;
        self.metrics.handshake_ended(&self.name, reason);
        let station = identity.as_ref().map(ocpp_protocol::Identity::as_str);
        tracing::info!(station, %remote, reason, status = status.as_u16(), "handshake refused");
        self.publish_rejection(station, remote, reason, status.as_u16());
        let mut response = Response::new(Full::new(Bytes::from(text + "\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        // Said here and not by the server for every response: a 101 must say `Connection: Upgrade` and nothing else, for
        // many clients compare the whole value.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(r#"Basic realm="ocpp", charset="UTF-8""#),
                );
            }
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            }
            _ => {}
        }
        response
    }

    /// A refusal never waits for the bus, for that would keep its place from stations. What finds no room is counted.
    fn publish_rejection(&self, station: Option<&str>, remote: SocketAddr, reason: &str, status: u16) {
        const EVENT: &str = "ocpp.station.rejected";
        if !self.rejections.take() {
            self.metrics.dropped(EVENT, "tooMany");
            return;
        }
        let record = self.shared.events.rejected(station, remote, reason, status);
        if self.shared.bus.lane().try_publish(record).is_err() {
            self.metrics.dropped(EVENT, "busFull");
        }
    }
}

fn unavailable(reason: &'static str, text: &str) -> Refusal {
    Refusal { reason, status: StatusCode::SERVICE_UNAVAILABLE, text: text.to_owned(), identity: None }
}

fn switching(
    accept: &str,
    subprotocol: Option<HeaderValue>,
    deflate: Option<Deflate>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    if let Some(agreed) = deflate.and_then(|deflate| HeaderValue::from_str(&deflate.response()).ok()) {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, agreed);
    }
    response
}
