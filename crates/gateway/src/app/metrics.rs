//! Registers the metrics of every feature. Hands them out, and counts nothing itself.

use std::sync::Arc;

use ocpp_bus::kafka::consumer::ConsumerMetrics;
use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::{ComputedGauge, Registrar};
use prometheus::IntGauge;

use crate::auth::metrics::CredentialMetrics;
use crate::backend::metrics::BackendMetrics;
use crate::deviations::metrics::DeviationMetrics;
use crate::driver::metrics::SessionMetrics;
use crate::listener::metrics::HandshakeMetrics;
use crate::metrics::{DroppedMessages, PayloadViolations};
use crate::settings::metrics::SettingsMetrics;
use crate::spans::metrics::SpanMetrics;
use ocpp_commands::metrics::CommandMetrics;

/// Each feature's metrics. Those of buses and of the consumer of commands are registered where these are opened.
pub(super) struct Metrics {
    pub(super) session: Arc<SessionMetrics>,
    pub(super) handshake: Arc<HandshakeMetrics>,
    pub(super) commands: Arc<CommandMetrics>,
    pub(super) backend: Arc<BackendMetrics>,
    pub(super) credentials: CredentialMetrics,
    pub(super) settings: SettingsMetrics,
    pub(super) deviations: DeviationMetrics,
    pub(super) spans: Arc<SpanMetrics>,
    pub(super) stations_known: ComputedGauge,
    pub(super) transaction_id: ComputedGauge,
    pub(super) twins: IntGauge,
    pub(super) ready: ComputedGauge,
}

impl Metrics {
    pub(super) fn register(registrar: &Registrar) -> Result<Self, prometheus::Error> {
        let violations = PayloadViolations::register(registrar)?;
        let dropped = DroppedMessages::register(registrar)?;
        Ok(Self {
            session: Arc::new(SessionMetrics::register(registrar, violations.clone(), dropped.clone())?),
            handshake: Arc::new(HandshakeMetrics::register(registrar, dropped)?),
            commands: Arc::new(CommandMetrics::register(registrar)?),
            backend: Arc::new(BackendMetrics::register(registrar, violations)?),
            credentials: CredentialMetrics::register(registrar)?,
            settings: SettingsMetrics::register(registrar)?,
            deviations: DeviationMetrics::register(registrar)?,
            spans: Arc::new(SpanMetrics::register(registrar)?),
            stations_known: registrar.computed("stations_known", "Stations whose state is kept")?,
            transaction_id: registrar.computed(
                "greatest_transaction_id",
                "The greatest transaction id given to an OCPP 1.6 station",
            )?,
            twins: registrar.gauge("twins", "Identities that two devices use, which push each other out")?,
            ready: registrar.computed("ready", "1 while /readyz says yes")?,
        })
    }
}

/// Registers every metric that a gateway can have, whatever its configuration. `docs/metrics.md` is generated from them.
///
/// # Errors
/// If two metrics have the same name.
pub fn every_metric() -> Result<Registrar, prometheus::Error> {
    let registrar = Registrar::default();
    Metrics::register(&registrar)?;
    for bus in ["events", "stations", "commands"] {
        BusMetrics::register(&registrar, bus)?;
    }
    ConsumerMetrics::register(&registrar)?;
    Ok(registrar)
}
