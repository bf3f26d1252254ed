//! Decides about a station's handshake: whether its HTTP request becomes a session.
//!
//! Owns the rules: path and identity, subprotocol, credentials (ocpp-j 1.1–1.3). Touches no socket; `listener.rs` carries out
//! the decision.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use ocpp_protocol::{Identity, IdentityError, Version};

use super::options::ListenerOptions;
use super::upgrade::{NotUpgrade, websocket_key};
use crate::auth::{Authenticate, AuthenticationError, Presented};
use crate::session::Admission;
use crate::settings::{ListenerTags, Resolver, Settings};
use crate::socket::{self, Deflate};
use crate::stations::Stations;

/// What a decision depends on besides the request.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    /// The listener's name.
    pub(super) name: &'a Arc<str>,
    pub(super) rules: &'a ListenerOptions,
    /// What holds for which station.
    pub(super) settings: &'a Resolver,
    /// None on a listener that admits every station.
    pub(super) authenticator: Option<&'a dyn Authenticate>,
    /// Accept permessage-deflate when a station offers it.
    pub(super) compression: bool,
    /// Answer 401 instead of 404 to unknown stations.
    pub(super) hide_unknown: bool,
    /// The known stations, for the spelling of their identities.
    pub(super) stations: &'a Stations,
    /// How many stations' state may be kept.
    pub(super) max_stations: usize,
}

/// What becomes of a request that is not refused.
#[derive(Debug)]
pub(super) enum Decision {
    /// 101, and a session.
    Admit {
        admission: Admission,
        /// `Sec-WebSocket-Accept`.
        accept: String,
        /// `Sec-WebSocket-Protocol` in the station's spelling.
        subprotocol: Option<HeaderValue>,
        /// What a strict listener would have refused, in words of a closed set.
        leniencies: Vec<&'static str>,
    },
    /// 101 without a subprotocol, then an immediate close: what all OCPP versions require when no subprotocol matches.
    NoSubprotocol {
        identity: Identity,
        /// `Sec-WebSocket-Accept`.
        accept: String,
    },
}

/// The response that refuses the upgrade.
#[derive(Debug)]
pub(super) struct Refusal {
    /// One of a closed set, for the event and the metric.
    pub(super) reason: &'static str,
    pub(super) status: StatusCode,
    /// The body, for people.
    pub(super) text: String,
    /// The station, if the request names one.
    pub(super) identity: Option<Identity>,
}

impl Refusal {
    fn new(
        reason: &'static str,
        status: StatusCode,
        text: impl Into<String>,
        identity: Option<Identity>,
    ) -> Self {
        Self { reason, status, text: text.into(), identity }
    }
}

