//! What a station sends, in order: charging sessions with meter values, and heartbeats in between.
//!
//! Owns the position in the script. Knows nothing of timing, connections or answers, except for the transaction id that a 1.6
//! station is given.

use super::payload::{self, Event};
use super::{Message, Version};
use crate::random::Random;
use crate::scenario::Traffic;

/// The script of one station.
#[derive(Debug)]
pub(super) struct Script {
    version: Version,
    identity: String,
    heartbeat_every: u32,
    meter_values: u32,
    bytes: usize,
    connectors: u32,
    phase: Phase,
    /// CALLs made so far.
    sent: u32,
    /// Number of the current charging session.
    session: u32,
    /// Energy register, in Wh.
    energy: u64,
    /// The transaction of 1.6; -1 if its start was never answered (D16E section 3.18).
    transaction: i64,
    /// `seqNo` of the transaction of 2.x.
    number: u32,
}

/// The next message of a charging session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Occupied,
    Authorize,
    Start,
    Meter { left: u32 },
    Stop,
    Available,
}

impl Script {
    pub(super) fn new(version: Version, identity: &str, traffic: &Traffic, random: &mut Random) -> Self {
        Self {
            version,
            identity: identity.to_owned(),
            heartbeat_every: traffic.heartbeat_every,
            meter_values: traffic.meter_values_per_session,
            bytes: traffic.meter_values_bytes,
            connectors: traffic.connectors,
            // Each station starts somewhere else in the middle of a session, so that the mix is steady from the first second.
            phase: Phase::Meter { left: 1 + random.below(traffic.meter_values_per_session.max(1)) },
            sent: random.below(traffic.heartbeat_every.max(1)),
            session: 1,
            energy: u64::from(random.below(10_000_000)),
            transaction: -1,
            number: 0,
        }
    }

    pub(super) fn boot(&self) -> Message {
        Message { action: "BootNotification", payload: payload::boot(self.version, &self.identity) }
    }

    /// Returns the number of status reports that follow a boot.
    pub(super) fn reports(&self) -> u32 {
        // In 1.6, connector 0 is the station as a whole.
        if self.version == Version::V16 { self.connectors + 1 } else { self.connectors }
    }

    pub(super) fn report(&self, number: u32, time: &str) -> Message {
        let connector = if self.version == Version::V16 { number } else { number + 1 };
        Message {
            action: "StatusNotification",
            payload: payload::status(self.version, connector, false, time),
        }
    }

    pub(super) fn large(bytes: usize) -> Message {
        Message { action: "DataTransfer", payload: payload::large(bytes) }
    }

    /// What a flooding station sends: as large as ordinary meter values.
    pub(super) fn flood(&mut self, time: &str) -> Message {
        self.energy += 1;
        let payload = match self.version {
            Version::V16 => payload::meter_values(1, None, self.energy, time, self.bytes),
            Version::V201 | Version::V21 => payload::meter_values_2x(1, self.energy, time, self.bytes),
        };
        Message { action: "MeterValues", payload }
    }

    pub(super) fn heartbeat() -> Message {
        Message { action: "Heartbeat", payload: "{}".into() }
    }

    /// Sets the transaction id that a 1.6 station was given.
    pub(super) fn transaction_is(&mut self, id: i64) {
        self.transaction = id;
    }

