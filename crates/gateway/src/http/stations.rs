//! `/api/v1/stations`: who is known and who is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use ocpp_protocol::{Identity, IdentityKey, Registration};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Answer, Problem, body_of, json};
use crate::events::millis;
use crate::session::Session;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// A station that is known or connected.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Station {
    /// Its identity, in its registered spelling.
    id: String,
    /// Whether it is connected; if so, the members of its session are here, too.
    connected: bool,
    #[serde(flatten)]
    #[schema(value_type = Connected)]
    session: Option<Connected>,
    /// What its last BootNotification was answered with; null if it never sent one.
    registration: Option<String>,
    /// What its next one is answered with, if somebody has decided that.
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_decision: Option<String>,
    /// The groups that it belongs to, for commands to many.
    tags: Vec<String>,
    /// Commands that are kept until it is back.
    commands_kept: usize,
}

/// The session by which a station is connected. All of it is there, or nothing: among the members of a [`Station`] none is
/// required.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Connected {
    /// Its number; a later one is greater.
    #[schema(required = false)]
    session_id: String,
    /// The version agreed on.
    #[schema(required = false)]
    ocpp_version: &'static str,
    /// The token answered in the handshake; null when a lenient listener assumed 1.6.
    #[schema(required = false)]
    subprotocol: Option<&'static str>,
    /// Address and port of the TCP peer.
    #[schema(required = false)]
    remote_address: String,
    /// OCPP security profile; 0 for none.
    #[schema(required = false)]
    security_profile: u8,
    /// When it was admitted.
    #[schema(required = false, format = DateTime)]
    connected_at: String,
    /// Milliseconds since the last frame from the station.
    #[schema(required = false)]
    silent_ms: u64,
    /// Messages from the station in this session.
    #[schema(required = false)]
    messages_in: u64,
    /// Messages to the station in this session.
    #[schema(required = false)]
    messages_out: u64,
    /// Messages that wait for durability or for the socket.
    #[schema(required = false)]
    unacknowledged: u64,
    /// Commands that wait to be sent.
    #[schema(required = false)]
    commands_waiting: usize,
    /// Whether a command is with the station.
    #[schema(required = false)]
    command_outstanding: bool,
}

/// Stations, in the order of their folded identities.
#[derive(Serialize, ToSchema)]
#[schema(as = StationPage)]
pub(super) struct Page {
    /// Those of this page.
    stations: Vec<Station>,
    /// Give it as `after` for the next page; none on the last one.
    next: Option<String>,
}

/// What a station's next BootNotification is to be answered with.
#[derive(Deserialize, ToSchema)]
#[schema(as = RegistrationDecision)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    /// `Accepted`, `Pending` or `Rejected`.
    #[schema(pattern = "^(Accepted|Pending|Rejected)$")]
    status: String,
}

/// The groups that a station belongs to.
#[derive(Deserialize, ToSchema)]
#[schema(as = StationTags)]
#[serde(deny_unknown_fields)]
pub(super) struct Tags {
    /// At most 32, of 1 to 64 bytes each.
    #[schema(max_items = 32)]
    tags: BTreeSet<String>,
}

