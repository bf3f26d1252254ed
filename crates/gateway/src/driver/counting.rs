//! What becomes of what a session observes: numbers, lines in the log, and the report of deviations.
//!
//! Owns which observation is counted where. Nothing is logged for each message above `debug`.

use std::time::SystemTime;

use ocpp_protocol::Findings;
use ocpp_station::observation::Observation;

use super::host::SocketHost;
use crate::deviations::{Deed, Deviant};

impl SocketHost {
    /// Counts it, and logs it where a person wants to know.
    pub(super) fn count(&mut self, what: Observation<'_>) {
        let (metrics, session) = (&self.shared.metrics, &self.session);
        match what {
            Observation::Received { message_type, action } => metrics.received(message_type, action),
            Observation::Sent { message_type, action } => metrics.sent(message_type, action),
            Observation::CallEnded { action, outcome } => metrics.call_ended(action, outcome),
            Observation::AnswerSent { latency } => metrics.answer_latency(latency),
            Observation::Repeated(kind) => metrics.repeated(kind),
            Observation::Shed { action } => metrics.dropped(action, "busFull"),
            Observation::Leniency(kind) => {
                metrics.leniency(kind);
                let deed = Deed { message_type: None, action: None, member: None, kind };
                self.note_deviation(deed, None, false);
                session.log(|| tracing::debug!(kind, "a message deviates, and is let through"));
            }
            Observation::Violations { message_type, action, found, is_refused } => {
                self.count_violations(message_type, action, found, is_refused);
            }
            Observation::Malformed(reason) => {
                metrics.malformed(reason);
                session.log(|| tracing::debug!(reason, "malformed message"));
            }
            Observation::UnmatchedAnswer(kind) => metrics.unmatched_answer(kind),
            Observation::CommandAnswered(wait) => metrics.command_wait(wait),
            Observation::DelegationEnded { action, outcome } => metrics.answers.ended(action, outcome),
            Observation::BackendResponded(wait) => metrics.answers.waited(wait),
            Observation::FellBack { action, reason } => {
                session.log(|| tracing::debug!(action, why = reason.as_str(), "no answer by a backend"));
            }
            Observation::BootTriggered(outcome) => {
                metrics.boot_triggered(outcome);
                session.log(|| tracing::info!(outcome, "station asked to boot"));
            }
            Observation::Registered(registration) => {
                session.log(|| tracing::info!(registration = registration.as_str(), "station registered"));
            }
            Observation::PingReceived => metrics.ping_received(),
            Observation::PingRoundTrip(round_trip) => metrics.ping_round_trip(round_trip),
            Observation::ReadPaused => metrics.read_paused(),
        }
    }

    fn count_violations(
        &self,
        message_type: &'static str,
        action: &'static str,
        found: &Findings,
        is_refused: bool,
    ) {
        let (metrics, session) = (&self.shared.metrics, &self.session);
        let tolerate = self.settings.session.validation.tolerate;
        for violation in found.all() {
            let is_tolerated = tolerate.contains(violation.kind);
            if is_tolerated {
                metrics.leniency(violation.kind.as_str());
            }
            let deed = Deed {
                message_type: Some(message_type),
                action: Some(action),
                member: Some(violation.member()),
                kind: violation.kind.as_str(),
            };
            self.note_deviation(deed, Some(violation.to_string()), is_refused && !is_tolerated);
        }
        if let Some(violation) = found.refusal() {
            metrics.violation(action, violation.code().as_str(session.admission.version));
        }
        let violation = found.foremost().map(tracing::field::display);
        session.log(|| {
            tracing::debug!(message_type, action, violation, is_refused, "payload violates its schema")
        });
    }

    /// Notes in the report that the station deviates.
    fn note_deviation(&self, deed: Deed, example: Option<String>, is_refused: bool) {
        let admission = &self.session.admission;
        let model = self.shared.stations.model(&self.key);
        let who = Deviant {
            identity: admission.identity.as_str(),
            key: &self.key,
            model: model.as_ref(),
            version: admission.version,
            at: SystemTime::now(),
        };
        if self.shared.deviations.note(&who, &deed, example.as_deref(), is_refused) {
            let Deed { action, member, kind, .. } = deed;
            let model = model.map(|model| format!("{} {}", model.vendor, model.model));
            self.session.log(|| {
                tracing::info!(
                    model,
                    action,
                    member,
                    kind,
                    example,
                    "the first station of its model deviates so"
                )
            });
        }
    }
}
