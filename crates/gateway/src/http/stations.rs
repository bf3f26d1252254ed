//! `/api/v1/stations`: which stations are known, which are connected, and what an operator decides about them.
//!
//! Owns the pages and their filters. Registration and tags are `stations.rs`'s, sessions the registry's.

mod shown;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, State};
use hyper::StatusCode;
use ocpp_bus::Journal;
use ocpp_protocol::{Identity, IdentityKey, Registration, Version};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use self::shown::{Station, TwinsShown, connected};
use super::document::Operation;
use super::extract::{FromQuery, Json, Query, RequestBody, Values};
use super::problem::Problem;
use crate::registry::Registry;
use crate::stations::{Stations, check_tags};
use crate::twins::Twins;
use ocpp_commands::CommandStore;
use ocpp_commands::nearest::did_you_mean;

const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// The stations that are known or connected.
pub(crate) struct Directory {
    pub(crate) registry: Arc<Registry>,
    pub(crate) stations: Arc<Stations>,
    /// Changes of stations are written here.
    pub(crate) journal: Journal,
    /// Identities that two devices use.
    pub(crate) twins: Arc<Twins>,
    /// `registration.max_stations`.
    pub(crate) max_stations: usize,
    /// Has the commands that are queued for stations.
    pub(crate) commands: Arc<CommandStore>,
}

/// Stations, in the order of their folded identities.
#[derive(Serialize, ToSchema)]
#[schema(as = StationPage)]
struct Page {
    /// Those of this page.
    stations: Vec<Station>,
    /// Give it as `after` for the next page; none on the last one.
    next: Option<String>,
}

/// How a station is to be registered.
#[derive(Deserialize, ToSchema)]
#[schema(as = RegistrationDecision)]
#[serde(deny_unknown_fields)]
struct Decision {
    /// `Accepted`, `Pending` or `Rejected`.
    #[schema(pattern = "^(Accepted|Pending|Rejected)$")]
    status: String,
}

impl RequestBody for Decision {
    const EXAMPLE: &'static str = r#"{"status":"Accepted"}"#;
}

/// The groups that a station belongs to.
#[derive(Deserialize, ToSchema)]
#[schema(as = StationTags)]
#[serde(deny_unknown_fields)]
struct Tags {
    /// At most 32, of 1 to 64 bytes each.
    #[schema(max_items = 32)]
    tags: BTreeSet<String>,
}

impl RequestBody for Tags {
    const EXAMPLE: &'static str = r#"{"tags":["depot"]}"#;
}

/// Which stations a page shows, and how many.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Stations on a page
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// `next` of the page before
    after: Option<String>,
    /// How the identity begins, in any case
    prefix: Option<String>,
    /// Only those that are connected, or only those that are not
    connected: Option<bool>,
    /// Only those connected with this OCPP version
    version: Option<String>,
    /// Only those that carry this tag
    tag: Option<String>,
}

impl FromQuery for Filter {
    fn from_query(mut values: Values) -> Result<Self, Problem> {
        Ok(Self {
            limit: values.number("limit", 1..=LARGEST_PAGE)?,
            after: values.text("after"),
            prefix: values.text("prefix"),
            connected: values.flag("connected")?,
            version: version(values.text("version"))?,
            tag: values.text("tag"),
        })
    }
}

/// A version by its name: a misspelt one would show nothing.
fn version(name: Option<String>) -> Result<Option<String>, Problem> {
    let names = Version::ALL.map(Version::as_str);
    match name {
        Some(name) if !names.contains(&name.as_str()) => {
            Err(Problem::bad_request(format!("version must be one of {}", names.join(", "))))
        }
        name => Ok(name),
    }
}

impl Filter {
    fn passes(&self, station: &Station) -> bool {
        let version = || station.session.as_ref().map(|session| session.ocpp_version);
        self.connected.is_none_or(|wanted| wanted == station.connected)
            && self.tag.as_ref().is_none_or(|tag| station.tags.contains(tag))
            && self.version.as_ref().is_none_or(|wanted| version() == Some(wanted))
    }
}

impl Directory {
    pub(super) fn operations(self) -> Vec<Operation> {
        let directory = Arc::new(self);
        [
            routes!(list_stations),
            routes!(show_station),
            routes!(decide_registration),
            routes!(tag_station),
            routes!(forget_station),
        ]
        .map(|operation| operation.with_state(Arc::clone(&directory)))
        .into()
    }

    fn page(&self, filter: &Filter) -> Page {
        let limit = filter.limit.unwrap_or(DEFAULT_PAGE);
        let after = filter.after.as_deref().map(IdentityKey::of);
        let prefix = filter.prefix.as_deref().map(IdentityKey::of);
        let mut keys: BTreeSet<IdentityKey> = self.stations.keys().into_iter().collect();
        keys.extend(self.registry.all().iter().map(|session| session.admission.identity.folded()));
        let mut matching = keys
            .into_iter()
            .filter(|key| after.as_ref().is_none_or(|after| key > after))
            .filter(|key| prefix.as_ref().is_none_or(|prefix| key.as_str().starts_with(prefix.as_str())))
            .filter_map(|key| self.station(&key))
            .filter(|station| filter.passes(station));
        let stations: Vec<Station> = matching.by_ref().take(limit).collect();
        let next = matching.next().and_then(|_| stations.last().map(|last| last.id.clone()));
        Page { stations, next }
    }

