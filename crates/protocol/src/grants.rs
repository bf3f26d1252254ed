//! What a pending station may send because it was asked to (1.6 section 4.2; 2.x B02.FR.02).
//!
//! Owns which request asks for what, and when that has been sent. Does not know who is pending.

use serde_json::value::RawValue;

use crate::action::{Action, ActionKind};
use crate::boot::is_from_station;
use crate::literal;
use crate::version::Version;

/// Requests whose messages are still due. Of more, the oldest is forgotten: a station is asked for one thing at a time.
const MOST_GRANTS: usize = 16;

/// Connectors that may each send one message for one request.
const MOST_PLACES: usize = 256;

/// What a station was asked to send and has not sent yet.
///
/// One request grants one message. If it names no connector, each connector may send one. A message that says that more follow
/// (`tbc`) uses nothing up.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Grants(Vec<Grant>);

/// What one request asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Grant {
    /// The actions that carry it.
    actions: u128,
    /// The connectors that have sent it; none if it is for one message.
    places: Option<Vec<String>>,
}

impl Grants {
    /// Adds what a request to the station asks it to send, if anything.
    ///
    /// In 2.x only TriggerMessage, GetBaseReport and GetReport count (B02.FR.02), in 1.6 only
    /// TriggerMessage and its extended form.
    pub fn record(&mut self, version: Version, action: &Action, payload: &RawValue) {
        let (actions, names_place) = match action.kind() {
            ActionKind::ReportRequest => (bit_of(version, "NotifyReport"), true),
            ActionKind::Trigger => {
                let [requested, connector, evse] =
                    literal::fields(payload, ["requestedMessage", "connectorId", "evse"]);
                let requested = requested.and_then(literal::decode).unwrap_or_default();
                (requested_actions(version, &requested), connector.or(evse).is_some())
            }
            _ => return,
        };
        if actions == 0 {
            return;
        }
        if self.0.len() == MOST_GRANTS {
            self.0.remove(0);
        }
        self.0.push(Grant { actions, places: (!names_place).then(Vec::new) });
    }

    /// Whether the station was asked for this message and has not sent it yet. It now has.
    pub fn take(&mut self, action: &Action, payload: &RawValue) -> bool {
        let [more, connector, evse_id, evse] =
            literal::fields(payload, ["tbc", "connectorId", "evseId", "evse"]);
        let place = [connector, evse_id, evse].map(Option::unwrap_or_default).join("/");
        let is_open = |grant: &Grant| {
            let places = grant.places.as_ref();
            grant.actions & bit(action) != 0
                && places.is_none_or(|sent| sent.len() < MOST_PLACES && !sent.contains(&place))
        };
        let Some(at) = self.0.iter().position(is_open) else { return false };
        if more != Some("true") {
            match self.0.get_mut(at).and_then(|grant| grant.places.as_mut()) {
                Some(sent) => sent.push(place),
                None => drop(self.0.remove(at)),
            }
        }
        true
    }

    /// Empties the set, for when the station is accepted or rejected.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The actions that carry what TriggerMessage requests: the action of that name, with few exceptions.
fn requested_actions(version: Version, requested: &str) -> u128 {
    // One action carries every kind of request: SignChargePointCertificate in 1.6,
    // SignChargingStationCertificate and several more in 2.x.
    if requested.starts_with("Sign") && requested.ends_with("Certificate") {
        return bit_of(version, "SignCertificate");
    }
    bit_of(version, requested)
        | match requested {
            // The extended trigger of 1.6 means the signed kind of update.
            "FirmwareStatusNotification" => bit_of(version, "SignedFirmwareStatusNotification"),
            // 2.x stations may report connector states as events.
            "StatusNotification" => bit_of(version, "NotifyEvent"),
            _ => 0,
        }
}

/// The bit of an action that stations send in this version; none of any other.
fn bit_of(version: Version, name: &str) -> u128 {
    Action::find(name).filter(|action| is_from_station(version, action)).map_or(0, bit)
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

    fn json(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn asked(version: Version, request: &str, payload: &str) -> Grants {
        let mut grants = Grants::default();
        grants.record(version, action(request), json(payload));
        grants
    }

    fn granted_by(version: Version, request: &str, payload: &str) -> Vec<&'static str> {
        let grants = asked(version, request, payload);
        let is_granted = |action: &&Action| grants.clone().take(action, json("{}"));
        Action::all().iter().filter(is_granted).map(|action| action.name).collect()
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
    fn a_request_grants_one_message_and_a_second_request_another() {
        let heartbeat = r#"{"requestedMessage":"Heartbeat"}"#;
        for version in Version::ALL {
            let mut grants = asked(version, "TriggerMessage", heartbeat);
            let may = |grants: &mut Grants| grants.take(action("Heartbeat"), json("{}"));
            assert!(may(&mut grants) && !may(&mut grants));
            for _ in 0..2 {
                grants.record(version, action("TriggerMessage"), json(heartbeat));
            }
            assert!(may(&mut grants) && may(&mut grants) && !may(&mut grants));
        }
    }

    #[test]
    fn without_a_connector_each_may_send_one() {
        let status = |connector| format!(r#"{{"connectorId":{connector},"status":"Available"}}"#);
        let mut grants =
            asked(Version::V16, "TriggerMessage", r#"{"requestedMessage":"StatusNotification"}"#);
        let mut may = |connector| grants.take(action("StatusNotification"), json(&status(connector)));
        assert!(may(0) && may(1) && may(2));
        assert!(!may(1) && !may(0));

        let one = r#"{"requestedMessage":"StatusNotification","connectorId":1}"#;
        let mut grants = asked(Version::V16, "TriggerMessage", one);
        let mut may = |connector| grants.take(action("StatusNotification"), json(&status(connector)));
        assert!(may(1) && !may(1) && !may(2));

        let one = r#"{"requestedMessage":"MeterValues","evse":{"id":1}}"#;
        let mut grants = asked(Version::V201, "TriggerMessage", one);
        let mut may = |evse| grants.take(action("MeterValues"), json(evse));
        assert!(may(r#"{"evseId":1}"#) && !may(r#"{"evseId":2}"#));
    }

    #[test]
    fn a_report_may_come_in_parts() {
        let mut grants =
            asked(Version::V201, "GetBaseReport", r#"{"requestId":1,"reportBase":"FullInventory"}"#);
        let mut may = |part| grants.take(action("NotifyReport"), json(part));
        assert!(may(r#"{"seqNo":0,"tbc":true}"#) && may(r#"{"seqNo":1,"tbc":true}"#));
        assert!(may(r#"{"seqNo":2,"tbc":false}"#) && !may(r#"{"seqNo":2}"#));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut grants = Grants::default();
        for _ in 0..100 {
            grants.record(
                Version::V16,
                action("TriggerMessage"),
                json(r#"{"requestedMessage":"Heartbeat"}"#),
            );
        }
        let taken = (0..100).filter(|_| grants.take(action("Heartbeat"), json("{}"))).count();
        assert_eq!(taken, MOST_GRANTS);
        grants.record(Version::V16, action("TriggerMessage"), json(r#"{"requestedMessage":"MeterValues"}"#));
        let meter = |connector: u32| format!(r#"{{"connectorId":{connector}}}"#);
        let taken = (0..1000).filter(|at| grants.take(action("MeterValues"), json(&meter(*at)))).count();
        assert_eq!(taken, MOST_PLACES);
    }
}
