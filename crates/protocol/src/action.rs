//! Every OCPP action: who may send it, in which versions it exists, what kind it is, and what marks its messages. One
//! table.
//!
//! Owns names, directions, kinds and marks. Does not read payloads (`shape`, `repetition`) or know what to answer
//! (`answer`).
//! Code that treats some actions specially matches on [`ActionKind`]; it compares no names.
//!
//! Names come from the official JSON schemas (1.6 with the security extension, 2.0.1, 2.1);
//! directions from OCPP 1.6 sections 4 to 6, the 1.6 security white paper section 5 and the
//! message chapter of Part 2. No action changes its direction between versions, so a row needs
//! one direction and a set of versions.

mod table;

use crate::version::Version;
use table::TABLE;

/// Who may send an action.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the station to the CSMS (the central system, in 1.6).
    ToCsms,
    /// From the CSMS to the station: commands.
    ToStation,
    /// Either way: DataTransfer.
    Both,
}

/// What is special about an action: the rules that set a few actions apart from the rest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ActionKind {
    /// BootNotification. Its answer decides whether the station is registered.
    Boot,
    /// Heartbeat. Its answer is the current time.
    Heartbeat,
    /// StartTransaction of 1.6. Its answer must carry a transaction id, which the CSMS chooses; 2.x
    /// stations choose their own.
    StartTransaction,
    /// A remote start or stop of charging. Not allowed while a station is pending, and urgent.
    RemoteControl,
    /// Another command whose result a person or a contract is waiting for, such as Reset.
    Urgent,
    /// TriggerMessage and its extended form: asks the station to send a message.
    Trigger,
    /// GetBaseReport and GetReport: asks the station for a NotifyReport.
    ReportRequest,
    /// No rule of this crate or its users singles it out.
    Other,
}

/// A member of a request that the station gives no other request of this action: what tells a repetition from a new
/// message when message ids do not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mark {
    /// When it happened or was made.
    Time(&'static str),
    /// The same, in the first element of a list.
    TimeIn(&'static str, &'static str),
    /// Its number in a sequence that does not begin anew while the rest stays the same.
    Number(&'static str),
}

/// One action, such as `BootNotification`. There is exactly one value per name, in
/// [`Action::all`].
#[derive(PartialEq, Eq, Hash, Debug)]
pub struct Action {
    /// The name on the wire, which is case-sensitive.
    pub name: &'static str,
    direction: Direction,
    in_version: [bool; 3],
    kind: ActionKind,
    is_send: bool,
    marks: &'static [Mark],
    index: usize,
}

impl Action {
    /// Every action of every version, ordered by name.
    pub fn all() -> &'static [Self] {
        &TABLE
    }

    /// The action with exactly this name, in whichever version.
    pub fn find(name: &str) -> Option<&'static Self> {
        TABLE.binary_search_by(|action| action.name.cmp(name)).ok().and_then(|at| TABLE.get(at))
    }

    /// The position in [`Action::all`], for arrays of counters and for bit sets.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What is special about it, in every version that has it.
    pub fn kind(&self) -> ActionKind {
        self.kind
    }

    /// Its marks: one of them, if it is there, tells a message from every other of the station. Empty for requests that say
    /// the same each time, such as Authorize.
    pub fn marks(&self) -> &'static [Mark] {
        self.marks
    }

    /// Whether a person or a contract is waiting for the result of this command, so that it
    /// overtakes configuration and reports on its way to the station.
    pub fn is_urgent(&self) -> bool {
        matches!(self.kind, ActionKind::RemoteControl | ActionKind::Urgent)
    }

    /// Who may send it in this version; `None` if the version does not have it.
    pub fn direction(&self, version: Version) -> Option<Direction> {
        self.in_version[version.index()].then_some(self.direction)
    }

    /// Whether a station may send it as a CALL.
    pub fn station_may_call(&self, version: Version) -> bool {
        !self.is_send && matches!(self.direction(version), Some(Direction::ToCsms | Direction::Both))
    }

    /// Whether the CSMS may send it as a CALL.
    pub fn csms_may_call(&self, version: Version) -> bool {
        matches!(self.direction(version), Some(Direction::ToStation | Direction::Both))
    }

    /// Whether it is sent as SEND (message type 6, 2.1 only), which is never answered.
    pub fn is_send(&self, version: Version) -> bool {
        self.is_send && self.direction(version).is_some()
    }
}

/// A set of actions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ActionSet(u128);

const _: () = assert!(TABLE.len() <= 128, "an ActionSet has a bit for each action");

impl ActionSet {
    /// No action.
    pub const NONE: Self = Self(0);

    /// Whether it has this action.
    pub fn contains(self, action: &Action) -> bool {
        self.0 & (1 << action.index) != 0
    }
}

impl FromIterator<&'static Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = &'static Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |set, action| set | 1 << action.index))
    }
}

/// Whether a station may send an action, and if not, which error answers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InboundAction {
    /// A station may send this in this version.
    Known(&'static Action),
    /// The version has it, but not from a station, or not in this type of message.
    NotSupported,
    /// The version does not have it. This includes signed messages (`…-Signed`, Part 4 section 7):
    /// a receiver that does not implement signing need not unwrap them.
    NotImplemented,
}

/// Looks up the action of a CALL from a station.
pub fn classify_call(version: Version, name: &str) -> InboundAction {
    classify(version, name, |action| action.station_may_call(version))
}

/// Looks up the action of a SEND from a station. A SEND is never answered, whatever the result.
pub fn classify_send(version: Version, name: &str) -> InboundAction {
    classify(version, name, |action| action.is_send(version))
}

