//! Reading back what the stations' journal says of sessions. Owns what follows from the order of its records.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ocpp_bus::{Record, RecordKind};
use ocpp_protocol::{Identity, Version};
use ocpp_station::SessionId;
use ocpp_station::time::unix_millis;
use serde::Deserialize;

use super::{LostSession, Note, OpenSessions};
use crate::kinds;

/// What the records so far leave open.
#[derive(Debug, Default)]
pub struct Replay {
    open: BTreeMap<SessionId, Found>,
    /// The time of the latest record: the gateway was alive then.
    alive_ms: u64,
}

#[derive(Debug)]
struct Found {
    identity: Identity,
    version: Version,
    connected_ms: u64,
    /// When it was lost, if a start has noted that.
    lost_ms: Option<u64>,
    opened: Option<Record>,
}

/// What is needed of a `connected` event.
#[derive(Deserialize)]
struct Connected {
    data: ConnectedData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConnectedData {
    session_id: String,
    ocpp_version: String,
}

impl Replay {
    /// Takes the next record of the journal, whatever it is about.
    pub fn take(&mut self, stored: ocpp_log::Record) {
        self.alive_ms = self.alive_ms.max(stored.time_ms);
        let understood = match RecordKind(stored.kind) {
            kinds::SESSION_OPENED => self.opened(stored).is_some(),
            kinds::SESSION_NOTE => self.noted(&stored).is_some(),
            _ => true,
        };
        if !understood {
            tracing::error!("what the journal says of a session is not readable");
        }
    }

    /// The sessions that are open when there are no more records: this process has lost them.
    pub fn finish(self, now: SystemTime) -> OpenSessions {
        // The clock may have been set back.
        let lost_ms = self.alive_ms.min(unix_millis(now));
        let lost = self.open.into_iter().map(|(id, found)| {
            let Found { identity, version, connected_ms, opened, .. } = found;
            let lost_ms = found.lost_ms.unwrap_or(lost_ms);
            (id, Arc::new(LostSession { id, identity, version, connected_ms, lost_ms, opened }))
        });
        OpenSessions { lost: Mutex::new(lost.collect()), lost_ms, ..OpenSessions::default() }
    }

    fn opened(&mut self, stored: ocpp_log::Record) -> Option<()> {
        let Connected { data } = serde_json::from_slice(&stored.value).ok()?;
        let opened = Record {
            kind: kinds::SESSION_OPENED,
            time_ms: stored.time_ms,
            key: stored.key.into(),
            value: stored.value,
        };
        self.found(&data.session_id, &data.ocpp_version, stored.time_ms, &opened.key.clone(), Some(opened))
    }

    fn noted(&mut self, stored: &ocpp_log::Record) -> Option<()> {
        match serde_json::from_slice(&stored.value).ok()? {
            Note::Open { session, version, connected_ms } => {
                self.found(&session, &version, connected_ms, &stored.key, None)?;
            }
            Note::Confirmed(sessions) => {
                for session in sessions {
                    if let Some(found) = self.open.get_mut(&SessionId::parse(&session)?) {
                        found.opened = None;
                    }
                }
            }
            Note::Ended(sessions) => {
                for session in sessions {
                    self.open.remove(&SessionId::parse(&session)?);
                }
            }
            Note::Lost(at) => {
                for found in self.open.values_mut() {
                    found.lost_ms.get_or_insert(at);
                }
            }
        }
        Some(())
    }

    fn found(
        &mut self,
        session: &str,
        version: &str,
        connected_ms: u64,
        identity: &str,
        opened: Option<Record>,
    ) -> Option<()> {
        let session = SessionId::parse(session)?;
        let identity = Identity::parse(identity).ok()?;
        let version = Version::ALL.into_iter().find(|known| known.as_str() == version)?;
        self.open.insert(session, Found { identity, version, connected_ms, lost_ms: None, opened });
        Some(())
    }
}
