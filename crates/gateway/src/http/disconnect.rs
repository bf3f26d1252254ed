//! `POST /api/v1/stations/{id}/disconnect`: an operator ends a station's session.
//!
//! Owns what may be asked and what is answered. How a session ends is `session/ending.rs`; the station is free to come
//! back at once.

use std::sync::Arc;

use axum::extract::{Path, State};
use hyper::StatusCode;
use ocpp_protocol::IdentityKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::{Json, RequestBody};
use super::problem::Problem;
use crate::registry::Registry;

/// The longest reason, in characters.
const LONGEST_REASON: usize = 256;

/// What an operator wants ended.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DisconnectRequest {
    /// For people: it is in the `ocpp.station.disconnected` event and in the log, not in the close frame.
    #[schema(max_length = 256)]
    reason: Option<String>,
    /// Only this session is to end: a station that has come back since is left alone.
    session_id: Option<String>,
}

/// The session that has been asked to end.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct DisconnectAccepted {
    /// The station, in its registered spelling.
    station_id: String,
    /// The session.
    session_id: String,
}

// `null` is as good as nothing.
impl RequestBody for Option<DisconnectRequest> {
    const EXAMPLE: &'static str = r#"{"reason":"stuck since noon"}"#;
}

pub(super) fn operations(registry: Arc<Registry>) -> Vec<Operation> {
    vec![routes!(disconnect_station).with_state(registry)]
}

/// Asks a station's session to end.
///
/// The station is told with close code 1000 and is free to come back. The `ocpp.station.disconnected` event says when it has
/// ended.
#[utoipa::path(post, path = "/api/v1/stations/{id}/disconnect", tag = "stations",
    params(("id" = String, Path, description = "The station's identity, in any case")),
    request_body(content = Option<DisconnectRequest>, description = "May be left out"),
    responses(
        (status = 202, description = "It is asked to end", body = DisconnectAccepted),
        (status = 400, description = "This is not understood"),
        (status = 404, description = "The station is not connected"),
        (status = 409, description = "It is connected by another session"),
    ))]
async fn disconnect_station(
    State(registry): State<Arc<Registry>>,
    Path(id): Path<String>,
    request: Option<Json<Option<DisconnectRequest>>>,
) -> Result<(StatusCode, Json<DisconnectAccepted>), Problem> {
    let request = request.and_then(|Json(request)| request).unwrap_or_default();
    if request.reason.as_ref().is_some_and(|reason| reason.chars().count() > LONGEST_REASON) {
        return Err(Problem::bad_request(format!("reason may have {LONGEST_REASON} characters")));
    }
    let session = registry
        .get(&IdentityKey::of(&id))
        .ok_or_else(|| Problem::not_found(format!("station {id:?} is not connected")))?;
    let session_id = session.id.to_string();
    if request.session_id.is_some_and(|wanted| wanted != session_id) {
        let detail = format!("the station is connected by session {session_id}");
        return Err(Problem::conflict("another session", detail));
    }
    let station_id = session.admission.identity.as_str().to_owned();
    tracing::info!(
        station = station_id,
        session = session_id,
        reason = request.reason,
        "an operator disconnects a station"
    );
    session.end_for_operator(request.reason);
    Ok((StatusCode::ACCEPTED, Json(DisconnectAccepted { station_id, session_id })))
}
