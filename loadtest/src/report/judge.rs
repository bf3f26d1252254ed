//! Whether a run passed, failed, or says nothing.
//!
//! Owns the rules. An event that is lost, duplicated or out of order fails the run whatever else happened: no overload of the
//! load test can excuse it. A missed limit fails it only if the load test can be trusted.

use super::{Conclusion, Judgement, Report};

/// A worker that uses a whole core for this long cannot be trusted with latencies.
const PEGGED_SECONDS: f64 = 10.0;
/// The share of a core that counts as all of it.
pub const WHOLE_CORE: f64 = 0.95;

/// Judges a run. `problems` is what went wrong with the load test's own processes.
pub fn judge(report: &Report, problems: &[String]) -> Conclusion {
    let invalid = invalid(report, problems);
    let losses = losses(report);
    let missed = missed(report);
    let judgement = if !losses.is_empty() {
        Judgement::Failed
    } else if !invalid.is_empty() {
        Judgement::Invalid
    } else if missed.is_empty() {
        Judgement::Passed
    } else {
        Judgement::Failed
    };
    Conclusion { judgement, faults: losses.into_iter().chain(missed).collect(), invalid }
}

/// Broken promises.
fn losses(report: &Report) -> Vec<String> {
    let mut losses = Vec::new();
    if let Some(verification) = &report.verification {
        let faults = verification.verdict.faults();
        // A station without a ledger is the load test's own fault.
        let of_the_bus = faults.into_iter().filter(|fault| fault.0 != "unaccounted");
        losses.extend(of_the_bus.map(|(what, count)| format!("{what}: {count}")));
    }
    if report.counts.unexpected > 0 {
        losses.push(format!(
            "{} texts from the gateway that were neither asked for nor OCPP",
            report.counts.unexpected
        ));
    }
    losses
}

/// Missed limits.
fn missed(report: &Report) -> Vec<String> {
    let (counts, limits) = (&report.counts, &report.scenario.limits);
    let mut missed = Vec::new();
    let mut at_least = |what: &str, part: u64, whole: u64, limit: f64| {
        if whole > 0 && (part as f64) < limit * whole as f64 {
            let limit = limit * 100.0;
            missed.push(format!("{what}: {part} of {whole}, which is less than {limit} %"));
        }
    };
    at_least("connection attempts that succeeded", counts.connects, counts.attempts, limits.connections);
    if !report.interrupted {
        at_least(
            "stations registered",
            counts.registered,
            report.scenario.stations.into(),
            limits.connections,
        );
    }
    at_least("CALLs answered", counts.answered - counts.refused, counts.sent, limits.answered);
    let answered = report.commands.outcomes.get("answered").copied().unwrap_or_default();
    at_least("commands answered", answered, report.commands.sent, limits.commands_answered);
    if counts.disconnects > limits.disconnects {
        missed.push(format!(
            "unwanted ends of well-behaved stations' connections: {}, more than {}",
            counts.disconnects, limits.disconnects
        ));
    }
    if let Some(limit) = limits.p99.map(|limit| limit.as_secs_f64() * 1000.0)
        && report.latency.p99 > limit
    {
        missed.push(format!("p99 latency: {:.1} ms, more than {limit:.1} ms", report.latency.p99));
    }
    missed
}

/// Reasons not to trust the run.
fn invalid(report: &Report, problems: &[String]) -> Vec<String> {
    let mut invalid = problems.to_vec();
    let limit = report.scenario.limits.send_lag_p99.as_secs_f64() * 1000.0;
    let lag = report.load.send_lag.p99;
    if lag > limit {
        invalid.push(format!("the load test sent late: p99 {lag:.1} ms, more than {limit:.1} ms"));
    }
    for (number, worker) in report.load.workers.iter().enumerate() {
        if worker.pegged_seconds >= PEGGED_SECONDS {
            invalid.push(format!(
                "worker {number} used a whole core for {:.0} s without a break: use more workers",
                worker.pegged_seconds
            ));
        }
    }
    if let Some(verification) = &report.verification
        && verification.verdict.unaccounted > 0
    {
        invalid.push(format!("{} stations without a ledger", verification.verdict.unaccounted));
    }
    if report.counts.sent == 0 {
        invalid.push("no CALL was sent".into());
    }
    invalid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cost, Verification, example};
    use crate::verify::checker::Verdict;

    fn judged(change: impl FnOnce(&mut Report)) -> Conclusion {
        let mut report = example::report();
        change(&mut report);
        judge(&report, &[])
    }

    #[test]
    fn a_run_without_faults_passes() {
        let outcome = judged(|_| {});
        assert_eq!(outcome, Conclusion { judgement: Judgement::Passed, faults: vec![], invalid: vec![] });
    }

    #[test]
    fn every_fault_of_the_verification_fails_the_run() {
        let faults: [fn(&mut Verdict); 6] = [
            |verdict| verdict.lost = 1,
            |verdict| verdict.reordered = 1,
            |verdict| verdict.duplicated = 1,
            |verdict| verdict.unknown = 1,
            |verdict| verdict.unreadable = 1,
            |verdict| verdict.gaps = 1,
        ];
        for fault in faults {
            let outcome = judged(|report| {
                let verdict = &mut report.verification.as_mut().unwrap().verdict;
                fault(verdict);
                // Whatever state the load test was in.
                report.load.send_lag.p99 = 1e6;
            });
            assert_eq!(outcome.judgement, Judgement::Failed, "{outcome:?}");
            assert_eq!(outcome.faults.len(), 1, "{outcome:?}");
        }
    }

    #[test]
    fn every_limit_counts() {
        let misses: [fn(&mut Report); 6] = [
            |report| report.counts.connects -= 1,
            |report| report.counts.registered -= 1,
            |report| report.counts.answered -= 1,
            |report| report.counts.refused += 1,
            |report| report.counts.disconnects += 1,
            |report| report.latency.p99 = 26.0,
        ];
        for miss in misses {
            let outcome = judged(miss);
            assert_eq!((outcome.judgement, outcome.faults.len()), (Judgement::Failed, 1), "{outcome:?}");
        }
    }

    #[test]
    fn a_bottleneck_makes_a_run_invalid() {
        let lag = judged(|report| report.load.send_lag.p99 = 51.0);
        let pegged = judged(|report| {
            report.load.workers.push(Cost { pegged_seconds: 12.0, ..Cost::default() });
        });
        let limit_too = judged(|report| {
            report.load.send_lag.p99 = 51.0;
            report.latency.p99 = 1000.0;
        });
        let lost_ledger = judged(|report| {
            let verdict = &mut report.verification.as_mut().unwrap().verdict;
            verdict.unaccounted = 1;
        });
        let silent = judged(|report| report.counts = crate::worker::Counts::default());
        for outcome in [&lag, &pegged, &limit_too, &lost_ledger, &silent] {
            assert_eq!(outcome.judgement, Judgement::Invalid, "{outcome:?}");
        }
        assert!(pegged.invalid[0].contains("worker 2"), "{pegged:?}");
        let broken = judge(&example::report(), &["worker 0 ended".into()]);
        assert_eq!(broken.judgement, Judgement::Invalid);
    }

    #[test]
    fn a_run_without_a_verification_can_pass() {
        let outcome = judged(|report| report.verification = None::<Verification>);
        assert_eq!(outcome.judgement, Judgement::Passed);
    }
}