fn classify(version: Version, name: &str, allowed: impl FnOnce(&Action) -> bool) -> InboundAction {
    match Action::find(name) {
        Some(action) if allowed(action) => InboundAction::Known(action),
        Some(action) if action.direction(version).is_some() => InboundAction::NotSupported,
        _ => InboundAction::NotImplemented,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_ordered_and_numbered() {
        assert!(Action::all().windows(2).all(|pair| pair[0].name < pair[1].name));
        for (at, action) in Action::all().iter().enumerate() {
            assert_eq!(action.index(), at);
            assert_eq!(Action::find(action.name), Some(action));
        }
    }

    #[test]
    fn versions_have_their_exact_number_of_actions() {
        let count = |version, send| {
            let of_version = |action: &&Action| action.direction(version).is_some();
            Action::all().iter().filter(of_version).filter(|action| action.is_send(version) == send).count()
        };
        assert_eq!(Version::ALL.map(|version| count(version, false)), [39, 64, 90]);
        assert_eq!(Version::ALL.map(|version| count(version, true)), [0, 0, 1]);
    }

    #[test]
    fn directions_split_as_in_the_specification() {
        let stations = Version::ALL
            .map(|version| Action::all().iter().filter(|action| action.station_may_call(version)).count());
        let csms = Version::ALL
            .map(|version| Action::all().iter().filter(|action| action.csms_may_call(version)).count());
        // DataTransfer counts on both sides: 14 + 26 - 1 = 39, 25 + 40 - 1 = 64, 36 + 55 - 1 = 90.
        assert_eq!(stations, [14, 25, 36]);
        assert_eq!(csms, [26, 40, 55]);
    }

    #[test]
    fn kinds_single_out_these_actions_and_no_others() {
        let of = |kind| {
            let named = Action::all().iter().filter(|action| action.kind() == kind);
            named.map(|action| action.name).collect::<Vec<_>>()
        };
        assert_eq!(of(ActionKind::Boot), ["BootNotification"]);
        assert_eq!(of(ActionKind::Heartbeat), ["Heartbeat"]);
        assert_eq!(of(ActionKind::StartTransaction), ["StartTransaction"]);
        assert_eq!(of(ActionKind::Trigger), ["ExtendedTriggerMessage", "TriggerMessage"]);
        assert_eq!(of(ActionKind::ReportRequest), ["GetBaseReport", "GetReport"]);
        let urgent = Action::all().iter().filter(|action| action.is_urgent());
        assert_eq!(
            urgent.map(|action| action.name).collect::<Vec<_>>(),
            [
                "CancelReservation",
                "RemoteStartTransaction",
                "RemoteStopTransaction",
                "RequestStartTransaction",
                "RequestStopTransaction",
                "ReserveNow",
                "Reset",
                "UnlockConnector",
            ]
        );
    }

    #[test]
    fn kinds_agree_with_versions_and_directions() {
        for action in Action::all() {
            for version in Version::ALL.into_iter().filter(|version| action.direction(*version).is_some()) {
                match action.kind() {
                    ActionKind::Boot | ActionKind::Heartbeat => assert!(action.station_may_call(version)),
                    ActionKind::StartTransaction => assert_eq!(version, Version::V16),
                    ActionKind::Other => {}
                    _ => assert!(action.csms_may_call(version), "{}", action.name),
                }
            }
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let last = Action::all().last().unwrap();
        let set: ActionSet = [last, Action::find("Reset").unwrap()].into_iter().collect();
        let members = Action::all().iter().filter(|action| set.contains(action));
        assert_eq!(members.map(|action| action.name).collect::<Vec<_>>(), ["Reset", last.name]);
    }

    #[test]
    fn calls_are_classified_by_version_and_direction() {
        let known = |version, name| matches!(classify_call(version, name), InboundAction::Known(action) if action.name == name);
        assert!(known(Version::V16, "StartTransaction"));
        assert!(known(Version::V201, "TransactionEvent"));
        assert!(known(Version::V21, "VatNumberValidation"));
        for version in Version::ALL {
            assert!(known(version, "BootNotification") && known(version, "DataTransfer"));
            assert_eq!(classify_call(version, "Reset"), InboundAction::NotSupported);
            for name in ["", "bootnotification", "BootNotificationRequest", "Heartbeat-Signed", "Heartbeat "]
            {
                assert_eq!(classify_call(version, name), InboundAction::NotImplemented, "{name}");
            }
        }
        assert_eq!(classify_call(Version::V201, "StartTransaction"), InboundAction::NotImplemented);
        assert_eq!(classify_call(Version::V16, "TransactionEvent"), InboundAction::NotImplemented);
        assert_eq!(classify_call(Version::V21, "NotifyWebPaymentStarted"), InboundAction::NotSupported);
    }

    #[test]
    fn a_send_is_not_a_call_and_a_call_not_a_send() {
        let stream = "NotifyPeriodicEventStream";
        assert_eq!(classify_call(Version::V21, stream), InboundAction::NotSupported);
        assert_eq!(classify_call(Version::V201, stream), InboundAction::NotImplemented);
        assert!(matches!(classify_send(Version::V21, stream), InboundAction::Known(_)));
        assert_eq!(classify_send(Version::V21, "Heartbeat"), InboundAction::NotSupported);
        assert_eq!(classify_send(Version::V21, "Nonsense"), InboundAction::NotImplemented);
        let action = Action::find(stream).unwrap();
        assert!(!action.station_may_call(Version::V21) && !action.csms_may_call(Version::V21));
    }
}
