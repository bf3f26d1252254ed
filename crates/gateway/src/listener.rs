//! Accepts stations' connections and takes each through its handshake to a session.
//!
//! Owns the listening socket and every connection until its 101. At most `handshake.max_arriving` connections are in their
//! handshake. When that limit is reached, the oldest half-open connection (one whose request has not arrived whole) is dropped
//! once it is older than `handshake.yield_after`, so that half-open connections cannot keep stations out (P6). At most
//! `handshake.max_concurrent` requests are answered at once; before that, a connection has no buffers.
//!
//! Each listener accepts on a thread of its own. A task would wait for its turn behind thousands of others while the kernel's
//! backlog overflows, and stations would retry only after a second or more.

mod arrival;
mod handshake;
pub mod metrics;
pub mod options;
mod permits;
mod response;
mod told;
mod upgrade;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytesize::ByteSize;
use http_body_util::Full;
use hyper::body::Incoming;
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
use crate::deviations::{Deed, Deviant};
use crate::driver::shared::Shared;
use crate::driver::{self, Admitted};
use crate::rate_limit::RateLimit;
use crate::registry::{Crowded, Registry};
use crate::session::{Admission, EndOnDrop, SessionHandle};
use crate::socket::{Deflate, Socket, SocketLimits, Turn};
use crate::twins::Twins;
use handshake::{Decision, Handshake, Refusal};
use ocpp_station::events::Rejected;
use ocpp_station::outbox::Outbox;

use metrics::HandshakeMetrics;
use options::{HandshakeOptions, ListenerOptions};
use permits::{HandshakePermit, HandshakePermits};
use told::shown_path;

/// One listener, and what its connections need.
pub struct Listener {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What it requires of stations.
    pub rules: ListenerOptions,
    /// Limits before a connection is a session.
    pub handshake: HandshakeOptions,
    /// Shared by all listeners.
    pub metrics: Arc<HandshakeMetrics>,
    /// None on a listener that admits every station.
    pub authenticator: Option<Arc<dyn Authenticate>>,
    /// Answer 401 instead of 404 for unknown stations.
    pub hide_unknown: bool,
    /// Passed on to every session.
    pub shared: Arc<Shared>,
    /// Where a new session is registered.
    pub registry: Arc<Registry>,
    /// The tasks of all connections; the drain waits for them.
    pub tasks: TaskTracker,
    /// Cancelled when the gateway stops accepting connections.
    pub stop: CancellationToken,
    /// Permits to answer a request.
    pub request_permits: Arc<Semaphore>,
    /// Identities that two devices use.
    pub twins: Arc<Twins>,
    /// Limits the refusals that are published as events, so that strangers cannot fill the log with them.
    pub rejections: RateLimit,
}

/// What a connection holds until it is a session.
type Permits = (HandshakePermit, OwnedSemaphorePermit);

