//! The payloads of a station's messages, in each version.
//!
//! Owns their JSON, which satisfies the official schemas (tests check that). Does not know when they are sent.

use std::fmt::Write;

use super::Version;
use crate::random::Random;

const ID_TAG: &str = "LOADTEST";

/// BootNotification.
pub(super) fn boot(version: Version, identity: &str) -> String {
    match version {
        Version::V16 => format!(
            r#"{{"chargePointVendor":"Loadtest","chargePointModel":"Simulated 22","chargePointSerialNumber":"{identity}","firmwareVersion":"1.0.0"}}"#
        ),
        Version::V201 | Version::V21 => format!(
            r#"{{"reason":"PowerUp","chargingStation":{{"vendorName":"Loadtest","model":"Simulated 22","serialNumber":"{identity}","firmwareVersion":"1.0.0"}}}}"#
        ),
    }
}

/// StatusNotification: occupied, or available.
pub(super) fn status(version: Version, connector: u32, occupied: bool, time: &str) -> String {
    match version {
        Version::V16 => {
            let status = if occupied { "Charging" } else { "Available" };
            format!(
                r#"{{"connectorId":{connector},"errorCode":"NoError","status":"{status}","timestamp":"{time}"}}"#
            )
        }
        Version::V201 | Version::V21 => {
            let status = if occupied { "Occupied" } else { "Available" };
            format!(
                r#"{{"timestamp":"{time}","connectorStatus":"{status}","evseId":{connector},"connectorId":1}}"#
            )
        }
    }
}

