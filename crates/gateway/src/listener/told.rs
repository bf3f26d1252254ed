//! What a listener tells: refusals and twins, as events, log lines and counts.
//!
//! Owns what is said, and that strangers cannot make it say too much. Decides about no connection.

use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use ocpp_protocol::IdentityKey;
use ocpp_station::events::{EncodedEvent, Rejected};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::handshake::Refusal;
use super::{Listener, response};
use crate::driver;
use crate::kinds;
use crate::session::SessionHandle;
use crate::twins::Noticed;

impl Listener {
    /// Refuses a handshake, and says so.
    pub(super) fn refuse<B>(
        &self,
        request: &Request<B>,
        remote: SocketAddr,
        refusal: Refusal,
    ) -> Response<Full<Bytes>> {
        let Refusal { reason, status, text, identity } = refusal;
        let path = &shown_path(request);
        self.metrics.handshake_ended(&self.name, reason);
        let station = identity.as_ref().map(ocpp_protocol::Identity::as_str);
        tracing::info!(station, %remote, path, reason, status = status.as_u16(), "handshake refused");
        self.publish_rejection(station, &Rejected { path, remote, reason, status: status.as_u16() });
        response::refusal(status, format!("{text} (requested path: {path})"))
    }

    /// Publishes the refusal as an event, or counts it if the rate limit or the bus does not take it. Never waits: the refused
    /// connection still holds its permits.
    pub(super) fn publish_rejection(&self, station: Option<&str>, rejected: &Rejected<'_>) {
        const EVENT: &str = "ocpp.station.rejected";
        if !self.rejections.allows() {
            self.metrics.dropped(EVENT, "tooMany");
            return;
        }
        let event = self.shared.events.rejected(SystemTime::now(), station, rejected);
        self.publish_or_count(EVENT, event);
    }

    fn publish_or_count(&self, name: &'static str, event: EncodedEvent) {
        if self.shared.bus.publisher().try_publish(driver::record(kinds::EVENT, event)).is_err() {
            self.metrics.dropped(name, "busFull");
        }
    }

    /// Notes that a session was replaced, and says when that happens too often.
    pub(super) fn watch_for_twins(
        &self,
        key: &IdentityKey,
        replaced: &SessionHandle,
        session: &SessionHandle,
    ) {
        let addresses = [replaced, session].map(|session| session.admission.remote.ip());
        let Some(noticed) = self.twins.replaced(key, Instant::now(), replaced.silence(), addresses) else {
            return;
        };
        let Noticed { replacements, addresses, is_damped, .. } = noticed;
        let station = session.admission.identity.as_str();
        tracing::warn!(station, replacements, ?addresses, is_damped, "two devices use one identity");
        let event = self.shared.events.twins(SystemTime::now(), station, replacements, &addresses, is_damped);
        self.publish_or_count("ocpp.station.twins", event);
    }
}

/// The path of a request for people and events: in printable ASCII, and bounded. Without the query, which may hold a secret.
pub(super) fn shown_path<B>(request: &Request<B>) -> String {
    const MOST: usize = 256;
    let mut path = utf8_percent_encode(request.uri().path(), CONTROLS).to_string();
    if path.len() > MOST {
        path.truncate(MOST);
        path.push_str("...");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_in_printable_ascii_and_bounded() {
        let shown = |target: &str| {
            shown_path(
                &Request::builder().uri(hyper::Uri::try_from(target.as_bytes()).unwrap()).body(()).unwrap(),
            )
        };
        assert_eq!(shown("/ocpp/CP%201?token=secret"), "/ocpp/CP%201");
        assert_eq!(shown("/caf\u{e9}"), "/caf%C3%A9");
        assert_eq!(shown(&format!("/{}", "x".repeat(255))).len(), 256);
        assert_eq!(shown(&format!("/{}", "x".repeat(256))), format!("/{}...", "x".repeat(255)));
    }
}
