//! The composition root: builds every part from the configuration, starts it, and holds what the drain needs.
//!
//! Owns the order of things: logs and journals are opened before a port is, so that a gateway which cannot store never
//! accepts; the admin listener comes before the station listeners, so that a start can be watched.

mod derived;
mod listeners;
mod metrics;
mod preflight;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocpp_bus::kafka::consumer::{Consumer, ConsumerMetrics};
use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::{Bus, Registrar, StartError};
use ocpp_commands::Dispatcher;
use ocpp_commands::store::Unfinished;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Authenticate;
use crate::auth::credentials::CredentialsError;
use crate::backend::{Answers, HookError};
use crate::config::Config;
use crate::consumer;
use crate::deviations::Deviations;
use crate::driver::shared::Shared;
use crate::http;
use crate::listener;
use crate::readiness::Readiness;
use crate::registry::Registry;
use crate::session_journal::SessionJournal;
use crate::settings::Resolver;
use crate::settings::file::RulesError;
use crate::spans::export::{self, Exporter};
use crate::twins::Twins;
use ocpp_station::events::Events;
use ocpp_station::recent_calls::RecentCalls;

use self::listeners::open_authenticator;
use self::metrics::Metrics;

pub use metrics::every_metric;
pub use preflight::Preflight;
pub use storage::start_bus;

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
    /// The command store.
    #[error("cannot open the command store in {dir}", dir = dir.display())]
    Commands {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        source: StartError,
    },
    /// The consumer of commands.
    #[error("cannot read commands from Kafka")]
    Intake(#[source] StartError),
    /// The credentials file.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The rules file.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// What is needed to ask a hook.
    #[error("cannot read {0}")]
    Hooks(#[from] HookError),
    /// What is needed to export spans.
    #[error(transparent)]
    Spans(#[from] export::StartError),
    /// The operating system has no thread left.
    #[error("cannot start a thread that accepts stations")]
    Thread(#[source] std::io::Error),
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
    /// What sessions share: the buses, the stations, their metrics.
    pub shared: Arc<Shared>,
    /// Identities that two devices use.
    twins: Arc<Twins>,
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
    /// Reads commands from Kafka.
    pub intake: Option<Consumer>,
    /// Sends spans.
    pub spans: Exporter,
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
        let registrar = Registrar::default();
        let metrics = Metrics::register(&registrar)?;
        let bus =
            start_bus(&config, BusMetrics::register(&registrar, "events")?).map_err(StartupError::Bus)?;
        let (journal, stations, open_sessions) =
            storage::start_journal(&config, BusMetrics::register(&registrar, "stations")?)
                .map_err(|source| StartupError::Journal { dir: config.node.stations_dir(), source })?;
        let commands_metrics = BusMetrics::register(&registrar, "commands")?;
        let (commands, store, unfinished) = storage::start_commands(&config, commands_metrics)
            .map_err(|source| StartupError::Commands { dir: config.node.commands_dir(), source })?;
        let authenticator = open_authenticator(&config, metrics.credentials)?;

        let (spans, tracer) = Exporter::start(&config.telemetry, &config.node.id, metrics.spans)?;

        let registry = Arc::new(Registry::default());
        let events = Events::new(&config.node.id, uuid::Uuid::now_v7);
        let (queued, remembered) = (Arc::clone(&store), Arc::clone(&store));
        metrics.commands.queued.show(move || queued.counts().0);
        metrics.commands.remembered.show(move || remembered.counts().1);
        let stop_accepting = CancellationToken::new();
        let dispatcher = Arc::new(Dispatcher {
            store,
            journal: commands.clone(),
            sessions: Arc::clone(&registry) as Arc<_>,
            stations: Arc::clone(&stations) as Arc<_>,
            bus: bus.clone(),
            events: events.clone(),
            metrics: metrics.commands,
            traces: Arc::new(tracer.clone()),
            limits: derived::command_limits(&config),
            permits: Arc::new(Semaphore::new(config.commands.max_in_flight)),
            batch_permits: Arc::new(Semaphore::new(config.commands.max_batches)),
            tasks: TaskTracker::new(),
            stop: stop_accepting.clone(),
        });
        let (rest, stop_rest) = (TaskTracker::new(), CancellationToken::new());
        let recent_calls =
            Arc::new(RecentCalls::new(config.session.remembered_calls, config.session.remember_for));
        let backend = Answers::open(
            &derived::backend_rules(&config),
            Arc::clone(&registry),
            Arc::clone(&recent_calls),
            metrics.backend,
            rest.clone(),
            stop_rest.clone(),
        )?;
        let settings = Resolver::open(
            derived::default_settings(&config),
            derived::settings(&config),
            config.rules.path(),
            metrics.settings,
        )?;
        let settings = Arc::new(settings);
        let shared = Arc::new(Shared {
            settings: Arc::clone(&settings),
            deviations: Arc::new(Deviations::new(config.validation.report_rows, metrics.deviations)),
            limits: config.session.clone(),
            registration: config.registration.clone(),
            backend: Arc::new(backend),
            hold_limit: config.bus.hold_limit,
            dispatcher: Arc::clone(&dispatcher),
            recent_calls,
            expendable: config.bus.expendable.clone(),
            bus: bus.clone(),
            journal: journal.clone(),
            sessions: Arc::new(SessionJournal::new(open_sessions, journal.clone())),
            stations,
            events: events.clone(),
            tracer,
            metrics: metrics.session,
        });
        let readiness = Arc::new(Readiness::new(
            bus.status().clone(),
            journal.status().clone(),
            commands.status().clone(),
        ));
        let (ready, known) = (Arc::clone(&readiness), Arc::clone(&shared.stations));
        metrics.ready.show(move || usize::from(ready.check().is_ok()));
        metrics.stations_known.show(move || known.len());
        let known = Arc::clone(&shared.stations);
        let greatest = move || usize::try_from(known.greatest_transaction_id()).unwrap_or_default();
        metrics.transaction_id.show(greatest);
        let mut app = Self {
            registry: Arc::clone(&registry),
            shared: Arc::clone(&shared),
            twins: Arc::new(Twins::new(config.twins.clone(), metrics.twins)),
            readiness,
            tasks: TaskTracker::new(),
            stop_accepting,
            stop_rest,
            rest,
            intake: None,
            spans,
            config,
        };
        let admin_listener = bind(app.config.admin.address, 128, "admin.address")?;
        let station_listeners = app.bind_station_listeners()?;
        drop(app.tasks.spawn(end_lost_sessions(Arc::clone(&app.shared))));
        drop(app.rest.spawn(Arc::clone(&app.shared.sessions).keep(app.stop_accepting.clone())));
        app.start_commands(&dispatcher, unfinished, &registrar)?;
        app.start_admin(admin_listener, registrar.registry().clone());
        if let Some(authenticator) = &authenticator {
            let watch = Arc::clone(authenticator)
                .watch(app.config.credentials.reload_interval, app.stop_rest.clone());
            drop(app.rest.spawn(watch));
        }
        let registry = Arc::clone(&app.registry);
        let refresh = move || registry.all().iter().for_each(|session| session.refresh_settings());
        let watch = settings.watch(app.config.rules.reload_interval, app.stop_rest.clone(), refresh);
        drop(app.rest.spawn(watch));
        drop(app.rest.spawn(sweep(Arc::clone(&app.shared), Arc::clone(&app.twins), app.stop_rest.clone())));
        let authenticator = authenticator.map(|file| -> Arc<dyn Authenticate> { file });
        app.start_station_listeners(station_listeners, authenticator, &metrics.handshake)?;
        Ok(app)
    }

    /// Ends what a crash has left open, and reads commands from Kafka.
    fn start_commands(
        &mut self,
        dispatcher: &Arc<Dispatcher>,
        unfinished: Vec<Unfinished>,
        registrar: &Registrar,
    ) -> Result<(), StartupError> {
        drop(dispatcher.tasks.spawn(Arc::clone(dispatcher).recover(unfinished)));
        drop(self.rest.spawn(sweep_commands(Arc::clone(dispatcher), self.stop_rest.clone())));
        if let Some(options) = derived::consumer_options(&self.config) {
            let topic = options.topic.clone();
            let metrics = ConsumerMetrics::register(registrar)?;
            let (intake, deliveries) =
                Consumer::start(&derived::kafka_options(&self.config), options, metrics)
                    .map_err(StartupError::Intake)?;
            let reading = consumer::serve(
                Arc::clone(dispatcher),
                Arc::clone(&self.shared.backend),
                topic,
                deliveries,
                self.stop_accepting.clone(),
            );
            drop(self.rest.spawn(reading));
            self.intake = Some(intake);
        }
        Ok(())
    }

    fn start_admin(&self, listener: TcpListener, metrics: prometheus::Registry) {
        let Shared {
            dispatcher, backend, stations, settings, deviations, bus, journal, registration, ..
        } = &*self.shared;
        let listeners = self.config.listeners.iter();
        let max_connections = self.config.admin.max_connections;
        let api = http::Api {
            health: http::Sources {
                readiness: Arc::clone(&self.readiness),
                registry: Arc::clone(&self.registry),
                stations: Arc::clone(stations),
                metrics,
            },
            stations: http::Directory {
                registry: Arc::clone(&self.registry),
                stations: Arc::clone(stations),
                journal: journal.clone(),
                twins: Arc::clone(&self.twins),
                max_stations: registration.max_stations,
                commands: Arc::clone(&dispatcher.store),
            },
            deviations: Arc::clone(deviations),
            settings: http::Settings {
                resolver: Arc::clone(settings),
                registry: Arc::clone(&self.registry),
                stations: Arc::clone(stations),
                journal: journal.clone(),
                max_stations: registration.max_stations,
                listeners: listeners.map(|(name, rules)| (name.clone(), Arc::clone(&rules.tags))).collect(),
            },
            commands: Arc::clone(dispatcher),
            backend: Arc::clone(backend),
            registry: Arc::clone(&self.registry),
            events: http::Subscriptions {
                bus: bus.clone(),
                permits: Arc::new(Semaphore::new((max_connections / 2).max(1))),
                tasks: self.rest.clone(),
                stop: self.stop_rest.clone(),
            },
        };
        let server = http::Server {
            api: api.into_router(),
            max_connections,
            tasks: self.rest.clone(),
            stop: self.stop_rest.clone(),
        };
        tracing::info!(address = ?listener.local_addr().ok(), "admin listener");
        drop(self.rest.spawn(server.serve(listener)));
    }
}

fn bind(address: std::net::SocketAddr, backlog: i32, key: &str) -> Result<TcpListener, StartupError> {
    listener::bind(address, backlog).map_err(|source| StartupError::Listen {
        address,
        key: key.to_owned(),
        source,
    })
}

async fn end_lost_sessions(shared: Arc<Shared>) {
    let count = shared.sessions.end_lost(&shared.bus, &shared.events).await;
    if count > 0 {
        tracing::warn!(sessions = count, "sessions that the last run of the gateway left open have ended");
    }
    shared.metrics.sessions_lost(count);
}

async fn sweep_commands(dispatcher: Arc<Dispatcher>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(1);
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        dispatcher.sweep().await;
    }
}

/// Forgets what is no longer needed about stations.
async fn sweep(shared: Arc<Shared>, twins: Arc<Twins>, stop: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(10);
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let now = Instant::now();
        shared.recent_calls.sweep(now);
        twins.sweep(now);
    }
}
