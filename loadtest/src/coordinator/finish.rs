//! The end of a run: what everybody reported becomes the report.

use std::time::Instant;

use super::Run;
use crate::process::Usage;
use crate::report::judge::judge;
use crate::report::{Conclusion, Cost, Judgement, Load, Report, SCHEMA, Verification};
use crate::verify::Source;

impl Run {
    /// Waits for what is still in progress, and judges the run.
    pub(super) async fn finish(mut self) -> Report {
        // Commands have their own timeouts.
        self.inputs.close();
        self.tasks.close();
        self.tasks.wait().await;
        self.progress.clear();
        let end = self.stations_left.unwrap_or_else(Instant::now);
        let seconds = end.saturating_duration_since(self.start).as_secs_f64();
        let finished = self.timeline.finish(seconds);
        let own = Usage::of(std::process::id());
        let latency = self.totals.latency();
        let mut report = Report {
            schema: SCHEMA.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            run: self.id,
            started: humantime::format_rfc3339_millis(self.started).to_string(),
            seconds,
            interrupted: self.interrupts > 0,
            outcome: Conclusion { judgement: Judgement::Invalid, faults: Vec::new(), invalid: Vec::new() },
            counts: self.totals.counts,
            connect: self.totals.connect.percentiles(),
            failures: self.totals.failures,
            ends: self.totals.ends,
            latency: latency.percentiles(),
            latency_histogram: latency,
            actions: self
                .totals
                .actions
                .iter()
                .map(|(action, latency)| (action.clone(), latency.percentiles()))
                .collect(),
            chatty: self.totals.chatty.percentiles(),
            commands: self.commander.outcome(),
            verification: self.verdict.map(|verdict| Verification {
                source: self.options.source.as_ref().map(shown).unwrap_or_default(),
                during: self.options.during,
                verdict,
            }),
            load: Load {
                send_lag: self.totals.lag.percentiles(),
                workers: finished.workers,
                verifier: finished.verifier,
                coordinator: own.map_or_else(Cost::default, |own| Cost {
                    cpu_seconds: own.cpu.as_secs_f64(),
                    cores: own.cpu.as_secs_f64() / seconds.max(1.0),
                    pegged_seconds: 0.0,
                    memory_max: own.memory,
                }),
            },
            watched: finished.watched,
            timeline: finished.points,
            scenario: self.options.scenario,
        };
        report.outcome = judge(&report, &self.problems);
        report
    }
}

fn shown(source: &Source) -> String {
    match source {
        Source::Kafka { brokers, topic } => format!("Kafka {brokers}, topic {topic}"),
        Source::Local { admins } => format!("the local log of {}", admins.join(", ")),
    }
}