/// Authorize.
pub(super) fn authorize(version: Version) -> String {
    match version {
        Version::V16 => format!(r#"{{"idTag":"{ID_TAG}"}}"#),
        Version::V201 | Version::V21 => {
            format!(r#"{{"idToken":{{"idToken":"{ID_TAG}","type":"ISO14443"}}}}"#)
        }
    }
}

/// StartTransaction of 1.6.
pub(super) fn start(connector: u32, energy: u64, time: &str) -> String {
    format!(r#"{{"connectorId":{connector},"idTag":"{ID_TAG}","meterStart":{energy},"timestamp":"{time}"}}"#)
}

/// StopTransaction of 1.6.
pub(super) fn stop(transaction: i64, energy: u64, time: &str) -> String {
    format!(
        r#"{{"transactionId":{transaction},"idTag":"{ID_TAG}","meterStop":{energy},"timestamp":"{time}","reason":"Local"}}"#
    )
}

/// MeterValues of 1.6, about `bytes` long. Without a transaction they are samples of an idle connector.
pub(super) fn meter_values(
    connector: u32,
    transaction: Option<i64>,
    energy: u64,
    time: &str,
    bytes: usize,
) -> String {
    let mut text = format!(r#"{{"connectorId":{connector},"#);
    if let Some(transaction) = transaction {
        // Writing to a String cannot fail.
        let _written = write!(text, r#""transactionId":{transaction},"#);
    }
    text.push_str(r#""meterValue":["#);
    sample(&mut text, Version::V16, energy, time, bytes.saturating_sub(2));
    text.push_str("]}");
    text
}

/// MeterValues of 2.x, about `bytes` long.
pub(super) fn meter_values_2x(evse: u32, energy: u64, time: &str, bytes: usize) -> String {
    let mut text = format!(r#"{{"evseId":{evse},"meterValue":["#);
    sample(&mut text, Version::V201, energy, time, bytes.saturating_sub(2));
    text.push_str("]}");
    text
}

/// What a TransactionEvent of 2.x reports.
#[derive(Clone, Copy)]
pub(super) enum Event {
    Started,
    Updated,
    Ended,
}

/// TransactionEvent of 2.x; an update has samples and is about `bytes` long.
pub(super) fn transaction_event(
    event: Event,
    transaction: &str,
    number: u32,
    energy: u64,
    time: &str,
    bytes: usize,
) -> String {
    let (kind, trigger) = match event {
        Event::Started => ("Started", "Authorized"),
        Event::Updated => ("Updated", "MeterValuePeriodic"),
        Event::Ended => ("Ended", "StopAuthorized"),
    };
    let mut text = format!(
        r#"{{"eventType":"{kind}","timestamp":"{time}","triggerReason":"{trigger}","seqNo":{number},"transactionInfo":{{"transactionId":"{transaction}"}}"#
    );
    if matches!(event, Event::Started) {
        text.push_str(r#","evse":{"id":1,"connectorId":1}"#);
        let _written = write!(text, r#","idToken":{{"idToken":"{ID_TAG}","type":"ISO14443"}}"#);
    }
    text.push_str(r#","meterValue":["#);
    let bytes = if matches!(event, Event::Updated) { bytes.saturating_sub(2) } else { 0 };
    sample(&mut text, Version::V201, energy, time, bytes);
    text.push_str("]}");
    text
}

/// A DataTransfer whose payload is `bytes` long.
pub(super) fn large(bytes: usize) -> String {
    const FRAME: &str = r#"{"vendorId":"Loadtest","data":""}"#;
    // Repetitive, but not so repetitive that compression would make nothing of it.
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Random::new(bytes as u64);
    let mut data = String::with_capacity(bytes);
    let mut left = bytes.saturating_sub(FRAME.len());
    while left > 0 {
        // One random number yields ten characters of six bits each.
        let mut bits = random.next_u64();
        for _ in 0..left.min(10) {
            data.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
        left -= left.min(10);
    }
    format!(r#"{{"vendorId":"Loadtest","data":"{data}"}}"#)
}

/// Appends one meter value with at least one sample, until `text` is about `bytes` long.
fn sample(text: &mut String, version: Version, energy: u64, time: &str, bytes: usize) {
    const PHASES: [&str; 3] = ["L1", "L2", "L3"];
    let _written = write!(text, r#"{{"timestamp":"{time}","sampledValue":["#);
    let mut number = 0;
    loop {
        let before = text.len();
        if number > 0 {
            text.push(',');
        }
        let phase = PHASES[number / 2 % PHASES.len()];
        let (measurand, phase, unit, value) = match number {
            0 => ("Energy.Active.Import.Register", None, "Wh", format!("{energy}.5")),
            n if n % 2 == 1 => ("Current.Import", Some(phase), "A", "16.1".to_owned()),
            _ => ("Voltage", Some(phase), "V", "230.4".to_owned()),
        };
        let phase = phase.map(|phase| format!(r#","phase":"{phase}""#)).unwrap_or_default();
        let _written = if version == Version::V16 {
            write!(
                text,
                r#"{{"value":"{value}","context":"Sample.Periodic","measurand":"{measurand}"{phase},"unit":"{unit}"}}"#
            )
        } else {
            write!(
                text,
                r#"{{"value":{value},"context":"Sample.Periodic","measurand":"{measurand}"{phase},"unitOfMeasure":{{"unit":"{unit}"}}}}"#
            )
        };
        number += 1;
        // Add another sample only if at least half of it fits.
        let length = text.len() - before;
        if text.len() + length / 2 > bytes {
            break;
        }
    }
    text.push_str("]}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-20T10:30:00.123Z";

    #[test]
    fn meter_values_are_as_long_as_wanted() {
        for bytes in [400, 1000, 4000] {
            for text in [
                meter_values(1, Some(217_337_208), 12_345, TIME, bytes),
                meter_values_2x(1, 12_345, TIME, bytes),
                transaction_event(Event::Updated, "LT-000001-1", 3, 12_345, TIME, bytes),
            ] {
                let off = text.len().abs_diff(bytes);
                assert!(off <= 80, "{} bytes instead of {bytes}: {text}", text.len());
            }
        }
    }

    #[test]
    fn a_large_message_has_its_size() {
        for bytes in [100, 60_000, 61_441] {
            assert_eq!(large(bytes).len(), bytes);
        }
    }
}
