//! Requests without a socket: what all operations have in common, shown on four that exist only here; and those of stations.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt;
use hyper::{HeaderMap, Request, StatusCode};
use ocpp_bus::metrics::BusMetrics;
use ocpp_bus::queue::QueueLimits;
use ocpp_bus::{Journal, Registrar};
use ocpp_protocol::Identity;
use prometheus::IntGauge;
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa_axum::routes;

use super::disconnect;
use super::document::about_itself;
use super::extract::{BODY_TIMEOUT, FromQuery, Json, MAX_BODY_BYTES, Query, RequestBody, Values};
use super::interface::router;
use super::problem::Problem;
use super::stations::Directory;
use crate::command_options::CommandOptions;
use crate::registry::Registry;
use crate::stations::Stations;
use crate::twins::{TwinOptions, Twins};
use ocpp_commands::CommandStore;

#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "what is read of it is its names")]
struct Sample {
    count: Option<usize>,
    flag: Option<bool>,
    text: Option<String>,
}

impl FromQuery for Sample {
    fn from_query(mut values: Values) -> Result<Self, Problem> {
        Ok(Self {
            count: values.number("count", 1..=9)?,
            flag: values.flag("flag")?,
            text: values.text("text"),
        })
    }
}

/// Shows a thing.
#[utoipa::path(get, path = "/things/{name}", params(("name" = String, Path), Sample), responses((status = 200)))]
async fn show(Path(name): Path<String>, Query(it): Query<Sample>) -> Json<Value> {
    Json(json!([name, it.count, it.flag, it.text]))
}

/// Changes a thing.
#[utoipa::path(put, path = "/things/{name}", params(("name" = String, Path)), responses((status = 200)))]
async fn change(Path(name): Path<String>, Json(value): Json<u32>) -> Json<Value> {
    Json(json!([name, value]))
}

/// Takes a number or nothing.
#[utoipa::path(post, path = "/number", responses((status = 200)))]
async fn number(body: Option<Json<u32>>) -> Json<Option<u32>> {
    Json(body.map(|Json(number)| number))
}

/// Takes nothing.
#[utoipa::path(get, path = "/plain", responses((status = 200)))]
async fn plain() -> &'static str {
    "plain"
}

impl RequestBody for u32 {
    const EXAMPLE: &'static str = "7";
}

fn sample() -> Router {
    let operations = [routes!(show), routes!(change), routes!(number), routes!(plain)];
    router(operations.into_iter().chain(about_itself()))
}

