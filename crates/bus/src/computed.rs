//! A gauge whose value is read when the metrics are gathered, from whoever keeps it.
//!
//! Owns only the way there. Nobody has to keep such a gauge up to date, so it never differs from what the gateway says elsewhere.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus::IntGauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

type Value = Box<dyn Fn() -> usize + Send + Sync>;

/// A gauge that is registered before there is something to read. Until then it is 0.
#[derive(Clone)]
pub struct ComputedGauge {
    gauge: IntGauge,
    value: Arc<OnceLock<Value>>,
}

impl ComputedGauge {
    pub(crate) fn new(gauge: IntGauge) -> Self {
        Self { gauge, value: Arc::default() }
    }

    /// From here on the gauge shows this. What is given first counts.
    pub fn show(&self, value: impl Fn() -> usize + Send + Sync + 'static) {
        self.value.get_or_init(|| Box::new(value));
    }
}

impl Collector for ComputedGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let value = self.value.get().map_or(0, |value| value());
        self.gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}

impl fmt::Debug for ComputedGauge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ComputedGauge").finish_non_exhaustive()
    }
}
