//! What the records on the buses and in the journals are. The numbers are stored in logs, so they never change their meaning.

use ocpp_bus::RecordKind;

/// An event about a station or a message.
pub const EVENT: RecordKind = RecordKind(0);
/// The outcome of a command, or of a batch of commands.
pub const COMMAND_RESULT: RecordKind = RecordKind(1);
/// A station's state, in the journal of the stations.
pub const STATION_STATE: RecordKind = RecordKind(2);
/// A command's state, in the journal of the commands.
pub const COMMAND: RecordKind = RecordKind(3);
/// One command for many stations, in the journal of the commands.
pub const COMMAND_BATCH: RecordKind = RecordKind(4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_in_logs_that_exist() {
        let numbers = [EVENT, COMMAND_RESULT, STATION_STATE, COMMAND, COMMAND_BATCH].map(|kind| kind.0);
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }
}
