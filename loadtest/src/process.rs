//! What a process costs according to the kernel: processor time and resident memory.

use std::time::{Duration, Instant};

/// Processor time and memory of a process at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// User and system time since it started.
    pub cpu: Duration,
    /// Resident memory, in bytes.
    pub memory: u64,
}

/// The unit of times in `/proc/PID/stat`: whatever Linux uses itself, it reports 100 ticks a second to programs.
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    /// Reads the usage of a process; `None` if there is no such process (any more).
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&stat, &status)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the name, in parentheses, which may contain anything; the state follows as field 3.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
        let user: u32 = fields.next()?.parse().ok()?;
        let system: u32 = fields.next()?.parse().ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Self { cpu: TICK * (user + system), memory: kib * 1024 })
    }
}

/// Measures the share of a core that a process uses between two readings.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    last: Option<(Instant, Usage)>,
}

/// What a process used recently.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reading {
    /// Share of one core since the last reading; several threads can make it more than 1.
    pub cores: f64,
    /// Processor time since the process started, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub memory: u64,
}

impl Meter {
    /// Starts to measure a process.
    pub fn new(pid: u32) -> Self {
        Self { pid, last: Usage::of(pid).map(|usage| (Instant::now(), usage)) }
    }

    /// Returns what it used since the last reading; `None` if it is gone.
    pub fn read(&mut self) -> Option<Reading> {
        let (now, usage) = (Instant::now(), Usage::of(self.pid)?);
        let cores = self.last.map_or(0.0, |(then, before)| {
            let passed = now.duration_since(then).as_secs_f64().max(f64::MIN_POSITIVE);
            usage.cpu.saturating_sub(before.cpu).as_secs_f64() / passed
        });
        self.last = Some((now, usage));
        Some(Reading { cores, cpu_seconds: usage.cpu.as_secs_f64(), memory: usage.memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 4194304 500 0 0 0 150 50 0 0 20 0 9 0 100 1000000 300";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\n").unwrap();
        assert_eq!(usage, Usage { cpu: Duration::from_secs(2), memory: 2 << 20 });
    }

    #[test]
    fn this_process_uses_something_and_an_impossible_one_nothing() {
        let mut meter = Meter::new(std::process::id());
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(120) {
            std::hint::spin_loop();
        }
        let reading = meter.read().unwrap();
        assert!(reading.cores > 0.2, "{reading:?}");
        assert!(reading.memory > 1 << 20);
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
