//! From an HTTP request to an admitted station, or to a refusal.
//!
//! Owns the rules of the handshake: path and identity, WebSocket headers, subprotocol, credentials (ocpp-j 1.1–1.3).
//! Does not touch a socket; `listener.rs` carries the decision out.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode, Version as HttpVersion};
use ocpp_protocol::{Identity, IdentityError, Version};

use crate::auth::{Authenticator, Decision};
use crate::config::Listener;
use crate::session::Admission;
use crate::socket::{self, Deflate, MalformedOffer};
use crate::stations::Stations;

/// What a listener asks before it lets a station in.
#[derive(Debug)]
pub(super) struct Door<'a> {
    /// The listener's rules.
    pub(super) rules: &'a Listener,
    /// Credentials; none on an open listener.
    pub(super) authenticator: Option<&'a Authenticator>,
    /// Agree to compression when a station offers it.
    pub(super) compression: bool,
    /// Answer 401 instead of 404.
    pub(super) hide_unknown: bool,
    /// Known stations, for spellings.
    pub(super) stations: &'a Stations,
    /// Stations whose state may be kept.
    pub(super) max_stations: usize,
}

/// The decision.
#[derive(Debug)]
pub(super) enum Verdict {
    /// 101, and a session.
    Admit {
        /// What the station proved.
        admission: Admission,
        /// `Sec-WebSocket-Accept`.
        accept: String,
        /// `Sec-WebSocket-Protocol`, in the station's spelling.
        subprotocol: Option<HeaderValue>,
    },
    /// 101 without a subprotocol, then an immediate close: what all versions ask for when nothing matches.
    NoSubprotocol {
        /// The station.
        identity: Identity,
        /// `Sec-WebSocket-Accept`.
        accept: String,
    },
    /// No upgrade.
    Refuse(Refusal),
}

/// Why there is no upgrade.
#[derive(Debug)]
pub(super) struct Refusal {
    /// A closed set of words.
    pub(super) reason: &'static str,
    /// The answer.
    pub(super) status: StatusCode,
    /// For people, in the body.
    pub(super) text: String,
    /// The station, when that much is known.
    pub(super) identity: Option<Identity>,
}

fn refuse(
    reason: &'static str,
    status: StatusCode,
    text: impl Into<String>,
    identity: Option<Identity>,
) -> Verdict {
    Verdict::Refuse(Refusal { reason, status, text: text.into(), identity })
}

impl Door<'_> {
    /// Decides about a request.
    pub(super) async fn judge<B>(&self, request: &Request<B>, remote: SocketAddr) -> Verdict {
        let identity =
            match Identity::from_path(request.uri().path(), &self.rules.path_prefix, self.rules.lenient) {
                Ok(identity) => identity,
                Err(IdentityError::NotUnderPrefix) => {
                    return refuse("notFound", StatusCode::NOT_FOUND, "no station connects here", None);
                }
                Err(error) => return refuse("badIdentity", StatusCode::BAD_REQUEST, error.to_string(), None),
            };
        let headers = request.headers();
        let key = match websocket_key(request) {
            Ok(key) => key,
            Err((status, text)) => return refuse("notWebSocket", status, text, Some(identity)),
        };
        let accept = socket::accept_key(key);
        let deflate = match self.compression(headers) {
            Ok(deflate) => deflate,
            Err(error) => {
                return refuse("notWebSocket", StatusCode::BAD_REQUEST, error.to_string(), Some(identity));
            }
        };
        let agreed = self.agree(headers);
        let version = agreed.as_ref().map(|(version, _)| *version);
        let identity = match self.authenticate(identity, version, headers).await {
            Ok(identity) => identity,
            Err(refusal) => return refusal,
        };
        let stations = self.stations;
        if stations.len() >= self.max_stations && !stations.knows(&identity.folded()) {
            let text = "registration.max_stations is reached";
            return refuse("overloaded", StatusCode::SERVICE_UNAVAILABLE, text, Some(identity));
        }
        let Some((version, subprotocol)) = agreed else { return Verdict::NoSubprotocol { identity, accept } };
        let admission = Admission {
            identity,
            version,
            subprotocol: subprotocol.is_some().then(|| version.subprotocol()),
            security_profile: u8::from(self.authenticator.is_some()),
            remote,
            deflate,
            lenient: self.rules.lenient,
            tags: Arc::clone(&self.rules.tags),
        };
        Verdict::Admit { admission, accept, subprotocol }
    }

    async fn authenticate(
        &self,
        identity: Identity,
        version: Option<Version>,
        headers: &HeaderMap,
    ) -> Result<Identity, Verdict> {
        let Some(authenticator) = self.authenticator else { return Ok(self.stations.canonical(identity)) };
        let header = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        // One text for all, or it would tell which stations exist.
        let text = "credentials are missing or wrong";
        let unauthorized = |reason, identity| refuse(reason, StatusCode::UNAUTHORIZED, text, Some(identity));
        match authenticator.decide(&identity, version, header).await {
            Decision::Admit(registered) => Ok(registered),
            Decision::Unknown if self.hide_unknown => Err(unauthorized("unknownStation", identity)),
            Decision::Unknown => {
                Err(refuse("unknownStation", StatusCode::NOT_FOUND, "no such station", Some(identity)))
            }
            Decision::Missing => Err(unauthorized("missingCredentials", identity)),
            Decision::Wrong => Err(unauthorized("wrongCredentials", identity)),
        }
    }

    /// The first offer of permessage-deflate that can be kept. A malformed header fails the handshake, as RFC 6455 section
    /// 9.1 demands, but not on a lenient listener: there it is no offer.
    fn compression(&self, headers: &HeaderMap) -> Result<Option<Deflate>, MalformedOffer> {
        let lines = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
        match Deflate::negotiate(lines) {
            Err(_) if self.rules.lenient => Ok(None),
            negotiated => Ok(negotiated?.filter(|_| self.compression)),
        }
    }

    /// The first of the station's subprotocols that is enabled: the station's order is its preference. `None` for no
    /// match; without the header a lenient listener assumes 1.6, and then nothing is echoed.
    fn agree(&self, headers: &HeaderMap) -> Option<(Version, Option<HeaderValue>)> {
        let mut offered = false;
        for line in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
            for token in
                line.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
            {
                offered = true;
                let known = Version::from_subprotocol(token).or_else(|| {
                    self.rules
                        .lenient
                        .then(|| Version::from_subprotocol(&token.to_ascii_lowercase()))
                        .flatten()
                });
                if let Some(version) = known.filter(|version| self.rules.subprotocols.0.contains(version)) {
                    return HeaderValue::from_str(token).ok().map(|echo| (version, Some(echo)));
                }
            }
        }
        let may_assume = self.rules.lenient && !offered && self.rules.subprotocols.0.contains(&Version::V16);
        may_assume.then_some((Version::V16, None))
    }
}

