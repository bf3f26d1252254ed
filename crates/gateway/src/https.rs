//! The HTTP client for what the gateway asks: hyper's connection pool, with rustls where the URL says `https`.
//!
//! Owns connecting, pooling and trust. Knows nothing of what is asked. It sets no limit on how long a response may take:
//! whoever sends a request puts a deadline around it.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A pool of connections. Cloning it shares the pool.
pub(crate) type HttpsClient<B> = Client<HttpsConnector<HttpConnector>, B>;

/// A connection that was idle for this long is closed; servers commonly close theirs after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A silent HTTP/2 connection is probed after this time and given up after as much again. HTTP/1.1 needs no probe: a request
/// that times out takes its connection with it.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientOptions {
    /// How long a connection may take to be established, TLS apart.
    pub(crate) connect_timeout: Duration,
    /// Idle connections kept for each host.
    pub(crate) max_idle: usize,
    /// Speak HTTP/2 and nothing else, without negotiating it on plain connections: what gRPC needs. Otherwise HTTP/1.1.
    pub(crate) http2: bool,
    /// Trust the system's root certificates. Without them no TLS connection succeeds, and none need be installed: containers
    /// often have none.
    pub(crate) tls: bool,
}

/// Opens a client; it connects when the first request is sent.
///
/// # Errors
/// When `tls` is asked for and the system's root certificates cannot be read.
pub(crate) fn client<B>(options: ClientOptions) -> std::io::Result<HttpsClient<B>>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(options.connect_timeout));
    let https = HttpsConnectorBuilder::new().with_tls_config(tls(options.tls)?).https_or_http();
    let connector = if options.http2 {
        https.enable_http2().wrap_connector(tcp)
    } else {
        https.enable_http1().wrap_connector(tcp)
    };
    Ok(Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(options.max_idle)
        .http2_only(options.http2)
        .http2_keep_alive_interval(PROBE_INTERVAL)
        .http2_keep_alive_timeout(PROBE_INTERVAL)
        .build(connector))
}

fn tls(system_roots: bool) -> std::io::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?;
    let builder = if system_roots {
        builder.with_native_roots()?
    } else {
        builder.with_root_certificates(rustls::RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}