/// Takes an address, and does not listen on it yet.
///
/// # Errors
/// The operating system's error, most often that the address is in use.
pub fn claim(address: SocketAddr) -> std::io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens on an address.
///
/// # Errors
/// The operating system's error, most often that the address is in use.
pub fn bind(address: SocketAddr, backlog: i32) -> std::io::Result<TcpListener> {
    let socket = claim(address)?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

impl Listener {
    /// Starts the accepting thread. Must be called inside a runtime, which runs everything else.
    ///
    /// # Errors
    /// When the operating system cannot start a thread.
    pub fn start(self: Arc<Self>, listener: TcpListener, tasks: &TaskTracker) -> std::io::Result<()> {
        let (runtime, token) = (Handle::current(), tasks.token());
        std::thread::Builder::new().name(format!("accept-{}", self.name)).spawn(move || {
            runtime.block_on(self.serve(listener));
            drop(token);
        })?;
        Ok(())
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let permits = Arc::new(HandshakePermits::new(self.handshake.max_arriving, Arc::clone(&self.metrics)));
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, remote)) => {
                    let Some(permit) =
                        self.stop.run_until_cancelled(permits.acquire(self.handshake.yield_after)).await
                    else {
                        return;
                    };
                    let this = Arc::clone(&self);
                    let task = self.tasks.spawn(async move { this.handshake(stream, remote, permit).await });
                    drop(task);
                }
                Err(error) => {
                    // Most often too many open files: idle half-open connections are dropped first. Retrying at once
                    // would only burn the processor.
                    let yielding = permits.revoke_half_open(self.handshake.yield_after);
                    tracing::warn!(listener = &*self.name, %error, yielding, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Takes one connection to its session, or to the end that the metric names.
    async fn handshake(self: Arc<Self>, stream: TcpStream, remote: SocketAddr, permit: HandshakePermit) {
        if let Err(error) = self.tune(&stream) {
            tracing::debug!(%remote, %error, "socket options not set");
        }
        let revoked = permit.revoked.clone();
        let outcome = tokio::select! {
            result = tokio::time::timeout(self.handshake.timeout, self.serve_handshake(stream, remote, permit)) => {
                result.unwrap_or(Some("timeout"))
            }
            () = revoked.cancelled() => Some("yielded"),
            () = self.draining() => Some("draining"),
        };
        if let Some(outcome) = outcome {
            self.metrics.handshake_ended(&self.name, outcome);
        }
    }

    /// Waits for the request and answers it. Returns an outcome that is not counted yet.
    async fn serve_handshake(
        self: &Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        permit: HandshakePermit,
    ) -> Option<&'static str> {
        if let Err(error) = arrival::request(&stream).await {
            tracing::debug!(%remote, %error, "no request");
            return Some("broken");
        }
        permit.request_arrived();
        // The semaphore is never closed.
        let request_permit = Arc::clone(&self.request_permits).acquire_owned().await.ok()?;
        // Boxed, so that half-open connections do not carry the memory of this future.
        Box::pin(self.answer(stream, remote, Arc::new((permit, request_permit)))).await
    }

    async fn answer(
        self: &Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        permits: Arc<Permits>,
    ) -> Option<&'static str> {
        let this = Arc::clone(self);
        let service = service_fn(move |request| {
            let (this, permits) = (Arc::clone(&this), Arc::clone(&permits));
            async move { Ok::<_, Infallible>(this.respond(request, remote, permits).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake.timeout)
            // Some stations compare header names case-sensitively.
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

    /// Completes a moment after the gateway stops accepting, so that a handshake can still be refused.
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
        permits: Arc<Permits>,
    ) -> Response<Full<Bytes>> {
        if self.stop.is_cancelled() {
            return self.refuse(&request, remote, unavailable("draining", "the gateway is going away"));
        }
        if self.shared.holds_too_long() {
            let refusal = unavailable("busHolding", "events cannot be stored at the moment");
            return self.refuse(&request, remote, refusal);
        }
        let handshake = Handshake {
            name: &self.name,
            rules: &self.rules,
            settings: &self.shared.settings,
            authenticator: self.authenticator.as_deref(),
            compression: self.shared.limits.compression,
            hide_unknown: self.hide_unknown,
            stations: &self.shared.stations,
            max_stations: self.shared.registration.max_stations,
        };
        let decision = handshake.decide(&request, remote).await;
        let upgrade = hyper::upgrade::on(&mut request);
        match decision {
            Err(refusal) => self.refuse(&request, remote, refusal),
            Ok(Decision::Admit { admission, accept, subprotocol, leniencies }) => {
                // Before the 101 is sent: if a station opens a second connection after it has seen the 101 of the first, the
                // second must be the newer one here, too, whichever task runs first.
                let (identity, deflate) = (admission.identity.clone(), admission.deflate);
                if let Some(wait) = self.twins.wait(&identity.folded(), Instant::now()) {
                    let text = format!("two devices use this identity; the next may connect in {wait:.1?}");
                    let refusal = Refusal { identity: Some(identity), ..unavailable("twins", &text) };
                    return self.refuse(&request, remote, refusal);
                }
                let Ok(admitted) = self.admit(admission) else {
                    let text = "earlier connections of this station still wait for storage";
                    let refusal = Refusal { identity: Some(identity), ..unavailable("overloaded", text) };
                    return self.refuse(&request, remote, refusal);
                };
                self.metrics.handshake_ended(&self.name, "admitted");
                for kind in leniencies {
                    self.shared.metrics.leniency(kind);
                    self.note_deviation(&admitted.session.0, kind);
                    tracing::debug!(station = %identity, %remote, kind, "handshake deviates, and is let through");
                }
                let this = Arc::clone(&self);
                let task = self.tasks.spawn(async move {
                    let upgraded = upgrade.await;
                    drop(permits);
                    this.begin_session(upgraded, admitted);
                });
                drop(task);
                response::switching(&accept, subprotocol, deflate)
            }
            Ok(Decision::NoSubprotocol { identity, accept }) => {
                self.metrics.handshake_ended(&self.name, "noSubprotocol");
                tracing::info!(station = %identity, %remote, "no common subprotocol");
                let rejected =
                    Rejected { path: &shown_path(&request), remote, reason: "noSubprotocol", status: 101 };
                self.publish_rejection(Some(identity.as_str()), &rejected);
                let this = Arc::clone(&self);
                let task = self.tasks.spawn(async move {
                    let upgraded = upgrade.await;
                    drop(permits);
                    if let Ok(upgraded) = upgraded {
                        this.close_at_once(upgraded).await;
                    }
                });
                drop(task);
                response::switching(&accept, None, None)
            }
        }
    }

    fn note_deviation(&self, session: &SessionHandle, kind: &'static str) {
        let (admission, key) = (&session.admission, session.key());
        let model = self.shared.stations.model(&key);
        let who = Deviant {
            identity: admission.identity.as_str(),
            key: &key,
            model: model.as_ref(),
            version: admission.version,
            at: session.connected_at,
        };
        let deed = Deed { message_type: None, action: None, member: None, kind };
        self.shared.deviations.note(&who, &deed, None, false);
    }

    fn admit(&self, admission: Admission) -> Result<Admitted, Crowded> {
        let key = admission.identity.folded();
        let queue = self.shared.limits.command_queue;
        let create = |id, predecessors| SessionHandle::new(id, admission, queue, predecessors);
        let (entry, session, replaced) = self.registry.admit(key.clone(), create)?;
        if let Some(replaced) = &replaced {
            self.watch_for_twins(&key, replaced, &session);
        }
        Ok(Admitted { session: EndOnDrop(session), entry, replaced })
    }

    fn begin_session(self: Arc<Self>, upgraded: hyper::Result<Upgraded>, admitted: Admitted) {
        let socket = match upgraded {
            Ok(upgraded) => self.socket(upgraded, admitted.session.0.admission.deflate),
            Err(error) => {
                tracing::debug!(%error, "the connection broke before its upgrade");
                None
            }
        };
        let session = Arc::clone(&admitted.session.0);
        if self.stop.is_cancelled() {
            // The drain may have asked all sessions to end already.
            session.end(ocpp_station::CloseReason::Shutdown);
        }
        // A new task, because the handshake's future is 0.5 KB larger than a session's (measured).
        let task = self.tasks.spawn(driver::run(socket, admitted, Arc::clone(&self.shared)));
        drop(task);
    }

    /// Takes the stream back from HTTP, with the bytes read beyond the request.
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

    /// Closes a connection whose handshake is complete but has no common subprotocol, as all OCPP versions require.
    async fn close_at_once(&self, upgraded: Upgraded) {
        let Some(mut socket) = self.socket(upgraded, None) else { return };
        let mut outbox = Outbox::default();
        outbox.close(1002, "no common subprotocol");
        let closing =
            async { while !matches!(socket.turn(&mut outbox, true).await, Turn::Ended | Turn::Broken(_)) {} };
        // Closed or timed out, the socket is dropped.
        drop(tokio::time::timeout(self.shared.limits.close_timeout, Box::pin(closing)).await);
        socket.linger(Duration::from_millis(500)).await;
    }
}

fn unavailable(reason: &'static str, text: &str) -> Refusal {
    Refusal { reason, status: StatusCode::SERVICE_UNAVAILABLE, text: text.to_owned(), identity: None }
}
