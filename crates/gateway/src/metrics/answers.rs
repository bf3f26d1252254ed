//! What is counted about answers that a backend gives. Owns the names; labels are actions and closed sets of words.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What is counted about answers that a backend gives.
#[derive(Debug)]
pub struct AnswerMetrics {
    /// CALLs that wait for a backend now.
    pub awaited: IntGauge,
    /// Requests to hooks now.
    pub hooks_in_flight: IntGauge,
    /// CALLs that wait for a request to be possible now.
    pub hooks_waiting: IntGauge,
    ended: IntCounterVec,
    deliveries: IntCounterVec,
    wait: Histogram,
    hook_requests: IntCounterVec,
    hook_seconds: HistogramVec,
    breaker_open: IntGaugeVec,
}

impl AnswerMetrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When two metrics have the same name, which a test would show.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(format!("ocpp_gateway_{name}"), help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(format!("ocpp_gateway_{name}"), help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let seconds = |name: &str, help: &str| -> Result<HistogramOpts, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(0.001, 2.0, 16)?;
            Ok(HistogramOpts::new(format!("ocpp_gateway_{name}"), help).buckets(buckets))
        };
        let wait = Histogram::with_opts(seconds(
            "backend_answer_seconds",
            "From a CALL's frame being read to a backend's answer to it",
        )?)?;
        registry.register(Box::new(wait.clone()))?;
        let hook_seconds = HistogramVec::new(
            seconds("hook_seconds", "How long an attempt to ask a hook took, by action")?,
            &["action"],
        )?;
        registry.register(Box::new(hook_seconds.clone()))?;
        let breaker_open = IntGaugeVec::new(
            Opts::new("ocpp_gateway_hook_breaker_open", "1 while an action's URL is not asked"),
            &["action"],
        )?;
        registry.register(Box::new(breaker_open.clone()))?;
        Ok(Self {
            awaited: gauge("answers_awaited", "CALLs that wait for a backend's answer")?,
            hooks_in_flight: gauge("hooks_in_flight", "Requests to hooks now")?,
            hooks_waiting: gauge("hooks_waiting", "CALLs that wait for a request to a hook to be possible")?,
            ended: counters(
                "backend_answers_total",
                "CALLs that a backend was to answer, by action and how the wait ended",
                &["action", "outcome"],
            )?,
            deliveries: counters(
                "backend_deliveries_total",
                "Answers that backends brought, by what became of them",
                &["outcome"],
            )?,
            wait,
            hook_requests: counters(
                "hook_requests_total",
                "Requests to hooks, by action and result",
                &["action", "result"],
            )?,
            hook_seconds,
            breaker_open,
        })
    }

    /// A wait ended: `answered`, `error`, why the fallback applied, or `abandoned` with its session.
    pub fn ended(&self, action: &str, outcome: &str) {
        self.ended.with_label_values(&[action, outcome]).inc();
    }

    /// A backend's answer came this long after its CALL.
    pub fn waited(&self, wait: Duration) {
        self.wait.observe(wait.as_secs_f64());
    }

    /// A backend brought an answer; `outcome` is one of a closed set of words.
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
}
