//! Who may send what while a station is registered, pending or rejected.
//!
//! Owns the rules of OCPP 1.6 section 4.2 and 2.x use cases B01 to B03. Does not store the state, and
//! does not decide whether a station is accepted.

use std::borrow::Cow;

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

/// Vendor and model in a BootNotification, as far as they are texts; none if neither is there.
pub fn vendor_and_model(version: Version, boot: &RawValue) -> Option<(String, String)> {
    let [vendor, model] = if version.is_2x() {
        let [station] = literal::fields(boot, ["chargingStation"]);
        let station = serde_json::from_str::<&RawValue>(station?).ok()?;
        literal::fields(station, ["vendorName", "model"])
    } else {
        literal::fields(boot, ["chargePointVendor", "chargePointModel"])
    };
    let text = |json: Option<&str>| json.and_then(literal::decode).map(Cow::into_owned);
    match (text(vendor), text(model)) {
        (None, None) => None,
        (vendor, model) => Some((vendor.unwrap_or_default(), model.unwrap_or_default())),
    }
}

/// Whether the station may send this CALL or SEND now. If not, a CALL is answered with SecurityError
/// (2.x B01.FR.10, B02.FR.09, B03.FR.07; recommended by 1.6-J errata 3.8).
///
/// BootNotification is always allowed, even from a rejected station that did not wait for its
/// interval: the answer repeats the refusal and the interval. A pending station may also send what it
/// was asked for: `take_grant` is asked about that, and about nothing else. An action that stations do
/// not send in this version is never allowed.
pub fn station_may_send(
    version: Version,
    state: BootState,
    action: &Action,
    take_grant: impl FnOnce() -> bool,
) -> bool {
    is_from_station(version, action)
        && match state {
            BootState::Accepted => true,
            BootState::Pending => is_boot(action) || take_grant(),
            BootState::Unregistered | BootState::Rejected => is_boot(action),
        }
}

/// Whether the CSMS may send this CALL now: the version has the action, and the station is accepted,
/// or the action does not start or stop charging and the station is pending (1.6 section 4.2; 2.x
/// B02.FR.01, B02.FR.05) or has not booted: that it is asked to boot, read, configured or reset may be
/// all that helps. A rejected station is sent nothing (B03.FR.03).
pub fn csms_may_send(version: Version, state: BootState, action: &Action) -> bool {
    action.csms_may_call(version)
        && match state {
            BootState::Accepted => true,
            BootState::Pending | BootState::Unregistered => action.kind() != ActionKind::RemoteControl,
            BootState::Rejected => false,
        }
}

/// The `status` in the payload of an answer to BootNotification; `None` if it is missing or
/// misspelled.
pub fn registration_in(answer: &RawValue) -> Option<Registration> {
    Registration::parse(&status_in(answer)?)
}

/// Whether the `status` in the payload of an answer is `Accepted`.
pub fn is_accepted(answer: &RawValue) -> bool {
    status_in(answer).as_deref() == Some("Accepted")
}

fn status_in(answer: &RawValue) -> Option<Cow<'_, str>> {
    let [status] = literal::fields(answer, ["status"]);
    literal::decode(status?)
}

pub(crate) fn is_from_station(version: Version, action: &Action) -> bool {
    matches!(action.direction(version), Some(Direction::ToCsms | Direction::Both))
}

fn is_boot(action: &Action) -> bool {
    action.kind() == ActionKind::Boot
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_says_what_the_station_is() {
        let what = |version, text| vendor_and_model(version, serde_json::from_str(text).unwrap());
        let is = |vendor: &str, model: &str| Some((vendor.to_owned(), model.to_owned()));
        let old = r#"{"chargePointModel":"M\u0021","chargePointVendor":"V"}"#;
        assert_eq!(what(Version::V16, old), is("V", "M!"));
        assert_eq!(what(Version::V21, r#"{"chargingStation":{"model":"M","vendorName":"V"}}"#), is("V", "M"));
        assert_eq!(what(Version::V201, r#"{"chargingStation":{"model":"M","vendorName":7}}"#), is("", "M"));
        for odd in ["{}", "null", r#"{"chargingStation":[]}"#, old] {
            assert_eq!(what(Version::V201, odd), None, "{odd}");
        }
    }

    fn action(name: &str) -> &'static Action {
        Action::find(name).unwrap()
    }

    #[test]
    fn stations_speak_when_accepted_or_asked() {
        for version in Version::ALL {
            let may = |state, name, asked: bool| station_may_send(version, state, action(name), || asked);
            for state in [BootState::Unregistered, BootState::Pending, BootState::Rejected] {
                assert!(may(state, "BootNotification", false));
                assert!(!may(state, "Heartbeat", false) && !may(state, "DataTransfer", false));
            }
            for name in ["Heartbeat", "BootNotification"] {
                assert!(station_may_send(version, BootState::Accepted, action(name), || panic!("not asked")));
            }
            assert!(may(BootState::Pending, "Heartbeat", true));
            assert!(!may(BootState::Rejected, "Heartbeat", true));
            assert!(!may(BootState::Unregistered, "Heartbeat", true));
            assert!(!may(BootState::Accepted, "Reset", true));
        }
    }

    #[test]
    fn the_csms_waits_for_acceptance() {
        let v16 = |state, name| csms_may_send(Version::V16, state, action(name));
        let v21 = |state, name| csms_may_send(Version::V21, state, action(name));
        assert!(v16(BootState::Pending, "ChangeConfiguration") && v21(BootState::Pending, "SetVariables"));
        for state in [BootState::Pending, BootState::Unregistered] {
            for name in ["RemoteStartTransaction", "RemoteStopTransaction"] {
                assert!(!v16(state, name) && v16(BootState::Accepted, name));
            }
            for name in ["RequestStartTransaction", "RequestStopTransaction"] {
                assert!(!v21(state, name) && v21(BootState::Accepted, name));
            }
            for name in ["TriggerMessage", "Reset"] {
                assert!(v16(state, name) && v21(state, name));
                assert!(!v16(BootState::Rejected, name) && !v21(BootState::Rejected, name));
            }
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
