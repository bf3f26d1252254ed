//! The stations' listeners: their sockets, who may connect, and their start.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{App, StartupError, bind};
use crate::auth::Authenticate;
use crate::auth::credentials::CredentialsError;
use crate::auth::file::FileAuthenticator;
use crate::auth::metrics::CredentialMetrics;
use crate::config::Config;
use crate::listener::Listener;
use crate::listener::metrics::HandshakeMetrics;
use crate::listener::options::AuthMode;
use crate::rate_limit::RateLimit;

impl App {
    pub(super) fn bind_station_listeners(&self) -> Result<Vec<(String, TcpListener)>, StartupError> {
        self.config
            .listeners
            .iter()
            .map(|(name, rules)| {
                let key = format!("listeners.{name}.address");
                Ok((name.clone(), bind(rules.address, self.config.handshake.backlog, &key)?))
            })
            .collect()
    }

    pub(super) fn start_station_listeners(
        &self,
        listeners: Vec<(String, TcpListener)>,
        authenticator: Option<Arc<dyn Authenticate>>,
        metrics: &Arc<HandshakeMetrics>,
    ) -> Result<(), StartupError> {
        for (name, socket) in listeners {
            let Some(rules) = self.config.listeners.get(&name).cloned() else { continue };
            let address = socket.local_addr().ok();
            if rules.auth == AuthMode::Open {
                tracing::warn!(
                    listener = name,
                    ?address,
                    "OPEN LISTENER: any client is let in under any identity, without a password; for development only"
                );
            }
            tracing::info!(listener = name, ?address, prefix = rules.path_prefix, "stations may connect");
            let listener = Arc::new(Listener {
                authenticator: (rules.auth == AuthMode::Basic).then(|| authenticator.clone()).flatten(),
                name: name.into(),
                rules,
                metrics: Arc::clone(metrics),
                handshake: self.config.handshake.clone(),
                hide_unknown: self.config.credentials.hide_unknown_stations,
                shared: Arc::clone(&self.shared),
                registry: Arc::clone(&self.registry),
                tasks: self.tasks.clone(),
                stop: self.stop_accepting.clone(),
                request_permits: Arc::new(Semaphore::new(self.config.handshake.max_concurrent)),
                twins: Arc::clone(&self.twins),
                rejections: RateLimit::new(self.config.handshake.rejected_events_per_second),
            });
            listener.start(socket, &self.rest).map_err(StartupError::Thread)?;
        }
        Ok(())
    }
}

pub(super) fn open_authenticator(
    config: &Config,
    metrics: CredentialMetrics,
) -> Result<Option<Arc<FileAuthenticator>>, CredentialsError> {
    if config.listeners.values().all(|listener| listener.auth == AuthMode::Open) {
        return Ok(None);
    }
    let threads = config.credentials.slow_hash_threads;
    FileAuthenticator::open(config.credentials.file.clone(), threads, metrics).map(|it| Some(Arc::new(it)))
}
