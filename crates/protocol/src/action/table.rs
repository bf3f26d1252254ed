//! The table of actions, and nothing else.

use super::Action;
use super::ActionKind::{self, Boot, Heartbeat, Other, RemoteControl, ReportRequest, StartTransaction};
use super::ActionKind::{Trigger, Urgent};
use super::Direction::{self, Both, ToCsms, ToStation};
use super::Mark::{self, Number, Time, TimeIn};

/// In every version.
const ALL: [bool; 3] = [true, true, true];
/// In 1.6 only.
const V16: [bool; 3] = [true, false, false];
/// In 2.0.1 and 2.1.
const V2X: [bool; 3] = [false, true, true];
/// In 2.1 only.
const V21: [bool; 3] = [false, false, true];

const fn row(name: &'static str, direction: Direction, in_version: [bool; 3]) -> Action {
    Action { name, direction, in_version, kind: Other, is_send: false, marks: &[], index: 0 }
}

const fn special(
    name: &'static str,
    direction: Direction,
    in_version: [bool; 3],
    kind: ActionKind,
) -> Action {
    Action { kind, ..row(name, direction, in_version) }
}

const fn send(name: &'static str, in_version: [bool; 3]) -> Action {
    Action { is_send: true, ..row(name, ToCsms, in_version) }
}

impl Action {
    const fn marked(self, marks: &'static [Mark]) -> Self {
        Self { marks, ..self }
    }
}

const fn numbered<const N: usize>(mut rows: [Action; N]) -> [Action; N] {
    let mut at = 0;
    while at < N {
        rows[at].index = at;
        at += 1;
    }
    rows
}

