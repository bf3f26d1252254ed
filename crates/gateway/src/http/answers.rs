//! `POST /api/v1/stations/{id}/answers`: a backend's answer to a station's CALL.
//!
//! Owns the status of each outcome; the outcome itself is decided in `answers.rs`.

use std::sync::Arc;

use axum::extract::{Path, State};
use hyper::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::{Json, RawBody, empty_body};
use super::problem::Problem;
use crate::backend::{Answers, Delivery, Written};

/// An answer, for those who sent none.
const EXAMPLE: &str = r#"{"messageId":"42","payload":{"idTagInfo":{"status":"Accepted"}}}"#;

/// What became of an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = AnswerTaken)]
struct Taken {
    /// `accepted`: it goes to the station as soon as the CALL's event is durable. `kept`: the station is away, and hears it if
    /// it asks again.
    #[schema(pattern = "^(accepted|kept)$")]
    status: &'static str,
}

pub(super) fn operations(backend: Arc<Answers>) -> Vec<Operation> {
    vec![routes!(answer_call).with_state(backend)]
}

/// Answers a station's CALL that waits for a backend.
///
/// The first answer counts. Which actions wait, and what happens without an answer, says `[answers]` in the configuration.
#[utoipa::path(post, path = "/api/v1/stations/{id}/answers", tag = "answers",
    params(("id" = String, Path, description = "The station's identity, in any case")),
    request_body = Written,
    responses(
        (status = 200, description = "It is the first", body = Taken),
        (status = 400, description = "This is no answer"),
        (status = 404, description = "No such CALL waits for a backend"),
        (status = 409, description = "The CALL has been answered, or the deadline has passed"),
        (status = 422, description = "It does not fit the CALL, which waits on"),
    ))]
async fn answer_call(
    State(backend): State<Arc<Answers>>,
    Path(station): Path<String>,
    RawBody(body): RawBody,
) -> Result<Json<Taken>, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(empty_body(EXAMPLE));
    }
    let delivery =
        backend.take_for(&station, &body).map_err(|error| Problem::bad_request(error.to_string()))?;
    let conflict = |detail: &str| Err(Problem::conflict("the answer is not wanted", detail));
    match delivery {
        Delivery::Accepted | Delivery::Kept => Ok(Json(Taken { status: delivery.as_str() })),
        Delivery::AlreadyAnswered => conflict("the CALL has been answered"),
        Delivery::Late => conflict("the deadline has passed; the fallback was applied"),
        Delivery::Unknown => {
            Err(Problem::not_found("no CALL with this message id of this station waits for a backend"))
        }
        Delivery::Invalid(problem) => {
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the answer does not fit the CALL", problem))
        }
    }
}