impl Handshake<'_> {
    /// Decides about a request. Cancel-safe; waits only for the authenticator.
    ///
    /// # Errors
    /// The refusal, if there is no upgrade.
    pub(super) async fn decide<B>(
        &self,
        request: &Request<B>,
        remote: SocketAddr,
    ) -> Result<Decision, Refusal> {
        let mut leniencies = Vec::new();
        let (identity, settings) = self.identify(request.uri().path(), &mut leniencies)?;
        let headers = request.headers();
        let refused =
            |error: NotUpgrade| Refusal::new(error.reason, error.status, error.text, Some(identity.clone()));
        let accept = socket::accept_key(websocket_key(request).map_err(refused)?);
        let deflate = self.compression(headers, &settings, &mut leniencies).map_err(refused)?;
        let selected = select_subprotocol(headers, &settings, &mut leniencies);
        let version = selected.as_ref().map(|(version, _)| *version);
        let identity = self.authenticate(identity, version, headers).await?;
        let stations = self.stations;
        if stations.len() >= self.max_stations && !stations.knows(&identity.folded()) {
            let text = "registration.max_stations is reached";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refusal::new("overloaded", status, text, Some(identity)));
        }
        let Some((version, subprotocol)) = selected else {
            return Ok(Decision::NoSubprotocol { identity, accept });
        };
        let admission = Admission {
            identity,
            version,
            subprotocol: subprotocol.is_some().then(|| version.subprotocol()),
            security_profile: u8::from(self.authenticator.is_some()),
            remote,
            deflate,
            listener: Arc::clone(self.name),
            settings,
            tags: Arc::clone(&self.rules.tags),
        };
        Ok(Decision::Admit { admission, accept, subprotocol, leniencies })
    }

    /// The station that the path names, and what holds for it. Empty segments are ignored for a station that may be lenient.
    fn identify(
        &self,
        path: &str,
        leniencies: &mut Vec<&'static str>,
    ) -> Result<(Identity, Arc<Settings>), Refusal> {
        let read = |is_lenient| Identity::from_path(path, &self.rules.path_prefix, is_lenient);
        let refused = |error| match error {
            IdentityError::NotUnderPrefix => {
                Refusal::new("notFound", StatusCode::NOT_FOUND, "no station connects here", None)
            }
            error => Refusal::new("badIdentity", StatusCode::BAD_REQUEST, error.to_string(), None),
        };
        let strict = read(false);
        let identity = strict.clone().or_else(|error| read(true).map_err(|_| refused(error)))?;
        let listener = ListenerTags { name: self.name, tags: &self.rules.tags };
        let settings = self.stations.settings(self.settings, &listener, &identity.folded());
        match strict {
            Err(error) if !settings.session.lenient => return Err(refused(error)),
            Err(_) => leniencies.push("emptyPathSegment"),
            Ok(_) => {}
        }
        Ok((identity, settings))
    }

    async fn authenticate(
        &self,
        identity: Identity,
        version: Option<Version>,
        headers: &HeaderMap,
    ) -> Result<Identity, Refusal> {
        let Some(authenticator) = self.authenticator else { return Ok(self.stations.canonical(identity)) };
        let authorization = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let presented = Presented { identity: &identity, version, authorization };
        let error = match authenticator.authenticate(presented).await {
            Ok(registered) => return Ok(registered),
            Err(error) => error,
        };
        let reason = match error {
            AuthenticationError::UnknownStation => "unknownStation",
            AuthenticationError::MissingCredentials => "missingCredentials",
            AuthenticationError::WrongCredentials => "wrongCredentials",
        };
        if error == AuthenticationError::UnknownStation && !self.hide_unknown {
            return Err(Refusal::new(reason, StatusCode::NOT_FOUND, "no such station", Some(identity)));
        }
        // The same text for all reasons, or it would reveal which stations exist.
        let text = "credentials are missing or wrong";
        Err(Refusal::new(reason, StatusCode::UNAUTHORIZED, text, Some(identity)))
    }

    /// Accepts the first offer of permessage-deflate that can be met. A malformed header fails the handshake (RFC 6455
    /// section 9.1), except on a lenient listener, which ignores it.
    fn compression(
        &self,
        headers: &HeaderMap,
        settings: &Settings,
        leniencies: &mut Vec<&'static str>,
    ) -> Result<Option<Deflate>, NotUpgrade> {
        let lines = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
        match Deflate::negotiate(lines) {
            Ok(negotiated) => Ok(negotiated.filter(|_| self.compression)),
            Err(_) if settings.session.lenient => {
                leniencies.push("malformedExtensions");
                Ok(None)
            }
            Err(_) => Err(NotUpgrade {
                reason: "notWebSocket",
                status: StatusCode::BAD_REQUEST,
                text: "the Sec-WebSocket-Extensions header is malformed",
            }),
        }
    }
}