async fn ask(api: &Router, method: &str, uri: &str, body: impl Into<Body>) -> (StatusCode, HeaderMap, Bytes) {
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    let (parts, body) = api.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[tokio::test]
async fn a_request_is_taken_apart() {
    for (method, uri, body, expected) in [
        ("GET", "/things/a", "", json!(["a", null, null, null])),
        ("GET", "/things/a%2Fb%20c%E2%82%AC", "", json!(["a/b c€", null, null, null])),
        ("GET", "/th%69ngs/%61?count=9", "", json!(["a", 9, null, null])),
        ("GET", "/things/a?&count=1&&flag=true&text=x+y%20z%26&", "", json!(["a", 1, true, "x y z&"])),
        ("GET", "/things/a?count=0&count=2&flag=false&text", "", json!(["a", 2, false, ""])),
        ("PUT", "/things/a?any=thing", "7", json!(["a", 7])),
        ("POST", "/number", "7", json!(7)),
        ("POST", "/number", "", json!(null)),
    ] {
        let (status, headers, body) = ask(&sample(), method, uri, body).await;
        assert_eq!((status, parsed(&body)), (StatusCode::OK, expected), "{method} {uri}");
        assert_eq!(
            (&headers["content-type"], &headers["cache-control"]),
            (&"application/json".parse().unwrap(), &"no-store".parse().unwrap())
        );
    }
    let (status, headers, body) = ask(&sample(), "GET", "/plain?%ff&any", "").await;
    assert_eq!((status, body.as_ref()), (StatusCode::OK, b"plain".as_ref()));
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let large = "1".repeat(MAX_BODY_BYTES + 1);
    for (method, uri, body, status, detail) in [
        ("GET", "/th%69ng", "", 404, "nothing is at /th%69ng"),
        ("GET", "/plain/", "", 404, "nothing is at /plain/"),
        ("GET", "/things/", "", 404, "nothing is at /things/"),
        ("GET", "//things//a", "", 404, "nothing is at //things//a"),
        ("HEAD", "/nothing", "", 404, "nothing is at /nothing"),
        ("GET", "/%ff", "", 400, "the path is not UTF-8"),
        ("GET", "/things/%ff", "", 400, "the path is not UTF-8"),
        ("DELETE", "/things/%61", "", 405, "DELETE is not offered for /things/%61"),
        ("HEAD", "/plain", "", 405, "HEAD is not offered for /plain"),
        ("OPTIONS", "/plain", "", 405, "OPTIONS is not offered for /plain"),
        ("GET", "/number", "", 405, "GET is not offered for /number"),
        ("GET", "/things/a?text=%ff", "", 400, "the query is not UTF-8"),
        ("GET", "/things/a?conut=1", "", 400, r#"unknown parameter "conut"; known are count, flag, text"#),
        ("GET", "/things/a?count=0", "", 400, "count must be 1 to 9"),
        ("GET", "/things/a?count=", "", 400, "count must be 1 to 9"),
        ("GET", "/things/a?count=ten", "", 400, "count must be 1 to 9"),
        ("GET", "/things/a?flag=yes", "", 400, "flag must be true or false"),
        ("PUT", "/things/a", "", 400, "the body is empty; it must be a JSON object like 7"),
        ("PUT", "/things/a", " \n", 400, "the body is empty; it must be a JSON object like 7"),
        ("PUT", "/things/a", "{", 400, "invalid type: map, expected u32 at line 1 column 0"),
        ("PUT", "/things/a", "-1", 400, "invalid value: integer `-1`, expected u32 at line 1 column 2"),
        ("PUT", "/things/a", &large, 413, "at most 1048576 bytes"),
        ("POST", "/number", "x", 400, "expected value at line 1 column 1"),
    ] {
        let (found, headers, body) = ask(&sample(), method, uri, body.to_owned()).await;
        assert_eq!(found.as_u16(), status, "{method} {uri}");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["cache-control"], "no-store");
        let offered = if uri.contains("number") {
            "POST"
        } else if uri.contains("things") {
            "GET, PUT"
        } else {
            "GET"
        };
        assert_eq!(
            headers.get("allow").map(|allow| allow.to_str().unwrap()),
            (status == 405).then_some(offered)
        );
        // What a HEAD request gets has no body.
        if method != "HEAD" {
            let problem = parsed(&body);
            assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)));
            assert_eq!(problem["detail"], detail, "{method} {uri}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let began = tokio::time::Instant::now();
    let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let (status, _, body) = ask(&sample(), "POST", "/number", silent).await;
    assert_eq!((status, &parsed(&body)["detail"]), (StatusCode::REQUEST_TIMEOUT, &json!("within 30s")));
    assert_eq!(began.elapsed(), BODY_TIMEOUT);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let pieces = [Ok(Bytes::from_static(b"1")), Err(std::io::Error::other("broken off"))];
    let (status, _, body) = ask(&sample(), "POST", "/number", Body::from_stream(stream::iter(pieces))).await;
    assert_eq!((status, &parsed(&body)["detail"]), (StatusCode::BAD_REQUEST, &json!("broken off")));
}

#[tokio::test]
async fn what_is_served_is_documented() {
    let (_, _, document) = ask(&sample(), "GET", "/api/v1/openapi.json", "").await;
    let paths = &parsed(&document)["paths"];
    let described: Vec<(&str, Vec<&str>)> = paths
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| (path.as_str(), item.as_object().unwrap().keys().map(String::as_str).collect()))
        .collect();
    assert_eq!(
        described,
        [
            ("/", vec!["get"]),
            ("/api/v1/openapi.json", vec!["get"]),
            ("/number", vec!["post"]),
            ("/plain", vec!["get"]),
            ("/things/{name}", vec!["get", "put"]),
        ]
    );
    let refused = &paths["/number"]["post"]["responses"]["default"]["content"];
    assert_eq!(refused["application/problem+json"]["schema"]["$ref"], "#/components/schemas/Problem");

    let (_, _, index) = ask(&sample(), "GET", "/", "").await;
    let index: Vec<&str> = std::str::from_utf8(&index).unwrap().lines().collect();
    assert_eq!(index[..2], ["ocpp-gateway", ""]);
    let things = "GET    /things/{name}                         Shows a thing. ?count= &flag= &text=";
    assert_eq!(index[2], things);
    assert_eq!(index.len(), 2 + 6);
}

