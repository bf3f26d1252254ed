//! The composition root: builds every part from the configuration, starts it, and holds what the drain needs.
//!
//! Owns the order of things: logs and journals are opened before a port is, so that a gateway which cannot store never
//! accepts; the admin listener comes before the station listeners, so that a start can be watched.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ocpp_bus::local::{Compaction, Snapshot};
use ocpp_bus::log::LogOptions;
use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::queue::QueueLimits;
use ocpp_bus::{Bus, StartError, open_log};
use prometheus::Registry as MetricRegistry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::auth::Authenticator;
use crate::auth::credentials::CredentialsError;
use crate::command::CommandRouter;
use crate::config::{AuthMode, BusKind, Config};
use crate::events::Events;
use crate::listener::{self, Listener, RateLimit};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::replays::Replays;
use crate::session::shared::Shared;
use crate::stations::Stations;

/// Changes of stations' states that may wait for the journal.
const JOURNAL_LIMITS: QueueLimits = QueueLimits { records: 10_000, bytes: 64 << 20 };
/// The journal is rewritten in short above this size.
const JOURNAL_COMPACT_ABOVE: u64 = 32 << 20;
/// One station's state is far smaller than this.
const JOURNAL_MAX_RECORD: u32 = 64 * 1024;

/// Why the gateway cannot start: one line that says what and where.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The configuration key that names it.
        key: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The event log, the Kafka client or a thread.
    #[error("cannot start the bus")]
    Bus(#[source] StartError),
    /// The journal of the stations' states.
    #[error("cannot open the stations' journal in {dir}", dir = dir.display())]
    Journal {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        source: StartError,
    },
    /// The credentials file.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Two metrics of one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running gateway.
pub struct App {
    /// What was configured.
    pub config: Config,
    /// The sessions.
    pub registry: Arc<Registry>,
    /// What sessions share: the buses, the stations, the metrics.
    pub shared: Arc<Shared>,
    /// Whether it is ready, and since when it runs.
    pub readiness: Arc<Readiness>,
    /// Tasks of stations: handshakes and sessions.
    pub tasks: TaskTracker,
    /// Stops accepting stations.
    pub stop_accepting: CancellationToken,
    /// Stops everything else: the admin listener, the credentials watch.
    pub stop_rest: CancellationToken,
    /// Tasks of the admin listener and the like.
    pub rest: TaskTracker,
}

/// Whether the gateway should get traffic.
#[derive(Debug)]
pub struct Readiness {
    draining: AtomicBool,
    bus: Bus,
    journal: Bus,
    metrics: Arc<Metrics>,
    /// When the process started, on the monotonic clock.
    pub started: Instant,
    /// When the process started, on the wall clock.
    pub started_at: SystemTime,
}

impl Readiness {
    /// Nothing stands in the way of accepting and answering. Else why, for people.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        let result = self.reason();
        self.metrics.ready(result.is_ok());
        result
    }

    fn reason(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Acquire) {
            return Err("draining".into());
        }
        for (name, bus) in [("bus", &self.bus), ("stations", &self.journal)] {
            let health = bus.health();
            if !health.state.is_flowing() {
                return Err(format!(
                    "{name} {}: {}",
                    health.state.as_str(),
                    health.detail.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    /// From here on the answer is no.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl App {
    /// Builds and starts everything. Called inside a runtime: sockets register with it.
    ///
    /// # Errors
    /// The first part that cannot start.
    pub fn start(config: Config) -> Result<Self, StartupError> {
        Self::start_with(config, start_bus)
    }

    /// The same with a bus of the caller's making, for measurements.
    ///
    /// # Errors
    /// The first part that cannot start.
    pub fn start_with(
        config: Config,
        start_bus: impl FnOnce(&Config, BusMetrics) -> Result<Bus, StartError>,
    ) -> Result<Self, StartupError> {
        let metric_registry = MetricRegistry::new();
        let metrics = Arc::new(Metrics::register(metric_registry.clone())?);
        let bus = start_bus(&config, BusMetrics::register(&metric_registry, "events")?)
            .map_err(StartupError::Bus)?;
        let (journal, stations) = start_journal(&config, BusMetrics::register(&metric_registry, "stations")?)
            .map_err(|source| StartupError::Journal { dir: config.stations_dir(), source })?;
        metrics.stations_known(stations.len());
        let authenticator = open_authenticator(&config, &metrics)?;

        let registry = Arc::new(Registry::default());
        let events = Events::new(&config.node.id);
        let shared = Arc::new(Shared {
            limits: config.session.clone(),
            registration: config.registration.clone(),
            answers: config.answers.clone(),
            validation: config.validation.clone(),
            commands: config.commands.clone(),
            hold_limit: config.bus.hold_limit,
            replays: Replays::new(config.session.remembered_calls, config.session.remember_for),
            expendable: config.bus.expendable.clone(),
            bus: bus.clone(),
            journal: journal.clone(),
            stations,
            events: events.clone(),
            metrics: Arc::clone(&metrics),
        });
        let readiness = Arc::new(Readiness {
            draining: AtomicBool::new(false),
            bus: bus.clone(),
            journal,
            metrics: Arc::clone(&metrics),
            started: Instant::now(),
            started_at: SystemTime::now(),
        });
        let app = Self {
            registry: Arc::clone(&registry),
            shared: Arc::clone(&shared),
            readiness,
            tasks: TaskTracker::new(),
            stop_accepting: CancellationToken::new(),
            stop_rest: CancellationToken::new(),
            rest: TaskTracker::new(),
            config,
        };
        let admin_listener = bind(app.config.admin.address, 128, "admin.address")?;
        let station_listeners = app.bind_station_listeners()?;
        app.start_admin(
            admin_listener,
            CommandRouter {
                registry,
                bus,
                events,
                metrics,
                limits: app.config.commands.clone(),
                tasks: app.rest.clone(),
            },
        );
        if let Some(authenticator) = &authenticator {
            let watch = Arc::clone(authenticator)
                .watch(app.config.credentials.reload_interval, app.stop_rest.clone());
            drop(app.rest.spawn(watch));
        }
        drop(app.rest.spawn(sweep_replays(Arc::clone(&app.shared), app.stop_rest.clone())));
        app.start_station_listeners(station_listeners, authenticator.as_ref());
        Ok(app)
    }

    fn bind_station_listeners(&self) -> Result<Vec<(String, TcpListener)>, StartupError> {
        self.config
            .listeners
            .iter()
            .map(|(name, rules)| {
                let key = format!("listeners.{name}.address");
                Ok((name.clone(), bind(rules.address, self.config.handshake.backlog, &key)?))
            })
            .collect()
    }

    fn start_admin(&self, listener: TcpListener, router: CommandRouter) {
        let admin = Arc::new(Admin {
            router,
            shared: Arc::clone(&self.shared),
            registry: Arc::clone(&self.registry),
            readiness: Arc::clone(&self.readiness),
            max_connections: self.config.admin.max_connections,
            watchers: Arc::new(tokio::sync::Semaphore::new((self.config.admin.max_connections / 2).max(1))),
            tasks: self.rest.clone(),
            stop: self.stop_rest.clone(),
        });
        tracing::info!(address = ?listener.local_addr().ok(), "admin listener");
        drop(self.rest.spawn(admin.serve(listener)));
    }

    fn start_station_listeners(
        &self,
        listeners: Vec<(String, TcpListener)>,
        authenticator: Option<&Arc<Authenticator>>,
    ) {
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
                authenticator: (rules.auth == AuthMode::Basic).then(|| authenticator.cloned()).flatten(),
                name,
                rules,
                handshake: self.config.handshake.clone(),
                hide_unknown: self.config.credentials.hide_unknown_stations,
                shared: Arc::clone(&self.shared),
                registry: Arc::clone(&self.registry),
                tasks: self.tasks.clone(),
                stop: self.stop_accepting.clone(),
                rejections: RateLimit::new(self.config.handshake.rejected_events_per_second),
            });
            drop(self.rest.spawn(listener.serve(socket)));
        }
    }
}

fn bind(address: std::net::SocketAddr, backlog: i32, key: &str) -> Result<TcpListener, StartupError> {
    listener::bind(address, backlog).map_err(|source| StartupError::Listen {
        address,
        key: key.to_owned(),
        source,
    })
}

async fn sweep_replays(shared: Arc<Shared>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(60);
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        shared.replays.sweep(Instant::now());
    }
}

