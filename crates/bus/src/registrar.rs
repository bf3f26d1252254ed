//! Registers metrics, and lists what was registered.
//!
//! Owns the prefix of every name and the constant labels, so that a feature states only a name, a help text and its own labels.
//! The list is what the page of metrics is generated from: a registry shows no family before its first series. Knows no
//! metric by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::{
    Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry,
};

use crate::computed::ComputedGauge;

/// What every metric's name starts with.
const PREFIX: &str = "ocpp_gateway_";

/// Registers metrics in one registry. Clones, and those made by [`within`](Self::within) and [`labelled`](Self::labelled),
/// share the registry and the list.
///
/// Every registration fails if a metric of the same name and constant labels exists, or if its name or labels are malformed.
#[derive(Clone, Debug)]
pub struct Registrar {
    registry: Registry,
    prefix: String,
    labels: HashMap<String, String>,
    families: Arc<Mutex<BTreeMap<String, Family>>>,
}

/// All metrics of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Family {
    /// The whole name, with its prefix.
    pub name: String,
    /// What Prometheus calls its type.
    pub kind: Kind,
    /// The names of its labels: the constant ones, then those that vary.
    pub labels: Vec<String>,
    /// What it tells.
    pub help: String,
}

/// The type of a metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

impl Kind {
    /// The word in Prometheus's text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The upper bounds of a histogram's buckets: `count` of them, the first at `start`, each `factor` times the one before.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Buckets {
    /// The first bound.
    pub start: f64,
    /// From one bound to the next.
    pub factor: f64,
    /// How many bounds there are, besides infinity.
    pub count: usize,
}

impl Buckets {
    /// From a quarter of a millisecond to half a minute, in seconds.
    pub const SECONDS: Self = Self { start: 0.000_25, factor: 2.0, count: 18 };
    /// From a millisecond to half a minute, in seconds: for what another machine takes part in.
    pub const BACKEND_SECONDS: Self = Self { start: 0.001, factor: 2.0, count: 16 };
}

impl Registrar {
    /// Registers in this registry.
    pub fn new(registry: Registry) -> Self {
        Self { registry, prefix: PREFIX.to_owned(), labels: HashMap::new(), families: Arc::default() }
    }

    /// Where the metrics are, with their series.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The same, for names that go on with `prefix`.
    #[must_use]
    pub fn within(&self, prefix: &str) -> Self {
        Self { prefix: format!("{}{prefix}", self.prefix), ..self.clone() }
    }

    /// The same, for metrics that all have this label.
    #[must_use]
    pub fn labelled(&self, label: &str, value: &str) -> Self {
        let mut labels = self.labels.clone();
        labels.insert(label.to_owned(), value.to_owned());
        Self { labels, ..self.clone() }
    }

    /// Every family registered so far, by name.
    pub fn families(&self) -> Vec<Family> {
        self.list().values().cloned().collect()
    }

