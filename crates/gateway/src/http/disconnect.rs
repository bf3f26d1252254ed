//! `POST /api/v1/stations/{id}/disconnect`: an operator ends a station's session.
//!
//! Owns what may be asked and what is answered. How a session ends is `session/ending.rs`; the station is free to come
//! back at once.

use bytes::Bytes;
use hyper::StatusCode;
use ocpp_protocol::IdentityKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Answer, Problem, json};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 256;

/// What an operator wants ended.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = DisconnectRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Wish {
    /// For people: it is in the `ocpp.station.disconnected` event and in the log, not in the close frame.
    #[schema(max_length = 256)]
    reason: Option<String>,
    /// Only this session is to end: a station that has come back since is left alone.
    session_id: Option<String>,
}

/// The session that has been asked to end.
#[derive(Serialize, ToSchema)]
#[schema(as = DisconnectAccepted)]
#[serde(rename_all = "camelCase")]
pub(super) struct Asked {
    /// The station, in its registered spelling.
    station_id: String,
    /// The session.
    session_id: String,
}

impl Admin {
    /// Asks the session of a station to end. Its `disconnected` event says when it has.
    pub(super) fn disconnect_station(&self, id: &str, body: &Bytes) -> Answer {
        let wish: Option<Wish> = if body.is_empty() {
            None
        } else {
            serde_json::from_slice(body).map_err(|error| Problem::bad_request(error.to_string()))?
        };
        let wish = wish.unwrap_or_default();
        if wish.reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
            return Err(Problem::bad_request(format!("reason may have {LONGEST_REASON} characters")));
        }
        let Some(session) = self.registry.get(&IdentityKey::of(id)) else {
            return Err(Problem::not_found(format!("station {id:?} is not connected")));
        };
        let session_id = session.id.to_string();
        if wish.session_id.is_some_and(|wanted| wanted != session_id) {
            let detail = format!("the station is connected by session {session_id}");
            return Err(Problem::new(StatusCode::CONFLICT, "another session", detail));
        }
        let station_id = session.admission.identity.as_str().to_owned();
        tracing::info!(
            station = station_id,
            session = session_id,
            reason = wish.reason,
            "an operator disconnects a station"
        );
        session.end_for_operator(wish.reason);
        Ok(json(StatusCode::ACCEPTED, &Asked { station_id, session_id }))
    }
}
