//! What the records on the buses and in the journals are. The numbers are stored in logs, so they never change their meaning.

use ocpp_bus::RecordKind;

pub use ocpp_commands::kinds::{COMMAND, COMMAND_BATCH, COMMAND_RESULT};

/// An event about a station or a message.
pub const EVENT: RecordKind = RecordKind(0);
/// A station's state, in the journal of the stations.
pub const STATION_STATE: RecordKind = RecordKind(2);
/// A session's `connected` event, in the journal of the stations.
pub const SESSION_OPENED: RecordKind = RecordKind(5);
/// What else became of sessions, in the journal of the stations.
pub const SESSION_NOTE: RecordKind = RecordKind(6);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_in_logs_that_exist() {
        let kinds =
            [EVENT, COMMAND_RESULT, STATION_STATE, COMMAND, COMMAND_BATCH, SESSION_OPENED, SESSION_NOTE];
        assert_eq!(kinds.map(|kind| kind.0), [0, 1, 2, 3, 4, 5, 6]);
    }
}
