//! Who may send what while a station is registered, pending or rejected.
//!
//! Owns the rules of OCPP 1.6 section 4.2 and 2.x use cases B01 to B03. Does not store the state, and
//! does not decide whether a station is accepted.

use serde_json::value::RawValue;

use crate::action::{Action, ActionKind, Direction};
use crate::answer::Registration;
use crate::literal;
use crate::version::Version;

/// How far a station's registration has come. It outlives connections: an accepted station
/// reconnects without booting again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BootState {
    /// No BootNotification of it has been answered.
    Unregistered,
    /// The CSMS may configure it, and it may send what it is asked for.
    Pending,
    /// It must stay silent until it may boot again.
    Rejected,
    /// It is in service.
    Accepted,
}

impl From<Registration> for BootState {
    fn from(registration: Registration) -> Self {
        match registration {
            Registration::Accepted => Self::Accepted,
            Registration::Pending => Self::Pending,
            Registration::Rejected => Self::Rejected,
        }
    }
}

impl BootState {
    /// What the last BootNotification was answered with, if there was one.
    pub fn registration(self) -> Option<Registration> {
        match self {
            Self::Unregistered => None,
            Self::Pending => Some(Registration::Pending),
            Self::Rejected => Some(Registration::Rejected),
            Self::Accepted => Some(Registration::Accepted),
        }
    }
}

/// Whether the station may send this CALL or SEND now. If not, a CALL is answered with SecurityError
/// (2.x B01.FR.10, B02.FR.09, B03.FR.07; recommended by 1.6-J errata 3.8).
///
/// BootNotification is always allowed, even from a rejected station that did not wait for its
/// interval: the answer repeats the refusal and the interval. A pending station may also send what
/// `granted` holds. An action that stations do not send in this version is never allowed.
pub fn station_may_send(version: Version, state: BootState, action: &Action, granted: &Grants) -> bool {
    is_from_station(version, action)
        && match state {
            BootState::Accepted => true,
            BootState::Pending => is_boot(action) || granted.allows(action),
            BootState::Unregistered | BootState::Rejected => is_boot(action),
        }
}

/// Whether the CSMS may send this CALL now: the version has the action, and the station is accepted,
/// or pending and the action does not start or stop charging (1.6 section 4.2; 2.x B02.FR.01,
/// B02.FR.05). A rejected station is sent nothing (B03.FR.03), and neither is one that has not
/// booted, because some stations fail on it.
pub fn csms_may_send(version: Version, state: BootState, action: &Action) -> bool {
    action.csms_may_call(version)
        && match state {
            BootState::Accepted => true,
            BootState::Pending => action.kind() != ActionKind::RemoteControl,
            BootState::Unregistered | BootState::Rejected => false,
        }
}

/// The `status` in the payload of an answer to BootNotification; `None` if it is missing or
/// misspelled.
pub fn registration_in(answer: &RawValue) -> Option<Registration> {
    let [status] = literal::fields(answer, ["status"]);
    Registration::parse(&literal::decode(status?)?)
}

fn is_from_station(version: Version, action: &Action) -> bool {
    matches!(action.direction(version), Some(Direction::ToCsms | Direction::Both))
}

fn is_boot(action: &Action) -> bool {
    action.kind() == ActionKind::Boot
}

/// The actions that a pending station may send because it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Grants(u128);

impl Grants {
    /// Adds what a request to the station asks it to send, if anything.
    ///
    /// In 2.x only TriggerMessage, GetBaseReport and GetReport count (B02.FR.02), in 1.6 only
    /// TriggerMessage and its extended form.
    pub fn record(&mut self, version: Version, action: &Action, payload: &RawValue) {
        match action.kind() {
            ActionKind::ReportRequest => self.grant(version, "NotifyReport"),
            ActionKind::Trigger => {
                let [requested] = literal::fields(payload, ["requestedMessage"]);
                if let Some(requested) = requested.and_then(literal::decode) {
                    self.grant_trigger(version, &requested);
                }
            }
            _ => {}
        }
    }

    /// Whether the station was asked to send this action.
    pub fn allows(&self, action: &Action) -> bool {
        self.0 & bit(action) != 0
    }

    /// Empties the set, for when the station is accepted or rejected.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// `requested` is the name of an action, with few exceptions.
    fn grant_trigger(&mut self, version: Version, requested: &str) {
        // One action carries every kind of request: SignChargePointCertificate in 1.6,
        // SignChargingStationCertificate and several more in 2.x.
        if requested.starts_with("Sign") && requested.ends_with("Certificate") {
            return self.grant(version, "SignCertificate");
        }
        self.grant(version, requested);
        match requested {
            // The extended trigger of 1.6 means the signed kind of update.
            "FirmwareStatusNotification" => self.grant(version, "SignedFirmwareStatusNotification"),
            // 2.x stations may report connector states as events.
            "StatusNotification" => self.grant(version, "NotifyEvent"),
            _ => {}
        }
    }

    fn grant(&mut self, version: Version, name: &str) {
        if let Some(action) = Action::find(name).filter(|action| is_from_station(version, action)) {
            self.0 |= bit(action);
        }
    }
}

