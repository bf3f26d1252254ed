//! What a session does about payloads that violate their schemas: looks for violations, has them counted, and says what refuses
//! a message.
//!
//! Owns when a payload is looked into: only with validation on. What a schema says is the protocol crate's.

use ocpp_protocol::{Action, Findings, Violation, check_request, check_response};
use serde_json::value::RawValue;

use super::Session;
use crate::host::Host;
use crate::observation::Observation;
use crate::options::ValidationMode;

impl<H: Host> Session<H> {
    /// What is wrong with the payload of a CALL or SEND of the station.
    pub(super) fn examine(
        message_type: &'static str,
        action: &'static Action,
        payload: &RawValue,
        host: &mut H,
    ) -> Examined {
        let validation = host.options().validation;
        if validation.mode == ValidationMode::Off {
            return Examined::default();
        }
        let version = host.subject().version;
        let found = check_request(version, action, payload, validation.tolerate);
        // A SEND is never answered (2.1 Part 4, 4.2.4).
        let refuses = validation.refuses(action) && !action.is_send(version);
        Self::examined(message_type, action, found, refuses, host)
    }

    /// What is wrong with the station's answer to a command. Only a version that can say so refuses it.
    pub(super) fn examine_result(action: &'static Action, payload: &RawValue, host: &mut H) -> Examined {
        let validation = host.options().validation;
        if validation.mode == ValidationMode::Off {
            return Examined::default();
        }
        let version = host.subject().version;
        let found = check_response(version, action, payload, validation.tolerate);
        let refuses = validation.refuses(action) && version.has_call_result_error();
        Self::examined("CALLRESULT", action, found, refuses, host)
    }

    fn examined(
        message_type: &'static str,
        action: &'static Action,
        found: Findings,
        refuses: bool,
        host: &mut H,
    ) -> Examined {
        let is_refused = refuses && found.refusal().is_some();
        if !found.is_empty() {
            let action = action.name;
            host.observe(Observation::Violations { message_type, action, found: &found, is_refused });
        }
        let told = found.foremost().map(ToString::to_string);
        Examined { told, refusal: found.into_refusal().filter(|_| is_refused) }
    }
}

/// What was found in a payload.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// What its event says of it.
    pub(super) told: Option<String>,
    /// Why it is refused, if it is.
    pub(super) refusal: Option<Violation>,
}
