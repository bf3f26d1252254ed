//! Progress on the terminal: one line that is redrawn, or a line now and then if the output is no terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use super::timeline::Timeline;
use crate::scenario::Scenario;

/// Interval between lines that stay.
const EVERY: Duration = Duration::from_secs(10);

/// The progress line.
#[derive(Debug)]
pub(super) struct ProgressLine {
    quiet: bool,
    terminal: bool,
    last: Option<Instant>,
}

impl ProgressLine {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet, terminal: stderr().is_terminal(), last: None }
    }

    /// Prints a line that stays.
    pub(super) fn say(&mut self, text: &str) {
        if !self.quiet {
            self.clear();
            write(&format!("{text}\n"));
        }
    }

    /// Shows the present state of the run.
    pub(super) fn show(&mut self, scenario: &Scenario, timeline: &Timeline) {
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if self.quiet || !(self.terminal || due) {
            return;
        }
        let Some(text) = line(scenario, timeline) else { return };
        self.last = Some(Instant::now());
        write(&if self.terminal { format!("\r\x1b[2K{text}") } else { format!("{text}\n") });
    }

    /// Erases the redrawn line.
    pub(super) fn clear(&mut self) {
        if self.terminal && self.last.is_some() && !self.quiet {
            write("\r\x1b[2K");
        }
    }
}

fn line(scenario: &Scenario, timeline: &Timeline) -> Option<String> {
    let (point, counts) = (timeline.now()?, timeline.counts());
    let whole = scenario.sending_time().as_secs();
    let at = point.at as u64;
    let mut text = format!(
        "{}:{:02}/{}:{:02}  {} of {} connected  {:.0}/s  p50 {:.1} p99 {:.1} max {:.0} ms  {} open",
        at / 60,
        at % 60,
        whole / 60,
        whole % 60,
        point.connected,
        scenario.stations,
        point.answered + point.misbehaved,
        point.latency.p50,
        point.latency.p99,
        point.latency.max,
        point.open,
    );
    if counts.disconnects + counts.attempts - counts.connects > 0 {
        text.push_str(&format!(
            "  {} lost, {} failed",
            counts.disconnects,
            counts.attempts - counts.connects
        ));
    }
    if let Some(cores) = timeline.gateway_cores() {
        text.push_str(&format!("  gateway {:.0} %", cores * 100.0));
    }
    let busiest = point.workers.iter().copied().fold(0.0, f64::max);
    text.push_str(&format!("  load {:.0} %", busiest * 100.0));
    if let Some(gateway) = &point.gateway {
        let states: Vec<_> = gateway.bus_states.iter().map(String::as_str).collect();
        text.push_str(&format!("  bus {} {}", states.join("+"), gateway.queue_records));
    }
    if timeline.reading().calls > 0 {
        text.push_str(&format!("  {} found", timeline.reading().calls));
    }
    Some(text)
}

fn write(text: &str) {
    // If nobody reads it, nothing is lost.
    let mut stderr = stderr().lock();
    drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
}
