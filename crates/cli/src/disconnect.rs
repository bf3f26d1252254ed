//! `ocpp-gateway disconnect`: asks the gateway to close a station's connection.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::http::{Api, encoded};
use super::output::{Output, plain};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The options of `disconnect`.
#[derive(Args)]
pub struct Options {
    /// The station's identity.
    station: String,
    /// Why, for the event and the log.
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    /// Only this session; a station that has come back since is left alone.
    #[arg(long = "session", value_name = "SESSION-ID")]
    session_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DisconnectRequest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DisconnectResponse {
    station_id: String,
    session_id: String,
}

pub(super) async fn run(api: &Api, options: &Options, mut output: Output) -> Result<u8, Failure> {
    let request =
        DisconnectRequest { reason: options.reason.as_deref(), session_id: options.session_id.as_deref() };
    let body = serde_json::to_vec(&request).map_err(|error| Failure::Usage(error.to_string()))?;
    let path = format!("/api/v1/stations/{}/disconnect", encoded(&options.station));
    let (_, answer) = api.post(&path, body, TIMEOUT).await?;
    let response: DisconnectResponse =
        serde_json::from_slice(&answer).map_err(|error| Failure::NotUnderstood(error.to_string()))?;
    output.line(&format!(
        "{}: session {} is asked to end",
        plain(&response.station_id),
        response.session_id
    ))?;
    Ok(0)
}