    fn station(&self, key: &IdentityKey) -> Option<Station> {
        let session = self.registry.get(key);
        let state = self.stations.get(key);
        let id = match (&session, &state) {
            (Some(session), _) => session.admission.identity.as_str().to_owned(),
            (None, Some(state)) => state.identity.clone(),
            (None, None) => return None,
        };
        let (registration, registration_decision, model, tags) = state
            .map_or_else(Default::default, |state| {
                (state.registration, state.decision, state.model, state.tags)
            });
        let (vendor, model) = model.map(|model| (model.vendor, model.model)).unzip();
        Some(Station {
            id,
            connected: session.is_some(),
            session: session.as_deref().map(connected),
            registration,
            registration_decision,
            vendor,
            model,
            tags,
            commands_kept: self.commands.queued_for(key),
            twins: self.twins.of(key, Instant::now()).map(TwinsShown::from),
        })
    }

    fn show(&self, id: &str) -> Result<Json<Station>, Problem> {
        self.station(&IdentityKey::of(id)).map(Json).ok_or_else(|| {
            let meant = did_you_mean(self.stations.similar(id));
            Problem::not_found(format!("no station {id:?} is known{meant}"))
        })
    }
}

/// The identity of a station that an operator may change: one that is known, or for which there is room.
pub(super) fn changeable(stations: &Stations, max_stations: usize, id: &str) -> Result<Identity, Problem> {
    let identity = Identity::parse(id).map_err(|error| Problem::bad_request(error.to_string()))?;
    if !stations.knows(&identity.folded()) && stations.len() >= max_stations {
        return Err(Problem::conflict("too many stations", "registration.max_stations is reached"));
    }
    Ok(identity)
}

/// Stations that are known or connected, page by page.
///
/// In the order of their identities, folded to one case.
#[utoipa::path(get, path = "/api/v1/stations", tag = "stations",
    params(Filter),
    responses(
        (status = 200, description = "A page", body = Page),
        (status = 400, description = "A parameter is wrong or unknown"),
    ))]
async fn list_stations(State(directory): State<Arc<Directory>>, Query(filter): Query<Filter>) -> Json<Page> {
    Json(directory.page(&filter))
}

/// One station.
#[utoipa::path(get, path = "/api/v1/stations/{id}", tag = "stations",
    params(("id" = String, Path, description = "Its identity, in any case")),
    responses(
        (status = 200, description = "It is known or connected", body = Station),
        (status = 404, description = "It is neither"),
    ))]
async fn show_station(
    State(directory): State<Arc<Directory>>,
    Path(id): Path<String>,
) -> Result<Json<Station>, Problem> {
    directory.show(&id)
}

/// Decides about a station's registration.
///
/// It counts at once: the station's CALLs are served or refused accordingly, and its BootNotifications are answered so. A connected
/// station that was never registered, or was told Pending, is asked to boot, unless `registration.trigger_boot` is off. Durable when
/// it is answered.
#[utoipa::path(put, path = "/api/v1/stations/{id}/registration", tag = "stations",
    params(("id" = String, Path, description = "Its identity")),
    request_body = Decision,
    responses(
        (status = 200, description = "The station, as it is now", body = Station),
        (status = 400, description = "No such decision, or no such identity"),
        (status = 409, description = "registration.max_stations is reached"),
    ))]
async fn decide_registration(
    State(directory): State<Arc<Directory>>,
    Path(id): Path<String>,
    Json(decision): Json<Decision>,
) -> Result<Json<Station>, Problem> {
    let status = Registration::parse(&decision.status)
        .ok_or_else(|| Problem::bad_request("status must be Accepted, Pending or Rejected"))?;
    let identity = changeable(&directory.stations, directory.max_stations, &id)?;
    directory.journal.store(directory.stations.decide(&identity, status)).await;
    if let Some(session) = directory.registry.get(&identity.folded()) {
        session.inbox.decide();
    }
    directory.show(&id)
}

/// Puts a station into groups: these tags and no others.
///
/// Durable when it is answered. A listener's own tags are added again at the station's next connection.
#[utoipa::path(put, path = "/api/v1/stations/{id}/tags", tag = "stations",
    params(("id" = String, Path, description = "Its identity")),
    request_body = Tags,
    responses(
        (status = 200, description = "The station, as it is now", body = Station),
        (status = 400, description = "Not tags, or no such identity"),
        (status = 409, description = "registration.max_stations is reached"),
    ))]
async fn tag_station(
    State(directory): State<Arc<Directory>>,
    Path(id): Path<String>,
    Json(Tags { tags }): Json<Tags>,
) -> Result<Json<Station>, Problem> {
    check_tags(&tags).map_err(Problem::bad_request)?;
    let identity = changeable(&directory.stations, directory.max_stations, &id)?;
    directory.journal.store(directory.stations.tag(&identity, tags)).await;
    if let Some(session) = directory.registry.get(&identity.folded()) {
        session.refresh_settings();
    }
    directory.show(&id)
}

/// Forgets a station that is not connected: its registration, tags, settings and transaction ids.
///
/// Durable when it is answered. A station that comes back later is a new one.
#[utoipa::path(delete, path = "/api/v1/stations/{id}", tag = "stations",
    params(("id" = String, Path, description = "Its identity, in any case")),
    responses(
        (status = 204, description = "It is forgotten"),
        (status = 404, description = "It is not known"),
        (status = 409, description = "It is connected"),
    ))]
async fn forget_station(
    State(directory): State<Arc<Directory>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let key = IdentityKey::of(&id);
    if directory.registry.holder(&key).is_some() {
        return Err(Problem::conflict("the station is connected", "disconnect it first"));
    }
    let forgotten = directory.stations.forget(&key);
    let record = forgotten.ok_or_else(|| Problem::not_found(format!("no station {id:?} is known")))?;
    directory.journal.store(record).await;
    tracing::info!(station = id, "station forgotten");
    Ok(StatusCode::NO_CONTENT)
}