impl Admin {
    /// A page of stations in the order of their folded identities.
    pub(super) fn list_stations(&self, query: &BTreeMap<String, String>) -> Answer {
        let limit = match query.get("limit") {
            None => DEFAULT_PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=LARGEST_PAGE).contains(limit))
                .ok_or_else(|| Problem::bad_request(format!("limit must be 1 to {LARGEST_PAGE}")))?,
        };
        let connected = match query.get("connected").map(String::as_str) {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(Problem::bad_request("connected must be true or false")),
        };
        let version = query.get("version").map(String::as_str);
        let tag = query.get("tag");
        let after = query.get("after").map(|after| IdentityKey::of(after));
        let prefix = query.get("prefix").map(|prefix| IdentityKey::of(prefix));
        let mut keys: BTreeSet<IdentityKey> = self.shared.stations.keys().into_iter().collect();
        keys.extend(self.registry.all().iter().map(|session| session.admission.identity.folded()));

        let mut stations = Vec::new();
        let mut next = None;
        for key in keys {
            if after.as_ref().is_some_and(|after| key <= *after)
                || prefix.as_ref().is_some_and(|prefix| !key.as_str().starts_with(prefix.as_str()))
            {
                continue;
            }
            let Some(station) = self.station(&key) else { continue };
            if connected.is_some_and(|wanted| wanted != station.connected)
                || tag.is_some_and(|tag| !station.tags.contains(tag))
                || version.is_some_and(|wanted| {
                    station.session.as_ref().map(|session| session.ocpp_version) != Some(wanted)
                })
            {
                continue;
            }
            if stations.len() == limit {
                next = stations.last().map(|last: &Station| last.id.clone());
                break;
            }
            stations.push(station);
        }
        Ok(json(StatusCode::OK, &Page { stations, next }))
    }

    pub(super) fn show_station(&self, id: &str) -> Answer {
        match self.station(&IdentityKey::of(id)) {
            Some(station) => Ok(json(StatusCode::OK, &station)),
            None => Err(Problem::not_found(format!("no station {id:?} is known"))),
        }
    }

    /// What the station's next BootNotification is answered with.
    pub(super) async fn decide_registration(&self, id: &str, request: Request<Incoming>) -> Answer {
        let body = body_of(request).await?;
        let decision: Decision =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        let status = Registration::parse(&decision.status)
            .ok_or_else(|| Problem::bad_request("status must be Accepted, Pending or Rejected"))?;
        let identity = self.known_or_new(id)?;
        self.shared.journal.store(self.shared.stations.decide(&identity, status)).await;
        self.show_station(id)
    }

    /// Puts a station into groups.
    pub(super) async fn tag_station(&self, id: &str, request: Request<Incoming>) -> Answer {
        let body = body_of(request).await?;
        let Tags { tags } =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        if let Err(error) = crate::stations::check_tags(&tags) {
            return Err(Problem::bad_request(error));
        }
        let identity = self.known_or_new(id)?;
        self.shared.journal.store(self.shared.stations.tag(&identity, tags)).await;
        self.show_station(id)
    }

    /// A station whose state may be changed.
    fn known_or_new(&self, id: &str) -> Result<Identity, Problem> {
        let identity = Identity::parse(id).map_err(|error| Problem::bad_request(error.to_string()))?;
        let known = self.shared.stations.knows(&identity.folded());
        if !known && self.shared.stations.len() >= self.shared.registration.max_stations {
            let detail = "registration.max_stations is reached";
            return Err(Problem::new(StatusCode::CONFLICT, "too many stations", detail));
        }
        Ok(identity)
    }

    fn station(&self, key: &IdentityKey) -> Option<Station> {
        let session = self.registry.get(key);
        let state = self.shared.stations.get(key);
        let id = match (&session, &state) {
            (Some(session), _) => session.admission.identity.as_str().to_owned(),
            (None, Some(state)) => state.identity.clone(),
            (None, None) => return None,
        };
        let (registration, registration_decision, tags) =
            state.map_or_else(Default::default, |state| (state.registration, state.decision, state.tags));
        Some(Station {
            id,
            connected: session.is_some(),
            session: session.as_deref().map(connected),
            registration,
            registration_decision,
            tags,
            commands_kept: self.router.book.kept_for(key),
        })
    }
}

fn connected(session: &Session) -> Connected {
    let counters = &session.counters;
    Connected {
        session_id: session.id.to_string(),
        ocpp_version: session.admission.version.as_str(),
        subprotocol: session.admission.subprotocol,
        remote_address: session.admission.remote.to_string(),
        security_profile: session.admission.security_profile,
        connected_at: ocpp_bus::event::rfc3339(session.connected_at),
        silent_ms: millis(session.silence()),
        messages_in: counters.messages_in.load(Ordering::Relaxed),
        messages_out: counters.messages_out.load(Ordering::Relaxed),
        unacknowledged: counters.unacknowledged.load(Ordering::Relaxed),
        commands_waiting: session.mailbox.waiting(),
        command_outstanding: counters.command_outstanding.load(Ordering::Relaxed),
    }
}
