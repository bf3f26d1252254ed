//! The few metrics of the gateway that a report shows.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::http::{Http, HttpError};

/// Some metrics at one moment; of several gateways the sum, or the worst.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scrape {
    /// Open sessions.
    pub sessions: f64,
    /// Handshakes in progress.
    pub handshakes: f64,
    /// Events accepted but not yet durable.
    pub queue_records: f64,
    /// The bytes of these events.
    pub queue_bytes: f64,
    /// Events made durable since the gateway started.
    pub durable_total: f64,
    /// Events in the spool.
    pub spool_records: f64,
    /// Age of the oldest event that is not yet durable, in seconds; of several gateways the oldest.
    pub oldest_seconds: f64,
    /// How often a session stopped reading since the gateway started.
    pub reads_paused_total: f64,
    /// States of the bus, in alphabetical order; as a rule the one word `direct`.
    pub bus_states: BTreeSet<String>,
}

impl Scrape {
    /// Scrapes every gateway.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn of(gateways: &[Http]) -> Result<Self, HttpError> {
        let mut sum = Self::default();
        for gateway in gateways {
            sum.add(&String::from_utf8_lossy(&gateway.get("/metrics").await?));
        }
        Ok(sum)
    }

    /// Adds a page of metrics.
    fn add(&mut self, page: &str) {
        for line in page.lines() {
            let Some((sample, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let Some(name) = name.strip_prefix("ocpp_gateway_") else { continue };
            // The journal of station states is a bus, too; the one of interest is that of events.
            if name.starts_with("bus_") && !labels.contains(r#"bus="events""#) {
                continue;
            }
            match name {
                "sessions" => self.sessions += value,
                "handshakes_in_progress" => self.handshakes += value,
                "reads_paused_total" => self.reads_paused_total += value,
                "bus_queue_records" => self.queue_records += value,
                "bus_queue_bytes" => self.queue_bytes += value,
                "bus_durable_total" => self.durable_total += value,
                "bus_spool_records" => self.spool_records += value,
                "bus_oldest_unacknowledged_seconds" => self.oldest_seconds = self.oldest_seconds.max(value),
                "bus_state" if value > 0.0 => {
                    let state = labels.split_once(r#"state=""#).and_then(|(_, rest)| rest.split_once('"'));
                    self.bus_states.extend(state.map(|(state, _)| state.to_owned()));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_add_up() {
        let page = r#"# HELP x y
ocpp_gateway_sessions{version="1.6"} 60
ocpp_gateway_sessions{version="2.1"} 40
ocpp_gateway_sessions_opened_total{version="1.6"} 999
ocpp_gateway_bus_queue_records{bus="events"} 7
ocpp_gateway_bus_queue_records{bus="stations"} 1000
ocpp_gateway_bus_oldest_unacknowledged_seconds{bus="events"} 0.5
ocpp_gateway_bus_state{bus="events",state="direct"} 1
ocpp_gateway_bus_state{bus="events",state="spooling"} 0
ocpp_gateway_bus_state{bus="stations",state="holding"} 1
"#;
        let mut scrape = Scrape::default();
        scrape.add(page);
        scrape.add(&page.replace("direct", "holding").replace("0.5", "0.25"));
        assert_eq!((scrape.sessions, scrape.queue_records, scrape.oldest_seconds), (200.0, 14.0, 0.5));
        assert_eq!(scrape.bus_states.into_iter().collect::<Vec<_>>(), ["direct", "holding"]);
    }
}