/// Selects the first of the station's subprotocols that is enabled: the station's order is its preference. Without the header, a
/// lenient listener assumes the only version enabled, or 1.6, and echoes nothing.
fn select_subprotocol(
    headers: &HeaderMap,
    settings: &Settings,
    leniencies: &mut Vec<&'static str>,
) -> Option<(Version, Option<HeaderValue>)> {
    let Settings { session, subprotocols: enabled, .. } = settings;
    let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered = lines
        .flat_map(|line| line.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
        .peekable();
    let assumed = match enabled.as_slice() {
        [only] => *only,
        _ => Version::V16,
    };
    if session.lenient && offered.peek().is_none() && enabled.contains(&assumed) {
        leniencies.push("missingSubprotocol");
        return Some((assumed, None));
    }
    offered.find_map(|token| {
        let exact = Version::from_subprotocol(token);
        let known = exact.or_else(|| {
            session.lenient.then(|| Version::from_subprotocol(&token.to_ascii_lowercase())).flatten()
        });
        let version = known.filter(|version| enabled.contains(version))?;
        let echo = HeaderValue::from_str(token).ok()?;
        leniencies.extend(exact.is_none().then_some("subprotocolCase"));
        Some((version, Some(echo)))
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::settings::overrides::Fallbacks;
    use crate::settings::test_support;

    /// Decides the same about every station.
    #[derive(Debug)]
    struct Always(Result<&'static str, AuthenticationError>);

    impl Authenticate for Always {
        fn authenticate<'a>(
            &'a self,
            _: Presented<'a>,
        ) -> BoxFuture<'a, Result<Identity, AuthenticationError>> {
            let decided = self.0.map(|identity| Identity::parse(identity).unwrap());
            async move { decided }.boxed()
        }
    }

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/ocpp/CP-1");
        let usual = [
            ("host", "gateway.test"),
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

    fn resolver(rules: &ListenerOptions) -> Resolver {
        let session = ocpp_station::Options { lenient: rules.lenient, ..test_support::session_options() };
        test_support::resolver(
            Settings { session, subprotocols: rules.subprotocols.0.clone(), fallback: Fallbacks::default() },
            "",
        )
    }

    async fn decide(rules: ListenerOptions, request: &Request<()>) -> Result<Decision, Refusal> {
        let stations = Stations::default();
        let (name, settings) = (Arc::from("main"), resolver(&rules));
        let handshake = Handshake {
            name: &name,
            rules: &rules,
            settings: &settings,
            authenticator: None,
            compression: true,
            hide_unknown: false,
            stations: &stations,
            max_stations: 1,
        };
        handshake.decide(request, ([127, 0, 0, 1], 1).into()).await
    }

    fn echoed(decision: Result<Decision, Refusal>) -> Option<String> {
        match decision {
            Ok(Decision::Admit { subprotocol, .. }) => Some(
                subprotocol.map_or_else(|| "assumed".to_owned(), |echo| echo.to_str().unwrap().to_owned()),
            ),
            Ok(Decision::NoSubprotocol { .. }) | Err(_) => None,
        }
    }

    #[tokio::test]
    async fn the_first_enabled_subprotocol_is_selected() {
        let only_16 = || ListenerOptions {
            subprotocols: crate::settings::overrides::Subprotocols(vec![Version::V16]),
            ..ListenerOptions::default()
        };
        let both = request(&[("sec-websocket-protocol", "ocpp2.1, ocpp1.6")]);
        assert_eq!(echoed(decide(ListenerOptions::default(), &both).await).unwrap(), "ocpp2.1");
        assert_eq!(echoed(decide(only_16(), &both).await).unwrap(), "ocpp1.6");
        let two_lines =
            request(&[("sec-websocket-protocol", "ocpp9.9"), ("sec-websocket-protocol", "ocpp2.0.1")]);
        assert_eq!(echoed(decide(ListenerOptions::default(), &two_lines).await).unwrap(), "ocpp2.0.1");
        assert!(echoed(decide(only_16(), &two_lines).await).is_none());
    }

    #[tokio::test]
    async fn without_an_offer_the_only_enabled_version_is_assumed() {
        for (enabled, assumed) in [
            (vec![Version::V201], Some(Version::V201)),
            (vec![Version::V21, Version::V16], Some(Version::V16)),
            (vec![Version::V21, Version::V201], None),
        ] {
            let session = ocpp_station::Options { lenient: true, ..test_support::session_options() };
            let settings = Settings { session, subprotocols: enabled, fallback: Fallbacks::default() };
            let selected = select_subprotocol(&HeaderMap::new(), &settings, &mut Vec::new());
            assert_eq!(selected.map(|(version, _)| version), assumed);
        }
    }

    #[tokio::test]
    async fn compression_is_accepted_when_offered() {
        let offering = |extensions| {
            request(&[("sec-websocket-protocol", "ocpp1.6"), ("sec-websocket-extensions", extensions)])
        };
        let agreed = |decision: Result<Decision, Refusal>| match decision {
            Ok(Decision::Admit { admission, .. }) => Some(admission.deflate.is_some()),
            Ok(Decision::NoSubprotocol { .. }) | Err(_) => None,
        };
        let strict = ListenerOptions::default;
        let lenient = || ListenerOptions { lenient: true, ..ListenerOptions::default() };
        assert_eq!(agreed(decide(strict(), &offering("permessage-deflate")).await), Some(true));
        let not_offered = request(&[("sec-websocket-protocol", "ocpp1.6")]);
        assert_eq!(agreed(decide(strict(), &not_offered).await), Some(false));
        let malformed = offering("permessage-deflate; =");
        let Err(refusal) = decide(strict(), &malformed).await else { panic!("malformed") };
        assert_eq!((refusal.reason, refusal.status), ("notWebSocket", StatusCode::BAD_REQUEST));
        assert_eq!(agreed(decide(lenient(), &malformed).await), Some(false));
    }

    #[tokio::test]
    async fn each_leniency_that_was_needed_is_named() {
        async fn named(path: &str, headers: &[(&str, &str)]) -> Vec<&'static str> {
            let lenient = ListenerOptions { lenient: true, ..ListenerOptions::default() };
            let mut request = request(headers);
            *request.uri_mut() = path.parse().unwrap();
            match decide(lenient, &request).await {
                Ok(Decision::Admit { leniencies, .. }) => leniencies,
                other => panic!("{other:?}"),
            }
        }
        let protocol = |offered| ("sec-websocket-protocol", offered);
        assert!(named("/ocpp/CP-1", &[protocol("ocpp1.6")]).await.is_empty());
        assert_eq!(named("/ocpp/CP-1", &[]).await, ["missingSubprotocol"]);
        assert_eq!(named("/ocpp/CP-1", &[protocol("OCPP9, OCPP1.6, ocpp1.6")]).await, ["subprotocolCase"]);
        for path in ["//ocpp/CP-1", "/ocpp//CP-1", "/ocpp/CP-1/"] {
            assert_eq!(named(path, &[protocol("ocpp1.6")]).await, ["emptyPathSegment"], "{path}");
        }
        let extensions = [protocol("ocpp1.6"), ("sec-websocket-extensions", ";=")];
        assert_eq!(named("/ocpp/CP-1", &extensions).await, ["malformedExtensions"]);
    }

    #[tokio::test]
    async fn only_a_lenient_listener_is_lenient() {
        let lenient = || ListenerOptions { lenient: true, ..ListenerOptions::default() };
        assert!(echoed(decide(ListenerOptions::default(), &request(&[])).await).is_none());
        assert_eq!(echoed(decide(lenient(), &request(&[])).await).unwrap(), "assumed");
        let shouted = request(&[("sec-websocket-protocol", "OCPP1.6")]);
        assert!(echoed(decide(ListenerOptions::default(), &shouted).await).is_none());
        assert_eq!(echoed(decide(lenient(), &shouted).await).unwrap(), "OCPP1.6");
        let foreign = request(&[("sec-websocket-protocol", "ocpp9.9")]);
        assert!(echoed(decide(lenient(), &foreign).await).is_none(), "offered, but nothing of ours");
    }

    #[tokio::test]
    async fn each_error_of_the_authenticator_has_its_refusal() {
        use AuthenticationError::{MissingCredentials, UnknownStation, WrongCredentials};
        let (rules, stations) = (ListenerOptions::default(), Stations::default());
        let (name, settings) = (Arc::from("main"), resolver(&rules));
        let request = request(&[("sec-websocket-protocol", "ocpp2.0.1")]);
        let decide = async |authenticator: Always, hide_unknown, max_stations| {
            let handshake = Handshake {
                name: &name,
                rules: &rules,
                settings: &settings,
                authenticator: Some(&authenticator),
                compression: false,
                hide_unknown,
                stations: &stations,
                max_stations,
            };
            handshake.decide(&request, ([127, 0, 0, 1], 1).into()).await
        };
        let wrong = "credentials are missing or wrong";
        let cases = [
            (UnknownStation, false, "unknownStation", StatusCode::NOT_FOUND, "no such station"),
            (UnknownStation, true, "unknownStation", StatusCode::UNAUTHORIZED, wrong),
            (MissingCredentials, false, "missingCredentials", StatusCode::UNAUTHORIZED, wrong),
            (MissingCredentials, true, "missingCredentials", StatusCode::UNAUTHORIZED, wrong),
            (WrongCredentials, false, "wrongCredentials", StatusCode::UNAUTHORIZED, wrong),
            (WrongCredentials, true, "wrongCredentials", StatusCode::UNAUTHORIZED, wrong),
        ];
        for (error, hide_unknown, reason, status, text) in cases {
            let decision = decide(Always(Err(error)), hide_unknown, 1).await;
            let Err(refusal) = decision else { panic!("{error}: {decision:?}") };
            assert_eq!((refusal.reason, refusal.status, refusal.text.as_str()), (reason, status, text));
            assert_eq!(refusal.identity.unwrap().as_str(), "CP-1");
        }
        let decision = decide(Always(Ok("cp-1")), false, 1).await;
        let Ok(Decision::Admit { admission, .. }) = decision else { panic!("{decision:?}") };
        assert_eq!((admission.identity.as_str(), admission.security_profile), ("cp-1", 1));

        let decision = decide(Always(Ok("cp-1")), false, 0).await;
        let Err(refusal) = decision else { panic!("{decision:?}") };
        assert_eq!((refusal.reason, refusal.status), ("overloaded", StatusCode::SERVICE_UNAVAILABLE));
    }
}