/// The checks of RFC 6455 section 4.2.1.
fn websocket_key<B>(request: &Request<B>) -> Result<&[u8], (StatusCode, &'static str)> {
    let headers = request.headers();
    if !has_token(headers, &header::UPGRADE, "websocket") {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "this is a WebSocket endpoint: the Upgrade header is missing",
        ));
    }
    if request.method() != Method::GET || request.version() != HttpVersion::HTTP_11 {
        return Err((StatusCode::BAD_REQUEST, "a WebSocket handshake is a GET of HTTP/1.1"));
    }
    if !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err((StatusCode::BAD_REQUEST, "the Connection header does not name upgrade"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "the WebSocket version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    // 16 bytes in Base64.
    key.filter(|key| key.len() == 24)
        .ok_or((StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key is missing or wrong"))
}

fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
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

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/ocpp/CP-1");
        let usual = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in usual.iter().chain(headers) {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    async fn judge(rules: Listener, request: &Request<()>) -> Verdict {
        let stations = Stations::default();
        let door = Door {
            rules: &rules,
            authenticator: None,
            compression: true,
            hide_unknown: false,
            stations: &stations,
            max_stations: 1,
        };
        door.judge(request, ([127, 0, 0, 1], 1).into()).await
    }

    fn echoed(verdict: Verdict) -> Option<String> {
        match verdict {
            Verdict::Admit { subprotocol, .. } => Some(
                subprotocol.map_or_else(|| "assumed".to_owned(), |echo| echo.to_str().unwrap().to_owned()),
            ),
            Verdict::NoSubprotocol { .. } | Verdict::Refuse(_) => None,
        }
    }

    #[tokio::test]
    async fn the_station_prefers_and_the_listener_allows() {
        let only_16 = || Listener {
            subprotocols: crate::config::Subprotocols(vec![Version::V16]),
            ..Listener::default()
        };
        let both = request(&[("sec-websocket-protocol", "ocpp2.1, ocpp1.6")]);
        assert_eq!(echoed(judge(Listener::default(), &both).await).unwrap(), "ocpp2.1");
        assert_eq!(echoed(judge(only_16(), &both).await).unwrap(), "ocpp1.6");
        let two_lines =
            request(&[("sec-websocket-protocol", "ocpp9.9"), ("sec-websocket-protocol", "ocpp2.0.1")]);
        assert_eq!(echoed(judge(Listener::default(), &two_lines).await).unwrap(), "ocpp2.0.1");
        assert!(echoed(judge(only_16(), &two_lines).await).is_none());
    }

    #[tokio::test]
    async fn compression_is_agreed_on_when_it_is_offered() {
        let offering = |extensions| {
            request(&[("sec-websocket-protocol", "ocpp1.6"), ("sec-websocket-extensions", extensions)])
        };
        let agreed = |verdict: Verdict| match verdict {
            Verdict::Admit { admission, .. } => Some(admission.deflate.is_some()),
            Verdict::NoSubprotocol { .. } | Verdict::Refuse(_) => None,
        };
        let strict = Listener::default;
        let lenient = || Listener { lenient: true, ..Listener::default() };
        assert_eq!(agreed(judge(strict(), &offering("permessage-deflate")).await), Some(true));
        let not_offered = request(&[("sec-websocket-protocol", "ocpp1.6")]);
        assert_eq!(agreed(judge(strict(), &not_offered).await), Some(false));
        let malformed = offering("permessage-deflate; =");
        let Verdict::Refuse(refusal) = judge(strict(), &malformed).await else { panic!("malformed") };
        assert_eq!((refusal.reason, refusal.status), ("notWebSocket", StatusCode::BAD_REQUEST));
        assert_eq!(agreed(judge(lenient(), &malformed).await), Some(false));
    }

    #[tokio::test]
    async fn leniency_is_a_choice() {
        let lenient = || Listener { lenient: true, ..Listener::default() };
        assert!(echoed(judge(Listener::default(), &request(&[])).await).is_none());
        assert_eq!(echoed(judge(lenient(), &request(&[])).await).unwrap(), "assumed");
        let shouted = request(&[("sec-websocket-protocol", "OCPP1.6")]);
        assert!(echoed(judge(Listener::default(), &shouted).await).is_none());
        assert_eq!(echoed(judge(lenient(), &shouted).await).unwrap(), "OCPP1.6");
        let foreign = request(&[("sec-websocket-protocol", "ocpp9.9")]);
        assert!(echoed(judge(lenient(), &foreign).await).is_none(), "offered, but nothing of ours");
    }
}
