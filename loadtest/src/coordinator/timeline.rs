//! The run in steps, put together from what several processes report at their own times.
//!
//! Owns the order: a step is complete when every worker has reported it or a later one, and then becomes one point.
//! Distributions of one step are added before percentiles are taken from them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::watch::{Sample, Watch};
use crate::latency::Latency;
use crate::report::judge::WHOLE_CORE;
use crate::report::{Cost, Point, Watched, is_gateway};
use crate::verify::ReadProgress;
use crate::worker::{Counts, Tick};

/// The run so far.
#[derive(Debug)]
pub(super) struct Timeline {
    step: Duration,
    workers: Vec<Worker>,
    steps: BTreeMap<u64, Step>,
    /// Counters of all workers at the last point, and the step that follows it.
    last: (Counts, u64),
    points: Vec<Point>,
    watches: Vec<Watch>,
    first: Option<Sample>,
    latest: Sample,
    reading: ReadProgress,
    verifier: Cost,
}

/// What is known of a worker.
#[derive(Clone, Debug, Default)]
struct Worker {
    /// The step after the last one that it reported; it will report no earlier one.
    next: u64,
    counts: Counts,
    cost: Cost,
    pegged: Duration,
    ended: bool,
}

/// One step, as far as workers have reported it.
#[derive(Debug, Default)]
struct Step {
    latency: Latency,
    lag: Latency,
    counts: BTreeMap<usize, Counts>,
    cores: BTreeMap<usize, f64>,
}

impl Timeline {
    pub(super) fn new(step: Duration, workers: usize, watches: Vec<Watch>) -> Self {
        Self {
            step,
            workers: vec![Worker::default(); workers],
            steps: BTreeMap::new(),
            last: (Counts::default(), 0),
            points: Vec::new(),
            watches,
            first: None,
            latest: Sample::default(),
            reading: ReadProgress::default(),
            verifier: Cost::default(),
        }
    }

    /// Records the tick of a worker.
    pub(super) fn tick(&mut self, number: usize, tick: &Tick) {
        let Some(worker) = self.workers.get_mut(number) else { return };
        worker.next = worker.next.max(tick.index + 1);
        worker.pegged = if tick.cores >= WHOLE_CORE { worker.pegged + self.step } else { Duration::ZERO };
        let cost = &mut worker.cost;
        cost.cpu_seconds = tick.cpu_seconds;
        cost.memory_max = cost.memory_max.max(tick.memory);
        cost.pegged_seconds = cost.pegged_seconds.max(worker.pegged.as_secs_f64());
        let step = self.steps.entry(tick.index).or_default();
        step.latency.add(&tick.latency);
        step.lag.add(&tick.lag);
        step.counts.insert(number, tick.counts);
        step.cores.insert(number, tick.cores);
        self.complete();
    }

    /// Records that a worker reports nothing any more.
    pub(super) fn ended(&mut self, number: usize) {
        if let Some(worker) = self.workers.get_mut(number) {
            worker.ended = true;
        }
        self.complete();
    }

    pub(super) fn sample(&mut self, sample: Sample) {
        self.first.get_or_insert_with(|| sample.clone());
        self.latest = sample;
    }

    pub(super) fn progress(&mut self, progress: ReadProgress) {
        self.reading = progress;
        self.verifier.cpu_seconds = progress.cpu_seconds;
        self.verifier.memory_max = self.verifier.memory_max.max(progress.memory);
    }

    /// The latest point.
    pub(super) fn now(&self) -> Option<&Point> {
        self.points.last()
    }

    /// Counters of all workers at the latest point.
    pub(super) fn counts(&self) -> &Counts {
        &self.last.0
    }

    /// Share of a core that all watched gateways used at the latest sample; `None` if none is watched.
    pub(super) fn gateway_cores(&self) -> Option<f64> {
        let gateways =
            self.watches.iter().zip(&self.latest.watched).filter(|(watch, _)| is_gateway(&watch.0));
        gateways.filter_map(|(_, reading)| reading.map(|reading| reading.cores)).reduce(|sum, one| sum + one)
    }

    pub(super) fn reading(&self) -> &ReadProgress {
        &self.reading
    }

    /// Completes what is left and returns everything.
    pub(super) fn finish(mut self, seconds: f64) -> Finished {
        for number in 0..self.workers.len() {
            self.ended(number);
        }
        let per_second = |cost: Cost| Cost { cores: cost.cpu_seconds / seconds.max(1.0), ..cost };
        let watched =
            self.watches.iter().enumerate().map(|(number, watch)| self.watched(number, watch, seconds));
        Finished {
            watched: watched.collect(),
            workers: self.workers.iter().map(|worker| per_second(worker.cost)).collect(),
            verifier: per_second(self.verifier),
            points: self.points,
        }
    }

    fn complete(&mut self) {
        let reported = self.workers.iter().filter(|worker| !worker.ended).map(|worker| worker.next).min();
        let reported = reported.unwrap_or(u64::MAX);
        while let Some(entry) = self.steps.first_entry().filter(|entry| *entry.key() < reported) {
            let (index, step) = entry.remove_entry();
            self.point(index, &step);
        }
    }