/// The operations of stations, for three known ones; there may be four.
fn stations() -> (Router, Journal) {
    let metrics = BusMetrics::register(&Registrar::default(), "stations").unwrap();
    let journal = Journal::start_forgetful(QueueLimits { records: 10, bytes: 1 << 20 }, &metrics).unwrap();
    let known = Stations::default();
    for (name, tag) in [("CP-1", "depot"), ("cp-2", "street"), ("X-3", "depot")] {
        known.tag(&Identity::parse(name).unwrap(), [tag.to_owned()].into());
    }
    let registry = Arc::new(Registry::default());
    let directory = Directory {
        registry: Arc::clone(&registry),
        stations: Arc::new(known),
        journal: journal.clone(),
        twins: Arc::new(Twins::new(TwinOptions::default(), IntGauge::new("twins", "twins").unwrap())),
        max_stations: 4,
        commands: Arc::new(CommandStore::new(CommandOptions::default().limits(65_536))),
    };
    (router(directory.operations().into_iter().chain(disconnect::operations(registry))), journal)
}

#[tokio::test]
async fn stations_are_shown_page_by_page() {
    let (api, journal) = stations();
    for (query, ids, next) in [
        ("", vec!["CP-1", "cp-2", "X-3"], None),
        ("?limit=3", vec!["CP-1", "cp-2", "X-3"], None),
        ("?limit=2", vec!["CP-1", "cp-2"], Some("cp-2")),
        ("?limit=2&after=CP-2", vec!["X-3"], None),
        ("?prefix=Cp", vec!["CP-1", "cp-2"], None),
        ("?tag=depot&limit=1", vec!["CP-1"], Some("CP-1")),
        ("?tag=depot&after=cp-1", vec!["X-3"], None),
        ("?connected=true", vec![], None),
        ("?connected=false&tag=street", vec!["cp-2"], None),
        ("?version=1.6", vec![], None),
    ] {
        let (status, _, body) = ask(&api, "GET", &format!("/api/v1/stations{query}"), "").await;
        let page = parsed(&body);
        let shown: Vec<&str> = page["stations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|station| station["id"].as_str().unwrap())
            .collect();
        assert_eq!((status, shown, page["next"].as_str()), (StatusCode::OK, ids, next), "{query}");
    }
    journal.close(Instant::now());
}

#[tokio::test]
async fn operators_decide_about_stations() {
    let (api, journal) = stations();
    let too_many = json!({"tags": (0..33).map(|number| number.to_string()).collect::<Vec<_>>()}).to_string();
    let nameless = format!("/{}/tags", "x".repeat(256));
    let long = json!({"reason": "x".repeat(257)}).to_string();
    for (method, path, body, status, part) in [
        ("GET", "/CP-1", "", 200, r#""tags":["depot"]"#),
        ("GET", "/CP-9", "", 404, r#"no station \"CP-9\" is known"#),
        ("PUT", "/CP-1/registration", r#"{"status":"Pending"}"#, 200, r#""registrationDecision":"Pending""#),
        (
            "PUT",
            "/CP-1/registration",
            r#"{"status":"pending"}"#,
            400,
            "status must be Accepted, Pending or Rejected",
        ),
        ("PUT", "/CP-1/registration", r#"{"status":"Pending","by":1}"#, 400, "unknown field `by`"),
        ("PUT", "/CP-1/tags", r#"{"tags":["b","a","b"]}"#, 200, r#""tags":["a","b"]"#),
        ("PUT", "/CP-1/tags", &too_many, 400, "32 tags"),
        ("PUT", &nameless, r#"{"tags":[]}"#, 400, "identity"),
        ("PUT", "/CP-4/tags", r#"{"tags":[]}"#, 200, r#""id":"CP-4""#),
        ("PUT", "/CP-5/tags", r#"{"tags":[]}"#, 409, "registration.max_stations is reached"),
        ("POST", "/CP-1/disconnect", "", 404, r#"station \"CP-1\" is not connected"#),
        ("POST", "/CP-1/disconnect", "null", 404, r#"station \"CP-1\" is not connected"#),
        ("POST", "/CP-1/disconnect", r#"{"why":"?"}"#, 400, "unknown field `why`"),
        ("POST", "/CP-1/disconnect", &long, 400, "reason may have 256 characters"),
    ] {
        let (found, _, answer) = ask(&api, method, &format!("/api/v1/stations{path}"), body.to_owned()).await;
        let answer = std::str::from_utf8(&answer).unwrap();
        assert_eq!(found.as_u16(), status, "{method} {path} {answer}");
        assert!(answer.contains(part), "{method} {path} {answer}");
    }
    journal.close(Instant::now());
}