/// A test ensures that every action has a bit of its own.
fn bit(action: &Action) -> u128 {
    1_u128.checked_shl(u32::try_from(action.index()).unwrap_or(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(name: &str) -> &'static Action {
        Action::find(name).unwrap()
    }

    fn granted_by(version: Version, request: &str, payload: &str) -> Vec<&'static str> {
        let mut grants = Grants::default();
        grants.record(version, action(request), serde_json::from_str(payload).unwrap());
        Action::all().iter().filter(|action| grants.allows(action)).map(|action| action.name).collect()
    }

    #[test]
    fn every_action_has_its_bit() {
        let mut seen = 0;
        for action in Action::all() {
            assert_eq!(bit(action).count_ones(), 1, "{}", action.name);
            seen |= bit(action);
        }
        assert_eq!(seen.count_ones() as usize, Action::all().len());
    }

    #[test]
    fn stations_speak_when_accepted_or_asked() {
        for version in Version::ALL {
            let nothing = Grants::default();
            let may = |state, name| station_may_send(version, state, action(name), &nothing);
            for state in [BootState::Unregistered, BootState::Pending, BootState::Rejected] {
                assert!(may(state, "BootNotification"));
                assert!(!may(state, "Heartbeat") && !may(state, "DataTransfer"));
            }
            assert!(may(BootState::Accepted, "Heartbeat") && may(BootState::Accepted, "BootNotification"));

            let mut asked = Grants::default();
            let payload = serde_json::from_str(r#"{"requestedMessage":"Heartbeat"}"#).unwrap();
            asked.record(version, action("TriggerMessage"), payload);
            assert!(station_may_send(version, BootState::Pending, action("Heartbeat"), &asked));
            assert!(!station_may_send(version, BootState::Pending, action("MeterValues"), &asked));
            assert!(!station_may_send(version, BootState::Rejected, action("Heartbeat"), &asked));
            assert!(!station_may_send(version, BootState::Unregistered, action("Heartbeat"), &asked));
            assert!(!station_may_send(version, BootState::Accepted, action("Reset"), &asked));
            asked.clear();
            assert!(!station_may_send(version, BootState::Pending, action("Heartbeat"), &asked));
        }
    }

    #[test]
    fn requests_grant_what_they_ask_for() {
        let trigger = |version, message: &str| {
            granted_by(version, "TriggerMessage", &format!(r#"{{"requestedMessage":"{message}"}}"#))
        };
        assert_eq!(trigger(Version::V16, "MeterValues"), ["MeterValues"]);
        assert_eq!(trigger(Version::V16, "StatusNotification"), ["StatusNotification"]);
        assert_eq!(trigger(Version::V21, "StatusNotification"), ["NotifyEvent", "StatusNotification"]);
        assert_eq!(trigger(Version::V201, "SignV2GCertificate"), ["SignCertificate"]);
        assert_eq!(trigger(Version::V201, "TransactionEvent"), ["TransactionEvent"]);
        assert!(trigger(Version::V16, "TransactionEvent").is_empty());
        assert!(trigger(Version::V201, "Reset").is_empty());
        assert!(trigger(Version::V201, "Nonsense").is_empty());
        assert_eq!(
            granted_by(
                Version::V16,
                "ExtendedTriggerMessage",
                r#"{"requestedMessage":"SignChargePointCertificate"}"#
            ),
            ["SignCertificate"]
        );
        assert_eq!(
            granted_by(
                Version::V16,
                "ExtendedTriggerMessage",
                r#"{"requestedMessage":"FirmwareStatusNotification"}"#
            ),
            ["FirmwareStatusNotification", "SignedFirmwareStatusNotification"]
        );
        for request in ["GetReport", "GetBaseReport"] {
            assert_eq!(granted_by(Version::V201, request, "{}"), ["NotifyReport"]);
        }
        for payload in ["{}", "null", "[]", r#"{"requestedMessage":3}"#] {
            assert!(granted_by(Version::V16, "TriggerMessage", payload).is_empty(), "{payload}");
        }
        assert!(granted_by(Version::V201, "SetVariables", "{}").is_empty());
    }

    #[test]
    fn the_csms_waits_for_acceptance() {
        let v16 = |state, name| csms_may_send(Version::V16, state, action(name));
        let v21 = |state, name| csms_may_send(Version::V21, state, action(name));
        assert!(v16(BootState::Pending, "ChangeConfiguration") && v21(BootState::Pending, "SetVariables"));
        for name in ["RemoteStartTransaction", "RemoteStopTransaction"] {
            assert!(!v16(BootState::Pending, name) && v16(BootState::Accepted, name));
        }
        for name in ["RequestStartTransaction", "RequestStopTransaction"] {
            assert!(!v21(BootState::Pending, name) && v21(BootState::Accepted, name));
        }
        for state in [BootState::Unregistered, BootState::Rejected] {
            assert!(!v16(state, "TriggerMessage") && !v21(state, "TriggerMessage"));
        }
        // Not the CSMS's to send, or not in this version.
        assert!(!v16(BootState::Accepted, "Heartbeat") && !v16(BootState::Accepted, "SetVariables"));
    }

    #[test]
    fn an_answer_to_a_boot_says_one_of_three_words() {
        let says = |text: &str| registration_in(serde_json::from_str(text).unwrap());
        assert_eq!(says(r#"{"interval":1,"status":"Pending"}"#), Some(Registration::Pending));
        assert_eq!(says(r#"{"status":"\u0041ccepted"}"#), Some(Registration::Accepted));
        for text in ["{}", "[]", r#"{"status":"accepted"}"#, r#"{"status":null}"#, r#"{"status":1}"#] {
            assert_eq!(says(text), None, "{text}");
        }
    }
}
