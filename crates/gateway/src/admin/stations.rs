//! `/api/v1/stations`: who is known and who is connected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use ocpp_protocol::{Identity, IdentityKey, Registration};
use serde::{Deserialize, Serialize};

use super::{Admin, Answer, Problem, body_of, json, only};
use crate::events::millis;
use crate::session::Session;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Station {
    id: String,
    connected: bool,
    #[serde(flatten)]
    session: Option<Connected>,
    registration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_decision: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connected {
    session_id: String,
    ocpp_version: &'static str,
    subprotocol: Option<&'static str>,
    remote_address: String,
    security_profile: u8,
    connected_at: String,
    silent_ms: u64,
    messages_in: u64,
    messages_out: u64,
    unacknowledged: u64,
    commands_waiting: usize,
    command_outstanding: bool,
}

#[derive(Serialize)]
struct Page {
    stations: Vec<Station>,
    /// Give it as `after` for the next page; none on the last one.
    next: Option<String>,
}

impl Admin {
    /// A page of stations in the order of their folded identities.
    pub(super) fn list_stations(&self, query: &BTreeMap<String, String>) -> Answer {
        only(query, &["limit", "after", "prefix", "connected", "version"])?;
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
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Decision {
            status: String,
        }
        let body = body_of(request).await?;
        let decision: Decision =
            serde_json::from_slice(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
        let status = Registration::parse(&decision.status)
            .ok_or_else(|| Problem::bad_request("status must be Accepted, Pending or Rejected"))?;
        let identity = Identity::parse(id).map_err(|error| Problem::bad_request(error.to_string()))?;
        let known = self.shared.stations.knows(&identity.folded());
        if !known && self.shared.stations.len() >= self.shared.registration.max_stations {
            let detail = "registration.max_stations is reached";
            return Err(Problem::new(StatusCode::CONFLICT, "too many stations", detail));
        }
        let record = self.shared.stations.decide(&identity, status);
        let mut lane = self.shared.journal.lane();
        let ordinal = lane.publish(record).await;
        lane.durability().wait(ordinal).await;
        self.show_station(id)
    }

    fn station(&self, key: &IdentityKey) -> Option<Station> {
        let session = self.registry.get(key);
        let state = self.shared.stations.get(key);
        let id = match (&session, &state) {
            (Some(session), _) => session.admission.identity.as_str().to_owned(),
            (None, Some(state)) => state.identity.clone(),
            (None, None) => return None,
        };
        let (registration, registration_decision) =
            state.map_or((None, None), |state| (state.registration, state.decision));
        Some(Station {
            id,
            connected: session.is_some(),
            session: session.as_deref().map(connected),
            registration,
            registration_decision,
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