    /// A counter without labels of its own.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.register(Kind::Counter, IntCounter::with_opts(self.options(name, help))?)
    }

    /// A counter for each combination of the labels' values.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(Kind::Counter, IntCounterVec::new(self.options(name, help), labels)?)
    }

    /// A gauge of whole numbers without labels of its own.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(Kind::Gauge, IntGauge::with_opts(self.options(name, help))?)
    }

    /// A gauge of whole numbers that is read when the metrics are gathered.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn computed(&self, name: &str, help: &str) -> Result<ComputedGauge, Error> {
        let gauge = IntGauge::with_opts(self.options(name, help))?;
        self.register(Kind::Gauge, ComputedGauge::new(gauge))
    }

    /// A gauge of whole numbers for each combination of the labels' values.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.register(Kind::Gauge, IntGaugeVec::new(self.options(name, help), labels)?)
    }

    /// A gauge of fractions without labels of its own.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn fraction(&self, name: &str, help: &str) -> Result<Gauge, Error> {
        self.register(Kind::Gauge, Gauge::with_opts(self.options(name, help))?)
    }

    /// A histogram without labels of its own.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Result<Histogram, Error> {
        self.register(Kind::Histogram, Histogram::with_opts(self.histogram_options(name, help, buckets)?)?)
    }

    /// A histogram for each combination of the labels' values.
    ///
    /// # Errors
    /// See [`Registrar`].
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Buckets,
    ) -> Result<HistogramVec, Error> {
        let options = self.histogram_options(name, help, buckets)?;
        self.register(Kind::Histogram, HistogramVec::new(options, labels)?)
    }

    /// Registers a collector of metrics that were made with [`options`](Self::options), all of one type.
    pub(crate) fn collector(&self, kind: Kind, collector: impl Collector + 'static) -> Result<(), Error> {
        let descriptions: Vec<Desc> = collector.desc().into_iter().cloned().collect();
        self.registry.register(Box::new(collector))?;
        self.add(kind, &descriptions);
        Ok(())
    }

    /// The name, help text and constant labels of a metric of this registrar.
    pub(crate) fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}{name}", self.prefix), help).const_labels(self.labels.clone())
    }

    fn histogram_options(&self, name: &str, help: &str, buckets: Buckets) -> Result<HistogramOpts, Error> {
        let bounds = prometheus::exponential_buckets(buckets.start, buckets.factor, buckets.count)?;
        Ok(HistogramOpts::from(self.options(name, help)).buckets(bounds))
    }

    fn register<M: Collector + Clone + 'static>(&self, kind: Kind, metric: M) -> Result<M, Error> {
        self.collector(kind, metric.clone())?;
        Ok(metric)
    }

    fn add(&self, kind: Kind, descriptions: &[Desc]) {
        for desc in descriptions {
            let constant = desc.const_label_pairs.iter().map(|pair| pair.name().to_owned());
            let family = Family {
                name: desc.fq_name.clone(),
                kind,
                labels: constant.chain(desc.variable_labels.iter().cloned()).collect(),
                help: desc.help.clone(),
            };
            self.list().insert(desc.fq_name.clone(), family);
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Family>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registers in a registry of its own.
impl Default for Registrar {
    fn default() -> Self {
        Self::new(Registry::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_the_prefix_and_the_constant_labels() {
        let registrar = Registrar::default().within("bus_").labelled("bus", "events");
        registrar
            .counters("failures_total", "Failures", &["kind"])
            .unwrap()
            .with_label_values(&["sync"])
            .inc();
        let families = registrar.registry().gather();
        assert_eq!(families[0].name(), "ocpp_gateway_bus_failures_total");
        let labels: Vec<_> =
            families[0].get_metric()[0].get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        assert_eq!(labels, [("bus", "events"), ("kind", "sync")]);
    }

    #[test]
    fn every_family_is_listed_once_even_without_a_series() {
        let registrar = Registrar::default();
        for bus in ["events", "stations"] {
            registrar.labelled("bus", bus).histograms("wait", "Time", &["kind"], Buckets::SECONDS).unwrap();
        }
        registrar.gauge("ready", "Readiness").unwrap();
        let families = registrar.families();
        assert_eq!(families.len(), 2);
        assert_eq!(families[0].name, "ocpp_gateway_ready");
        assert_eq!(families[1].labels, ["bus", "kind"]);
        assert_eq!(families[1].kind, Kind::Histogram);
    }

    #[test]
    fn a_computed_gauge_is_read_when_the_metrics_are_gathered() {
        let registrar = Registrar::default();
        let gauge = registrar.computed("known", "Known").unwrap();
        let shown = || registrar.registry().gather()[0].get_metric()[0].get_gauge().get_value();
        assert_eq!(shown(), 0.0, "nothing to read yet");
        let known = Arc::new(Mutex::new(3));
        let read = Arc::clone(&known);
        gauge.show(move || *read.lock().unwrap());
        assert_eq!(shown(), 3.0);
        *known.lock().unwrap() = 4;
        assert_eq!(shown(), 4.0);
        assert_eq!(registrar.families()[0].kind, Kind::Gauge);
    }

    #[test]
    fn a_name_is_registered_once() {
        let registrar = Registrar::default();
        registrar.counter("a_total", "A").unwrap();
        assert!(registrar.counter("a_total", "A").is_err());
        assert_eq!(registrar.families().len(), 1);
    }
}
