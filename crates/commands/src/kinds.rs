//! What the records of commands on the bus and in the journal are. The numbers are stored in logs, so they never change their
//! meaning; the gateway lists them beside those of other records.

use ocpp_bus::{Record, RecordKind};
use ocpp_station::events::EncodedEvent;

/// The outcome of a command, or of a batch of commands.
pub const COMMAND_RESULT: RecordKind = RecordKind(1);
/// A command's state, in the journal of the commands.
pub const COMMAND: RecordKind = RecordKind(3);
/// One command for many stations, in the journal of the commands.
pub const COMMAND_BATCH: RecordKind = RecordKind(4);

/// A result event as a record for the bus.
pub(crate) fn result_record(event: EncodedEvent) -> Record {
    Record { kind: COMMAND_RESULT, time_ms: event.time_ms, key: event.key, value: event.json.into() }
}
