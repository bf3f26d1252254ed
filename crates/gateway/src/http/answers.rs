//! `POST /api/v1/stations/{id}/answers`: a backend's answer to a station's CALL. Thin: what became of it is decided in
//! `answers.rs`, and mapped to a status code here.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Admin, Answer, Problem, body_of, json};
use crate::answers::Delivery;

/// What became of an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = AnswerTaken)]
pub(super) struct Taken {
    /// `accepted`: it goes to the station as soon as the CALL's event is durable. `kept`: the station is away, and hears it if
    /// it asks again.
    #[schema(pattern = "^(accepted|kept)$")]
    status: &'static str,
}

impl Admin {
    pub(super) async fn take_answer(&self, station: &str, request: Request<Incoming>) -> Answer {
        let body = body_of(request).await?;
        let delivery = self
            .shared
            .backend
            .take_for(station, &body)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        let conflict = |detail| Err(Problem::new(StatusCode::CONFLICT, "the answer is not wanted", detail));
        match delivery {
            Delivery::Accepted | Delivery::Kept => {
                Ok(json(StatusCode::OK, &Taken { status: delivery.as_str() }))
            }
            Delivery::AlreadyAnswered => conflict("the CALL has been answered"),
            Delivery::Late => conflict("the deadline has passed; the fallback was applied"),
            Delivery::Unknown => {
                Err(Problem::not_found("no CALL with this message id of this station waits for a backend"))
            }
            Delivery::Invalid(problem) => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "the answer does not fit the CALL",
                problem,
            )),
        }
    }
}