/// The bus that the configuration asks for.
///
/// # Errors
/// When the log cannot be opened or the Kafka client refuses its options.
pub fn start_bus(config: &Config, metrics: BusMetrics) -> Result<Bus, StartError> {
    let limits = QueueLimits {
        records: config.bus.queue_events,
        bytes: u32::try_from(config.bus.queue_bytes.as_u64()).unwrap_or(u32::MAX),
    };
    match config.bus.kind {
        BusKind::Kafka => Bus::start_kafka("events", config.kafka_options(), limits, metrics),
        BusKind::Local => {
            let local = &config.bus.local;
            let options = LogOptions {
                dir: config.events_dir(),
                segment_bytes: local.segment_size.as_u64(),
                max_bytes: local.max_size.as_u64(),
                max_age: Some(local.max_age).filter(|age| !age.is_zero()),
                max_record_bytes: u32::try_from(config.max_event_bytes()).unwrap_or(u32::MAX),
            };
            let log = open_log(options, &metrics)?;
            Bus::start_local("events", log, limits, None, config.set_aside_dir(), metrics)
        }
    }
}

fn start_journal(config: &Config, metrics: BusMetrics) -> Result<(Bus, Arc<Stations>), StartError> {
    let options = LogOptions {
        dir: config.stations_dir(),
        segment_bytes: 8 << 20,
        max_bytes: 0,
        max_age: None,
        max_record_bytes: JOURNAL_MAX_RECORD,
    };
    let log = open_log(options, &metrics)?;
    let stations = Arc::new(Stations::replay(&log.view())?);
    let compaction = Compaction {
        snapshot: Arc::clone(&stations) as Arc<dyn Snapshot>,
        above_bytes: JOURNAL_COMPACT_ABOVE,
    };
    let bus =
        Bus::start_local("stations", log, JOURNAL_LIMITS, Some(compaction), config.set_aside_dir(), metrics)?;
    Ok((bus, stations))
}

fn open_authenticator(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Authenticator>>, CredentialsError> {
    if config.listeners.values().all(|listener| listener.auth == AuthMode::Open) {
        return Ok(None);
    }
    let threads = config.credentials.slow_hash_threads;
    Authenticator::open(config.credentials.file.clone(), threads, Arc::clone(metrics))
        .map(|it| Some(Arc::new(it)))
}

/// How often readiness is looked at when nobody asks, so that its metric is true.
pub const READINESS_TICK: Duration = Duration::from_secs(1);
