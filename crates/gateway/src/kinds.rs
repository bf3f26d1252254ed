//! What the records on the buses and in the journals are. The numbers are stored in logs, so they never change their meaning.

use ocpp_bus::RecordKind;

pub use ocpp_commands::kinds::{COMMAND, COMMAND_BATCH, COMMAND_RESULT};

/// An event about a station or a message.
pub const EVENT: RecordKind = RecordKind(0);
/// A station's state, in the journal of the stations.
pub const STATION_STATE: RecordKind = RecordKind(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_in_logs_that_exist() {
        let numbers = [EVENT, COMMAND_RESULT, STATION_STATE, COMMAND, COMMAND_BATCH].map(|kind| kind.0);
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }
}