/// Ordered by name in byte order, which [`Action::find`] relies on.
pub(super) static TABLE: [Action; 102] = numbered([
    row("AFRRSignal", ToStation, V21),
    row("AdjustPeriodicEventStream", ToStation, V21),
    row("Authorize", ToCsms, ALL),
    row("BatterySwap", ToCsms, V21),
    special("BootNotification", ToCsms, ALL, Boot),
    special("CancelReservation", ToStation, ALL, Urgent),
    row("CertificateSigned", ToStation, ALL),
    row("ChangeAvailability", ToStation, ALL),
    row("ChangeConfiguration", ToStation, V16),
    row("ChangeTransactionTariff", ToStation, V21),
    row("ClearCache", ToStation, ALL),
    row("ClearChargingProfile", ToStation, ALL),
    row("ClearDERControl", ToStation, V21),
    row("ClearDisplayMessage", ToStation, V2X),
    row("ClearTariffs", ToStation, V21),
    row("ClearVariableMonitoring", ToStation, V2X),
    row("ClearedChargingLimit", ToCsms, V2X),
    row("ClosePeriodicEventStream", ToCsms, V21),
    row("CostUpdated", ToStation, V2X),
    row("CustomerInformation", ToStation, V2X),
    row("DataTransfer", Both, ALL),
    row("DeleteCertificate", ToStation, ALL),
    row("DiagnosticsStatusNotification", ToCsms, V16),
    special("ExtendedTriggerMessage", ToStation, V16, Trigger),
    row("FirmwareStatusNotification", ToCsms, ALL),
    row("Get15118EVCertificate", ToCsms, V2X),
    special("GetBaseReport", ToStation, V2X, ReportRequest),
    row("GetCertificateChainStatus", ToCsms, V21),
    row("GetCertificateStatus", ToCsms, V2X),
    row("GetChargingProfiles", ToStation, V2X),
    row("GetCompositeSchedule", ToStation, ALL),
    row("GetConfiguration", ToStation, V16),
    row("GetDERControl", ToStation, V21),
    row("GetDiagnostics", ToStation, V16),
    row("GetDisplayMessages", ToStation, V2X),
    row("GetInstalledCertificateIds", ToStation, ALL),
    row("GetLocalListVersion", ToStation, ALL),
    row("GetLog", ToStation, ALL),
    row("GetMonitoringReport", ToStation, V2X),
    row("GetPeriodicEventStream", ToStation, V21),
    special("GetReport", ToStation, V2X, ReportRequest),
    row("GetTariffs", ToStation, V21),
    row("GetTransactionStatus", ToStation, V2X),
    row("GetVariables", ToStation, V2X),
    special("Heartbeat", ToCsms, ALL, Heartbeat),
    row("InstallCertificate", ToStation, ALL),
    row("LogStatusNotification", ToCsms, ALL),
    row("MeterValues", ToCsms, ALL).marked(&[TimeIn("meterValue", "timestamp")]),
    row("NotifyAllowedEnergyTransfer", ToStation, V21),
    row("NotifyChargingLimit", ToCsms, V2X),
    row("NotifyCustomerInformation", ToCsms, V2X).marked(&[Time("generatedAt")]),
    row("NotifyDERAlarm", ToCsms, V21).marked(&[Time("timestamp")]),
    row("NotifyDERStartStop", ToCsms, V21).marked(&[Time("timestamp")]),
    row("NotifyDisplayMessages", ToCsms, V2X),
    row("NotifyEVChargingNeeds", ToCsms, V2X).marked(&[Time("timestamp")]),
    row("NotifyEVChargingSchedule", ToCsms, V2X),
    row("NotifyEvent", ToCsms, V2X).marked(&[Time("generatedAt")]),
    row("NotifyMonitoringReport", ToCsms, V2X).marked(&[Time("generatedAt")]),
    send("NotifyPeriodicEventStream", V21),
    row("NotifyPriorityCharging", ToCsms, V21),
    row("NotifyReport", ToCsms, V2X).marked(&[Time("generatedAt")]),
    row("NotifySettlement", ToCsms, V21).marked(&[Time("settlementTime")]),
    row("NotifyWebPaymentStarted", ToStation, V21),
    row("OpenPeriodicEventStream", ToCsms, V21),
    row("PublishFirmware", ToStation, V2X),
    row("PublishFirmwareStatusNotification", ToCsms, V2X),
    row("PullDynamicScheduleUpdate", ToCsms, V21),
    special("RemoteStartTransaction", ToStation, V16, RemoteControl),
    special("RemoteStopTransaction", ToStation, V16, RemoteControl),
    row("ReportChargingProfiles", ToCsms, V2X),
    row("ReportDERControl", ToCsms, V21),
    row("RequestBatterySwap", ToStation, V21),
    special("RequestStartTransaction", ToStation, V2X, RemoteControl),
    special("RequestStopTransaction", ToStation, V2X, RemoteControl),
    row("ReservationStatusUpdate", ToCsms, V2X),
    special("ReserveNow", ToStation, ALL, Urgent),
    special("Reset", ToStation, ALL, Urgent),
    row("SecurityEventNotification", ToCsms, ALL).marked(&[Time("timestamp")]),
    row("SendLocalList", ToStation, ALL),
    row("SetChargingProfile", ToStation, ALL),
    row("SetDERControl", ToStation, V21),
    row("SetDefaultTariff", ToStation, V21),
    row("SetDisplayMessage", ToStation, V2X),
    row("SetMonitoringBase", ToStation, V2X),
    row("SetMonitoringLevel", ToStation, V2X),
    row("SetNetworkProfile", ToStation, V2X),
    row("SetVariableMonitoring", ToStation, V2X),
    row("SetVariables", ToStation, V2X),
    row("SignCertificate", ToCsms, ALL),
    row("SignedFirmwareStatusNotification", ToCsms, V16),
    row("SignedUpdateFirmware", ToStation, V16),
    special("StartTransaction", ToCsms, V16, StartTransaction).marked(&[Time("timestamp")]),
    row("StatusNotification", ToCsms, ALL).marked(&[Time("timestamp")]),
    row("StopTransaction", ToCsms, V16).marked(&[Time("timestamp")]),
    row("TransactionEvent", ToCsms, V2X).marked(&[Time("timestamp"), Number("seqNo")]),
    special("TriggerMessage", ToStation, ALL, Trigger),
    special("UnlockConnector", ToStation, ALL, Urgent),
    row("UnpublishFirmware", ToStation, V2X),
    row("UpdateDynamicSchedule", ToStation, V21),
    row("UpdateFirmware", ToStation, ALL),
    row("UsePriorityCharging", ToStation, V21),
    row("VatNumberValidation", ToCsms, V21),
]);
