//! Whether a request is the opening handshake of a WebSocket (RFC 6455 section 4.2.1, RFC 9112).
//!
//! Owns these checks, and what a client is told that fails one. Knows nothing of OCPP or of stations.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode, Version as HttpVersion};

/// The rule that a request breaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotUpgrade {
    /// One of a closed set, for the event and the metric.
    pub(super) reason: &'static str,
    pub(super) status: StatusCode,
    /// For people.
    pub(super) text: &'static str,
}

/// The `Sec-WebSocket-Key` of a valid request.
///
/// # Errors
/// The first rule that the request breaks.
pub(super) fn websocket_key<B>(request: &Request<B>) -> Result<&[u8], NotUpgrade> {
    const NOT_WEBSOCKET: &str = "notWebSocket";
    let wrong = |reason, text| Err(NotUpgrade { reason, status: StatusCode::BAD_REQUEST, text });
    let outdated =
        |text| Err(NotUpgrade { reason: NOT_WEBSOCKET, status: StatusCode::UPGRADE_REQUIRED, text });
    let headers = request.headers();
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return outdated("this is a WebSocket endpoint: the Upgrade header is missing");
    }
    if request.method() != Method::GET || request.version() != HttpVersion::HTTP_11 {
        return wrong(NOT_WEBSOCKET, "a WebSocket handshake is a GET of HTTP/1.1");
    }
    // RFC 9112 section 3.2.
    if count(headers, &header::HOST) != 1 {
        return wrong("badHost", "a request of HTTP/1.1 has one Host header");
    }
    // The bytes of a body would be taken for frames.
    if has_body(headers) {
        return wrong("requestBody", "a WebSocket handshake has no body");
    }
    // RFC 6455 sections 11.3.1 and 11.3.5.
    if count(headers, &header::SEC_WEBSOCKET_KEY) > 1 || count(headers, &header::SEC_WEBSOCKET_VERSION) > 1 {
        return wrong("repeatedHeader", "Sec-WebSocket-Key and Sec-WebSocket-Version may occur once each");
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return wrong(NOT_WEBSOCKET, "the Connection header does not name upgrade");
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return outdated("the WebSocket version must be 13");
    }
    // 16 bytes in Base64 are 24 characters.
    match headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes) {
        Some(key) if key.len() == 24 => Ok(key),
        _ => wrong(NOT_WEBSOCKET, "the Sec-WebSocket-Key is missing or wrong"),
    }
}

fn count(headers: &HeaderMap, name: &HeaderName) -> usize {
    headers.get_all(name).iter().count()
}

fn has_body(headers: &HeaderMap) -> bool {
    let is_empty = |length: &HeaderValue| length.as_bytes().iter().all(|digit| *digit == b'0');
    headers.contains_key(header::TRANSFER_ENCODING)
        || !headers.get_all(header::CONTENT_LENGTH).iter().all(is_empty)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: [(&str, &str); 5] = [
        ("host", "gateway.test"),
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn reason(headers: impl IntoIterator<Item = (&'static str, &'static str)>) -> Option<&'static str> {
        let request = headers
            .into_iter()
            .fold(Request::builder(), |request, (name, value)| request.header(name, value))
            .body(())
            .unwrap();
        websocket_key(&request).err().map(|error| error.reason)
    }

    #[test]
    fn each_header_that_is_required_is_missed() {
        let without = |missing| reason(VALID.into_iter().filter(move |(name, _)| *name != missing));
        assert_eq!(without("none"), None);
        assert_eq!(without("host"), Some("badHost"));
        for (name, _) in &VALID[1..] {
            assert_eq!(without(name), Some("notWebSocket"), "{name}");
        }
    }

    #[test]
    fn what_may_not_be_added_is_refused() {
        for (added, expected) in [
            (("host", "elsewhere.test"), Some("badHost")),
            (("content-length", "0"), None),
            (("content-length", "00"), None),
            (("content-length", "5"), Some("requestBody")),
            (("content-length", "10"), Some("requestBody")),
            (("transfer-encoding", "chunked"), Some("requestBody")),
            (("transfer-encoding", "identity"), Some("requestBody")),
            (("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), Some("repeatedHeader")),
            (("sec-websocket-version", "8"), Some("repeatedHeader")),
            (("upgrade", "h2c"), None),
        ] {
            assert_eq!(reason(VALID.into_iter().chain([added])), expected, "{added:?}");
        }
    }
}
