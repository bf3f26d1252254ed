//! What handlers take from a request: its query and its body, checked; and what they answer with as JSON.
//!
//! Owns the limits of a body and the refusals that any request may meet. Everything that is refused here is a [`Problem`], and
//! nothing is read that is not bounded.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::problem::Problem;

/// The largest request body: room for a command with the largest payload that a station would take.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a client may take to send its request's body.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// What a path segment spells out; everything else is percent-encoded (RFC 3986 section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Writes the path in the one way that routes are matched with: `/%6Civez` is `/livez` (RFC 3986 section 6.2.2.2).
///
/// The router takes an empty segment for a parameter; nothing is there.
pub(super) async fn normalize_path(mut request: Request) -> Result<Request, Problem> {
    let path = request.uri().path();
    if path.contains("//") {
        return Err(nothing_at(path));
    }
    if !path.contains('%') {
        return Ok(request);
    }
    let path = normal_segments(path)?;
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let wrong = |error: hyper::http::Error| Problem::bad_request(error.to_string());
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path + &query).map_err(|error| wrong(error.into()))?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| wrong(error.into()))?;
    Ok(request)
}

/// Decodes every segment and encodes it again.
fn normal_segments(path: &str) -> Result<String, Problem> {
    let segments = path.split('/').map(|segment| {
        let segment = percent_decode_str(segment)
            .decode_utf8()
            .map_err(|_| Problem::bad_request("the path is not UTF-8"))?;
        Ok(utf8_percent_encode(&segment, RESERVED).to_string())
    });
    segments.collect::<Result<Vec<_>, _>>().map(|segments| segments.join("/"))
}

/// The refusal of a path that no operation has.
pub(super) fn nothing_at(path: &str) -> Problem {
    Problem::not_found(format!("nothing is at {path}"))
}

/// A request's query. A parameter that `T` does not document is refused: a misspelt filter would show everything.
///
/// Operations without parameters take no `Query` and ignore what is there: probes and scrapers add their own.
pub(super) struct Query<T>(pub(super) T);

/// The query parameters of an operation; their documentation says which there are.
pub(super) trait FromQuery: IntoParams + Sized {
    /// Reads them.
    fn from_query(values: Values) -> Result<Self, Problem>;
}

/// The values of query parameters by name.
pub(super) struct Values(BTreeMap<String, String>);

impl Values {
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Problem> {
        match self.0.remove(name).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(Problem::bad_request(format!("{name} must be true or false"))),
        }
    }

    pub(super) fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, Problem> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| range.contains(number));
        let (least, most) = (range.start(), range.end());
        number.map(Some).ok_or_else(|| Problem::bad_request(format!("{name} must be {least} to {most}")))
    }

    /// Decodes a query. Of a parameter that is given twice the last value counts.
    fn parse(query: &str) -> Result<Self, Problem> {
        let decode = |part: &str| {
            let decoded =
                percent_decode_str(&part.replace('+', " ")).decode_utf8().map(|text| text.into_owned());
            decoded.map_err(|_| Problem::bad_request("the query is not UTF-8"))
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }
}

impl<S: Sync, T: FromQuery> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let values = Values::parse(parts.uri.query().unwrap_or_default())?;
        let known: Vec<String> =
            T::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
        match values.0.keys().find(|name| !known.contains(name)) {
            Some(name) => Err(Problem::bad_request(format!(
                "unknown parameter {name:?}; known are {}",
                known.join(", ")
            ))),
            None => T::from_query(values).map(Self),
        }
    }
}

/// A request's body as it came: at most [`MAX_BODY_BYTES`], within [`BODY_TIMEOUT`].
pub(super) struct RawBody(pub(super) Bytes);

impl<S: Sync> FromRequest<S> for RawBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => Ok(Self(body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large",
                format!("at most {MAX_BODY_BYTES} bytes"),
            )),
            Ok(Err(error)) => Err(Problem::bad_request(error.to_string())),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come",
                format!("within {BODY_TIMEOUT:?}"),
            )),
        }
    }
}

/// What the body of a request may be read as.
pub(super) trait RequestBody: DeserializeOwned {
    /// A whole body, for those who sent none.
    const EXAMPLE: &'static str;
}

/// The refusal of an empty body.
pub(super) fn empty_body(example: &str) -> Problem {
    Problem::bad_request(format!("the body is empty; it must be a JSON object like {example}"))
}

/// JSON, in a request (whatever its Content-Type) and in a response. `Option<Json<T>>` also takes an empty body.
pub(super) struct Json<T>(pub(super) T);

impl<S: Sync, T: RequestBody> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let RawBody(body) = RawBody::from_request(request, state).await?;
        from_json(&body)
    }
}

impl<S: Sync, T: RequestBody> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let RawBody(body) = RawBody::from_request(request, state).await?;
        if body.is_empty() { Ok(None) } else { from_json(&body).map(Some) }
    }
}

fn from_json<T: RequestBody>(body: &[u8]) -> Result<Json<T>, Problem> {
    if body.trim_ascii().is_empty() {
        return Err(empty_body(T::EXAMPLE));
    }
    serde_json::from_slice(body).map(Json).map_err(|error| Problem::bad_request(error.to_string()))
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(CONTENT_TYPE, "application/json")], Body::from(body)).into_response(),
            Err(error) => Problem::internal("not serializable", error.to_string()).into_response(),
        }
    }
}
