//! `/api/v1/stations/{id}/settings` and `/api/v1/rules`: what holds for a station, and why.
//!
//! Owns the pages. Which source wins is `settings.rs`'s; what is set for a station alone is kept in `stations.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use ocpp_bus::Journal;
use ocpp_options::Problems;
use ocpp_protocol::{Identity, IdentityKey};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouterExt;
use utoipa_axum::routes;

use super::document::Operation;
use super::extract::{Json, RequestBody};
use super::problem::Problem;
use super::stations::changeable;
use crate::registry::Registry;
use crate::settings::file::Rule;
use crate::settings::overrides::Overrides;
use crate::settings::{ListenerTags, Resolver, Source};
use crate::stations::Stations;

/// What holds for whom.
pub(crate) struct Settings {
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) stations: Arc<Stations>,
    /// Changes of stations are written here.
    pub(crate) journal: Journal,
    /// `registration.max_stations`.
    pub(crate) max_stations: usize,
    /// Each listener's name and tags; a station that is away is shown as it would be on the first.
    pub(crate) listeners: BTreeMap<String, Arc<BTreeSet<String>>>,
}

/// What holds for a station.
#[derive(Serialize, ToSchema)]
#[schema(as = EffectiveSettings)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// The listener that it came to, or would come to.
    listener: String,
    /// What is set for it alone.
    own: Overrides,
    /// Everything that holds for it, by name.
    effective: BTreeMap<String, Held>,
}

/// A setting that holds.
#[derive(Serialize, ToSchema)]
#[schema(as = EffectiveSetting)]
#[serde(rename_all = "camelCase")]
struct Held {
    /// Its value, as in the configuration.
    value: Value,
    /// Where it comes from: `configuration`, `rule N` of the rules file (the first is 1), or `station`.
    source: String,
}

/// The rules in force.
#[derive(Serialize, ToSchema)]
#[schema(as = SettingsRules)]
#[serde(rename_all = "camelCase")]
struct Rules {
    /// When they were read.
    #[schema(format = DateTime)]
    read_at: String,
    /// In the order of the file; the later wins.
    rules: Vec<Rule>,
}

impl Settings {
    pub(super) fn operations(self) -> Vec<Operation> {
        let settings = Arc::new(self);
        [routes!(show_settings), routes!(change_settings), routes!(show_rules)]
            .map(|operation| operation.with_state(Arc::clone(&settings)))
            .into()
    }

    fn show(&self, key: &IdentityKey) -> Shown {
        let session = self.registry.get(key);
        let first = self.listeners.first_key_value();
        let listener = match (&session, first) {
            (Some(session), _) => session.listener_tags(),
            (None, Some((name, tags))) => ListenerTags { name, tags },
            (None, None) => ListenerTags { name: "", tags: &BTreeSet::new() },
        };
        let effective = self
            .stations
            .explain_settings(&self.resolver, &listener, key)
            .into_iter()
            .map(|(name, value, source)| (name, Held { value, source: word(&source) }))
            .collect();
        Shown {
            listener: listener.name.to_owned(),
            own: self.stations.own_settings(key).unwrap_or_default(),
            effective,
        }
    }
}

fn word(source: &Source) -> String {
    match source {
        Source::Configuration => "configuration".to_owned(),
        Source::Rule(number) => format!("rule {number}"),
        Source::Station => "station".to_owned(),
    }
}

impl RequestBody for Overrides {
    const EXAMPLE: &'static str = r#"{"validation":"warn"}"#;
}

/// What holds for a station, and where each value comes from.
#[utoipa::path(get, path = "/api/v1/stations/{id}/settings", tag = "stations",
    params(("id" = String, Path, description = "Its identity, in any case")),
    responses(
        (status = 200, description = "The settings, also of a station that was never seen", body = Shown),
        (status = 400, description = "No such identity"),
    ))]
async fn show_settings(
    State(settings): State<Arc<Settings>>,
    Path(id): Path<String>,
) -> Result<Json<Shown>, Problem> {
    let identity = Identity::parse(&id).map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(Json(settings.show(&identity.folded())))
}

/// Sets what holds for one station alone: these settings and no others.
///
/// Durable when it is answered, and in force at once if the station is connected, except for what concerns the handshake. `{}` leaves
/// the station with what holds for all.
#[utoipa::path(put, path = "/api/v1/stations/{id}/settings", tag = "stations",
    params(("id" = String, Path, description = "Its identity")),
    request_body = Overrides,
    responses(
        (status = 200, description = "The settings, as they are now", body = Shown),
        (status = 400, description = "Not settings, or no such identity"),
        (status = 409, description = "registration.max_stations is reached"),
    ))]
async fn change_settings(
    State(settings): State<Arc<Settings>>,
    Path(id): Path<String>,
    Json(own): Json<Overrides>,
) -> Result<Json<Shown>, Problem> {
    let mut problems = Problems::default();
    own.check(&mut problems);
    let problems = problems.into_vec();
    if !problems.is_empty() {
        return Err(Problem::bad_request(problems.join("; ")));
    }
    let identity = changeable(&settings.stations, settings.max_stations, &id)?;
    let key = identity.folded();
    settings.journal.store(settings.stations.set(&identity, &own)).await;
    if let Some(session) = settings.registry.get(&key) {
        session.refresh_settings();
    }
    tracing::info!(station = %identity, "settings of a station changed");
    Ok(Json(settings.show(&key)))
}

/// The rules in force, from the rules file.
#[utoipa::path(get, path = "/api/v1/rules", tag = "stations",
    responses((status = 200, description = "The rules, in their order", body = Rules)))]
async fn show_rules(State(settings): State<Arc<Settings>>) -> Json<Rules> {
    let in_force = settings.resolver.in_force();
    Json(Rules { read_at: ocpp_station::envelope::rfc3339(in_force.read_at), rules: in_force.rules.clone() })
}
