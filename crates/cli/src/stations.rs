//! `ocpp-gateway stations`: lists the stations that the gateway knows, as a table or as lines of JSON.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Failure;
use super::http::{Api, with_query};
use super::output::{Output, plain};

/// The largest page that the gateway serves.
const PAGE: &str = "1000";

/// The options of `stations`.
#[derive(Args)]
pub struct Options {
    /// Only those that are connected.
    #[arg(long)]
    connected: bool,
    /// Only those that are connected with this OCPP version: 1.6, 2.0.1 or 2.1.
    #[arg(long, value_name = "OCPP-VERSION")]
    version: Option<String>,
    /// Only those whose identity begins so, in any case.
    #[arg(long)]
    prefix: Option<String>,
    /// One JSON object a line, as the gateway tells it.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Page {
    stations: Vec<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Station {
    id: String,
    connected: bool,
    ocpp_version: Option<String>,
    connected_at: Option<String>,
    silent_ms: Option<u64>,
    registration: Option<String>,
    messages_in: Option<u64>,
    messages_out: Option<u64>,
}

type Row = [String; 7];

pub(super) async fn run(api: &Api, options: &Options, mut output: Output) -> Result<u8, Failure> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    let mut after: Option<String> = None;
    loop {
        let parameters = [
            ("limit", Some(PAGE)),
            ("connected", options.connected.then_some("true")),
            ("version", options.version.as_deref()),
            ("prefix", options.prefix.as_deref()),
            ("after", after.as_deref()),
        ];
        let body = api.get(&with_query("/api/v1/stations", &parameters)).await?;
        let page: Page =
            serde_json::from_slice(&body).map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        for station in &page.stations {
            if options.json {
                output.line(station.get())?;
            } else {
                let station = serde_json::from_str(station.get())
                    .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
                rows.push(row(station));
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if !options.json {
        for line in table(&rows) {
            output.line(&line)?;
        }
    }
    Ok(0)
}

fn row(station: Station) -> Row {
    let absent = || "-".to_owned();
    let messages = match (station.messages_in, station.messages_out) {
        (Some(from), Some(to)) => format!("{from} in, {to} out"),
        _ => absent(),
    };
    [
        plain(&station.id).into_owned(),
        if station.connected { "yes" } else { "no" }.to_owned(),
        station.ocpp_version.unwrap_or_else(absent),
        station.connected_at.unwrap_or_else(absent),
        station.silent_ms.map_or_else(absent, ago),
        station.registration.unwrap_or_else(absent),
        messages,
    ]
}

fn ago(milliseconds: u64) -> String {
    let seconds = Duration::from_secs(milliseconds / 1000);
    if seconds.is_zero() { "now".to_owned() } else { format!("{} ago", humantime::format_duration(seconds)) }
}

/// Aligns the columns, with two spaces between them and none at the end of a line.
fn table(rows: &[Row]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

const HEADINGS: [&str; 7] = ["ID", "CONNECTED", "VERSION", "SINCE", "LAST SEEN", "REGISTRATION", "MESSAGES"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let stations = [
            r#"{"id":"CP-001","connected":true,"ocppVersion":"2.0.1","connectedAt":"2026-11-20T13:50:01.123Z",
                "silentMs":65400,"registration":"Accepted","messagesIn":12,"messagesOut":11,"more":1}"#,
            r#"{"id":"Zürich-2","connected":false,"registration":null}"#,
        ];
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(stations.map(|text| row(serde_json::from_str(text).unwrap())));
        let expected = "\
ID        CONNECTED  VERSION  SINCE                     LAST SEEN  REGISTRATION  MESSAGES
CP-001    yes        2.0.1    2026-11-20T13:50:01.123Z  1m 5s ago  Accepted      12 in, 11 out
Zürich-2  no         -        -                         -          -             -";
        assert_eq!(table(&rows).join("\n"), expected);
    }

    #[test]
    fn less_than_a_second_ago_is_now() {
        assert_eq!(ago(999), "now");
        assert_eq!(ago(3_600_000), "1h ago");
    }
}
