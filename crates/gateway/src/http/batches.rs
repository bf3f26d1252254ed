//! Batches over HTTP: one command for many stations.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use uuid::Uuid;

use super::commands::{problem, traceparent};
use super::{Admin, Answer, Problem, body_of, json};
use crate::command::batch::Refused;
use crate::command::request::BatchRequest;

impl Admin {
    /// Takes a batch in. 202 as soon as that is durable.
    pub(super) async fn send_batch(&self, request: Request<Incoming>) -> Answer {
        let header = traceparent(request.headers());
        let body = body_of(request).await?;
        let mut stated: BatchRequest =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        stated.traceparent = stated.traceparent.or(header);
        let id = || Uuid::now_v7().to_string();
        let router = &self.router;
        let plan = router.limits.plan(stated, id, |to| router.addressed(to)).map_err(problem)?;
        let plan = Arc::new(plan);
        match router.begin_batch(Arc::clone(&plan)).await {
            // One that is known is not sent again.
            Ok(()) | Err(Refused::Known) => {}
            Err(Refused::Busy) => {
                let detail = "commands.max_batches is reached";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many batches", detail));
            }
        }
        let mut response = json(StatusCode::ACCEPTED, &router.book.batches.summary(&plan.id));
        let place = format!("/api/v1/batches/{}", utf8_percent_encode(&plan.id, NON_ALPHANUMERIC));
        if let Ok(place) = HeaderValue::from_str(&place) {
            response.headers_mut().insert(header::LOCATION, place);
        }
        Ok(response)
    }

    /// How a batch is going.
    pub(super) fn show_batch(&self, id: &str) -> Answer {
        match self.router.book.batches.summary(id) {
            Some(summary) => Ok(json(StatusCode::OK, &summary)),
            None => Err(Problem::not_found(format!("no batch {id:?} is known"))),
        }
    }

    /// Calls a batch back.
    pub(super) async fn call_batch_back(&self, id: &str) -> Answer {
        if let Some(summary) = self.router.call_batch_back(id).await {
            return Ok(json(StatusCode::ACCEPTED, &summary));
        }
        Err(match self.router.book.batches.summary(id) {
            Some(_) => Problem::new(StatusCode::CONFLICT, "too late", "the batch has ended"),
            None => Problem::not_found(format!("no batch {id:?} is known")),
        })
    }
}
