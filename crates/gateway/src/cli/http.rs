//! The admin API as its client sees it: paths, time limits, and refusals in the gateway's own words.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::Failure;
use crate::http_client::{Origin, Response};

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest page: a thousand stations, or the largest answer of a station.
const LARGEST_PAGE: usize = 128 << 20;
/// What stands for itself in a path or a query (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The admin API of one gateway.
#[derive(Debug)]
pub(super) struct Api {
    origin: Origin,
}

/// RFC 9457, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Api {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin }
    }

    /// `GET`, whole.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        let response = self.send(request(Method::GET, path, Bytes::new())?, PATIENCE).await?;
        Ok(response.collect(LARGEST_PAGE, PATIENCE).await?)
    }

    /// `POST` with a JSON body; the answer may take as long as `patience`.
    pub(super) async fn post(
        &self,
        path: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = request(Method::POST, path, body.into())?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.send(request, patience).await?;
        let status = response.status;
        Ok((status, response.collect(LARGEST_PAGE, PATIENCE).await?))
    }

    /// `GET` of a stream of events, after the one at a position if there is one.
    pub(super) async fn watch(&self, path: &str, after: Option<u64>) -> Result<Response, Failure> {
        let mut request = request(Method::GET, path, Bytes::new())?;
        if let Some(position) = after {
            request.headers_mut().insert("last-event-id", HeaderValue::from(position));
        }
        self.send(request, PATIENCE).await
    }

    /// Sends a request; an answer that is not of the 2xx is a failure in the gateway's words.
    async fn send(&self, request: Request<Full<Bytes>>, patience: Duration) -> Result<Response, Failure> {
        let response = self.origin.send(request, patience).await?;
        if response.status.is_success() {
            return Ok(response);
        }
        let status = response.status;
        let body = response.collect(LARGEST_PAGE, PATIENCE).await?;
        let detail = match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => problem.detail,
            Err(_) => format!("{} does not answer as a gateway's admin listener does", self.origin),
        };
        Err(Failure::Refused { status, detail })
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body))
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// A text as one segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A path with those parameters that have a value.
pub(super) fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut whole = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            whole.push(separator);
            whole.push_str(name);
            whole.push('=');
            whole.push_str(&encoded(value));
            separator = '&';
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_holds_what_was_given_and_nothing_breaks_out_of_it() {
        let parameters = [("limit", Some("5")), ("version", None), ("prefix", Some("A&b=c/ü"))];
        assert_eq!(with_query("/stations", &parameters), "/stations?limit=5&prefix=A%26b%3Dc%2F%C3%BC");
        assert_eq!(with_query("/stations", &[("after", None)]), "/stations");
    }
}