    /// Returns the next CALL.
    pub(super) fn next(&mut self, time: &str) -> Message {
        self.sent = self.sent.wrapping_add(1);
        let heartbeat = self.heartbeat_every > 0 && self.sent.is_multiple_of(self.heartbeat_every);
        if heartbeat || self.meter_values == 0 {
            return Self::heartbeat();
        }
        let connector = 1 + self.session % self.connectors;
        let (message, phase) = match self.phase {
            Phase::Occupied => {
                self.session += 1;
                self.transaction = -1;
                self.number = 0;
                let payload = payload::status(self.version, connector, true, time);
                (Message { action: "StatusNotification", payload }, Phase::Authorize)
            }
            Phase::Authorize => {
                let payload = payload::authorize(self.version);
                (Message { action: "Authorize", payload }, Phase::Start)
            }
            Phase::Start => {
                let message = if self.version == Version::V16 {
                    let payload = payload::start(connector, self.energy, time);
                    Message { action: "StartTransaction", payload }
                } else {
                    self.event(Event::Started, time)
                };
                (message, Phase::Meter { left: self.meter_values })
            }
            Phase::Meter { left } => {
                self.energy += 250;
                let message = if self.version == Version::V16 {
                    let id = Some(self.transaction);
                    let payload = payload::meter_values(connector, id, self.energy, time, self.bytes);
                    Message { action: "MeterValues", payload }
                } else {
                    self.event(Event::Updated, time)
                };
                (message, if left > 1 { Phase::Meter { left: left - 1 } } else { Phase::Stop })
            }
            Phase::Stop => {
                let message = if self.version == Version::V16 {
                    let payload = payload::stop(self.transaction, self.energy, time);
                    Message { action: "StopTransaction", payload }
                } else {
                    self.event(Event::Ended, time)
                };
                (message, Phase::Available)
            }
            Phase::Available => {
                let payload = payload::status(self.version, connector, false, time);
                (Message { action: "StatusNotification", payload }, Phase::Occupied)
            }
        };
        self.phase = phase;
        message
    }

    fn event(&mut self, event: Event, time: &str) -> Message {
        let transaction = format!("{}-{}", self.identity, self.session);
        let payload =
            payload::transaction_event(event, &transaction, self.number, self.energy, time, self.bytes);
        self.number += 1;
        Message { action: "TransactionEvent", payload }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ocpp_protocol::{Action, validate_request};

    use super::*;

    const TIME: &str = "2026-11-20T10:30:00.123Z";

    fn script(version: Version) -> Script {
        Script::new(version, "LT-000001", &Traffic::default(), &mut Random::new(1))
    }

    fn check(version: Version, message: &Message) {
        let judge = match version {
            Version::V16 => ocpp_protocol::Version::V16,
            Version::V201 => ocpp_protocol::Version::V201,
            Version::V21 => ocpp_protocol::Version::V21,
        };
        let action = Action::find(message.action).expect("an action of OCPP");
        let payload = serde_json::from_str(&message.payload).expect("JSON");
        validate_request(judge, action, payload)
            .unwrap_or_else(|violation| panic!("{version:?} {}: {violation}", message.payload));
    }

    #[test]
    fn everything_a_station_sends_satisfies_the_schemas() {
        for version in Version::ALL {
            let mut script = script(version);
            check(version, &script.boot());
            for number in 0..script.reports() {
                check(version, &script.report(number, TIME));
            }
            check(version, &Script::large(5000));
            check(version, &script.flood(TIME));
            for _ in 0..60 {
                check(version, &script.next(TIME));
            }
        }
    }

    #[test]
    fn most_of_what_it_sends_is_meter_values() {
        for version in Version::ALL {
            let mut script = script(version);
            let mut sent = BTreeMap::new();
            for _ in 0..1000 {
                *sent.entry(script.next(TIME).action).or_insert(0) += 1;
            }
            let meter = if version == Version::V16 { "MeterValues" } else { "TransactionEvent" };
            assert!((480..680).contains(&sent[meter]), "{sent:?}");
            assert_eq!(sent["Heartbeat"], 200, "{sent:?}");
            assert!(sent["Authorize"] > 40, "{sent:?}");
        }
    }

    #[test]
    fn a_stop_names_the_transaction_that_was_given() {
        let mut script = script(Version::V16);
        let start =
            std::iter::repeat_with(|| script.next(TIME)).find(|sent| sent.action == "StartTransaction");
        assert!(start.is_some());
        script.transaction_is(77);
        let stop = std::iter::repeat_with(|| script.next(TIME)).find(|sent| sent.action == "StopTransaction");
        assert!(stop.unwrap().payload.contains(r#""transactionId":77"#));
    }
}