    fn point(&mut self, index: u64, step: &Step) {
        for (number, counts) in &step.counts {
            self.workers[*number].counts = *counts;
        }
        let mut counts = Counts::default();
        for worker in &self.workers {
            counts.add(&worker.counts);
        }
        let (before, last) = self.last;
        // What happened in a step that no worker reported is counted in the next.
        let steps = (index + 1).saturating_sub(last).max(1) as f64;
        let per_second =
            |now: u64, then: u64| now.saturating_sub(then) as f64 / (steps * self.step.as_secs_f64());
        self.points.push(Point {
            at: (index + 1) as f64 * self.step.as_secs_f64(),
            connected: counts.connected,
            connects: per_second(counts.connects, before.connects),
            sent: per_second(counts.sent, before.sent),
            answered: per_second(counts.answered, before.answered),
            misbehaved: per_second(counts.misbehaved_sent, before.misbehaved_sent),
            open: counts.sent.saturating_sub(counts.answered),
            latency: step.latency.percentiles(),
            lag_p99: step.lag.percentiles().p99,
            workers: (0..self.workers.len())
                .map(|number| step.cores.get(&number).copied().unwrap_or_default())
                .collect(),
            verifier: self.reading.cores,
            events_read: self.reading.events,
            watched_cores: self.latest.watched.iter().map(|one| one.map(|one| one.cores)).collect(),
            watched_memory: self.latest.watched.iter().map(|one| one.map(|one| one.memory)).collect(),
            gateway: self.latest.gateway.clone(),
        });
        self.last = (counts, index + 1);
    }

    fn watched(&self, number: usize, watch: &Watch, seconds: f64) -> Watched {
        let reading = |sample: &Sample| sample.watched.get(number).copied().flatten().unwrap_or_default();
        let first = self.first.as_ref().map(reading).unwrap_or_default();
        let memory = |point: &Point| point.watched_memory.get(number).copied().flatten();
        let connected = self.points.iter().map(|point| point.connected).max().unwrap_or_default();
        let whole = self.points.iter().rev().filter(|point| point.connected == connected);
        let cpu_seconds = (reading(&self.latest).cpu_seconds - first.cpu_seconds).max(0.0);
        Watched {
            name: watch.0.clone(),
            pid: watch.1,
            cpu_seconds,
            cores: cpu_seconds / seconds.max(1.0),
            memory: [
                first.memory,
                self.points.iter().filter_map(memory).max().unwrap_or_default(),
                whole.filter_map(memory).next().unwrap_or_default(),
            ],
        }
    }
}

/// The timeline's part of the report.
pub(super) struct Finished {
    pub(super) points: Vec<Point>,
    pub(super) watched: Vec<Watched>,
    pub(super) workers: Vec<Cost>,
    pub(super) verifier: Cost,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Reading;

    fn tick(index: u64, sent: u64, millis: u64, cores: f64) -> Tick {
        let mut latency = Latency::new();
        latency.record(Duration::from_millis(millis));
        Tick {
            index,
            counts: Counts { sent, answered: sent, connected: 5, ..Counts::default() },
            latency,
            lag: Latency::new(),
            cores,
            cpu_seconds: 1.0,
            memory: 1,
        }
    }

    #[test]
    fn a_point_waits_for_every_worker() {
        let mut timeline = Timeline::new(Duration::from_secs(2), 2, vec![]);
        timeline.tick(0, &tick(0, 10, 1, 0.1));
        timeline.tick(0, &tick(1, 20, 1, 0.1));
        assert!(timeline.now().is_none());
        timeline.tick(1, &tick(0, 6, 9, 0.2));
        let point = timeline.now().unwrap();
        assert_eq!((point.at, point.sent, point.connected), (2.0, 8.0, 10));
        assert_eq!((point.latency.count, point.latency.max.round()), (2, 9.0));
        assert_eq!(point.workers, [0.1, 0.2]);
    }

    #[test]
    fn neither_a_skipped_step_nor_a_worker_that_is_gone_holds_up_a_point() {
        let mut timeline = Timeline::new(Duration::from_secs(1), 2, vec![]);
        timeline.tick(0, &tick(0, 10, 1, 0.1));
        timeline.tick(1, &tick(2, 30, 1, 0.1));
        assert_eq!(timeline.now().map(|point| point.sent), Some(10.0));
        timeline.ended(0);
        let point = timeline.now().unwrap();
        assert_eq!((point.at, point.sent), (3.0, 15.0), "thirty more over two steps");
    }

    #[test]
    fn a_worker_is_pegged_only_while_it_is() {
        let mut timeline = Timeline::new(Duration::from_secs(1), 1, vec![]);
        for (index, cores) in [1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.2].into_iter().enumerate() {
            timeline.tick(0, &tick(index as u64, 0, 1, cores));
        }
        let finished = timeline.finish(7.0);
        assert_eq!(finished.workers[0].pegged_seconds, 3.0);
        assert_eq!(finished.points.len(), 7);
    }

    #[test]
    fn memory_is_reported_before_at_its_peak_and_with_all_connected() {
        let mut timeline = Timeline::new(Duration::from_secs(1), 1, vec![("gateway".into(), 7)]);
        for (index, (memory, connected)) in [(10, 0), (50, 5), (30, 5), (20, 1)].into_iter().enumerate() {
            let reading = Reading { memory, cpu_seconds: index as f64, cores: 0.0 };
            timeline.sample(Sample { watched: vec![Some(reading)], gateway: None });
            let mut tick = tick(index as u64, 0, 1, 0.0);
            tick.counts.connected = connected;
            timeline.tick(0, &tick);
        }
        let watched = &timeline.finish(4.0).watched[0];
        assert_eq!((watched.memory, watched.cpu_seconds), ([10, 50, 30], 3.0));
    }
}
