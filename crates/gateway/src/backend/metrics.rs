//! What is counted about backends: the answers they deliver, and the requests to their hooks.
//!
//! Owns the names; labels are known actions and closed sets of words. What a session's CALL waited for is counted by the session.

use std::time::Duration;

use ocpp_bus::Registrar;
use ocpp_bus::registrar::Buckets;
use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::PayloadViolations;

/// The metrics of answers by a backend.
#[derive(Debug)]
pub struct BackendMetrics {
    /// Requests to hooks now.
    pub hooks_in_flight: IntGauge,
    /// CALLs that wait until a request to their hook may start.
    pub hooks_waiting: IntGauge,
    deliveries: IntCounterVec,
    hook_requests: IntCounterVec,
    hook_seconds: HistogramVec,
    breaker_open: IntGaugeVec,
    violations: PayloadViolations,
}

impl BackendMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn register(registrar: &Registrar, violations: PayloadViolations) -> Result<Self, prometheus::Error> {
        Ok(Self {
            hooks_in_flight: registrar.gauge("hooks_in_flight", "Requests to hooks now")?,
            hooks_waiting: registrar
                .gauge("hooks_waiting", "CALLs that wait for a request to a hook to be possible")?,
            deliveries: registrar.counters(
                "backend_deliveries_total",
                "Answers that backends brought, by what became of them",
                &["outcome"],
            )?,
            hook_requests: registrar.counters(
                "hook_requests_total",
                "Requests to hooks, by action and result",
                &["action", "result"],
            )?,
            hook_seconds: registrar.histograms(
                "hook_seconds",
                "How long an attempt to ask a hook took, by action",
                &["action"],
                Buckets::BACKEND_SECONDS,
            )?,
            breaker_open: registrar.gauges(
                "hook_breaker_open",
                "1 while an action's URL is not asked",
                &["action"],
            )?,
            violations,
        })
    }

    /// A backend delivered an answer; `outcome` is one of a closed set of words.
    pub fn delivered(&self, outcome: &str) {
        self.deliveries.with_label_values(&[outcome]).inc();
    }

    /// A hook was asked; `result` is one of a closed set of words.
    pub fn hook_asked(&self, action: &str, result: &str, took: Duration) {
        self.hook_requests.with_label_values(&[action, result]).inc();
        self.hook_seconds.with_label_values(&[action]).observe(took.as_secs_f64());
    }

    /// The breaker of an action's URL opened or closed.
    pub fn breaker(&self, action: &str, is_open: bool) {
        self.breaker_open.with_label_values(&[action]).set(i64::from(is_open));
    }

    /// A backend's answer violated its schema.
    pub fn violation(&self, action: &str, code: &str) {
        self.violations.count(action, code);
    }
}
