//! Commands that cannot be sent, and what is said about them: an action that is none, a payload that is not in order, a station
//! that is away or unknown.
//!
//! Owns the reasons. Which end of a command follows from them is for the dispatcher.

use ocpp_protocol::{Action, Version, validate_request};
use ocpp_station::options::ValidationMode;
use ocpp_station::{Outcome, Status};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::Dispatcher;
use crate::command::Command;
use crate::dispatch::Session;
use crate::nearest::{did_you_mean, nearest};

impl Dispatcher {
    /// The action of a command, if it may be sent by this session and its payload is in order.
    pub(super) fn callable(
        &self,
        command: &Command,
        session: &dyn Session,
    ) -> Result<&'static Action, String> {
        let version = session.subject().version;
        let action = action_of(command, Some(version))?;
        let validation = session.validation();
        if validation.commands == ValidationMode::Off {
            return Ok(action);
        }
        let Err(violation) = validate_request(version, action, &command.payload) else { return Ok(action) };
        self.metrics.violation(action, violation.code().as_str(version));
        let (command, station) = (&*command.id, &command.station);
        tracing::debug!(command, station, action = action.name, %violation, "a command violates its schema");
        if validation.refuses_command(action) { Err(violation.to_string()) } else { Ok(action) }
    }

    /// Tells a station that is away from one that was never heard of, most likely because its identity is misspelled.
    pub(super) fn not_connected(&self, command: &Command) -> Outcome {
        if self.stations.knows(&command.key) {
            return Outcome::failed(Status::Offline, "the station is not connected");
        }
        // A person mistypes. What comes by the thousand is not worth the search.
        let is_single = command.origin.is_none() && command.batch.is_none();
        let nearest = is_single.then(|| self.stations.similar(&command.station)).flatten();
        let meant = did_you_mean(nearest.as_ref());
        let mut outcome =
            Outcome::failed(Status::Offline, format!("no station of this identity is known{meant}"));
        if let Some(error) = &mut outcome.error {
            error.details = unknown_station(nearest);
        }
        outcome
    }
}

/// The action of a command, if stations take it in this version, or in any.
pub(super) fn action_of(command: &Command, version: Option<Version>) -> Result<&'static Action, String> {
    let is_taken = |action: &&'static Action| match version {
        Some(version) => action.csms_may_call(version),
        None => Version::ALL.iter().any(|version| action.csms_may_call(*version)),
    };
    let name = command.action.as_str();
    let found = Action::find(name);
    found.filter(is_taken).ok_or_else(|| {
        let on = version.map_or_else(String::new, |version| format!(" on OCPP {}", version.as_str()));
        // One that exists is spelled as it was meant.
        let meant = match found {
            Some(_) => None,
            None => nearest(name, Action::all().iter().filter(is_taken).map(|action| action.name)),
        };
        format!("{name:?} is not an action that a backend may send{on}{}", did_you_mean(meant))
    })
}

/// The details of an outcome, for programs.
fn unknown_station(nearest: Option<String>) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Details {
        known: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        nearest: Option<String>,
    }
    to_raw_value(&Details { known: false, nearest }).ok()
}
