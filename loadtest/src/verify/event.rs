//! What the verification reads of an event: its station, and which CALL it reports.

use std::borrow::Cow;

use serde::Deserialize;

/// One event of the bus, borrowed from its text.
#[derive(Debug, Deserialize)]
pub struct Event<'a> {
    /// Its id, the same when it is delivered again.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `ocpp.message.received` and others.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// The station.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// What the event reports.
    #[serde(borrow)]
    pub data: Data<'a>,
}

/// The members of an event's data that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data<'a> {
    /// The session.
    #[serde(borrow)]
    pub session_id: Option<Cow<'a, str>>,
    /// `CALL` and others.
    #[serde(borrow)]
    pub message_type: Option<Cow<'a, str>>,
    /// The id that the station chose.
    #[serde(borrow)]
    pub message_id: Option<Cow<'a, str>>,
}

impl<'a> Event<'a> {
    /// Parses an event.
    ///
    /// # Errors
    /// When the text is not an event.
    pub fn parse(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Returns the message id if this event reports a CALL from a station.
    pub fn call(&self) -> Option<&str> {
        let is_call =
            self.kind == "ocpp.message.received" && self.data.message_type.as_deref() == Some("CALL");
        self.data.message_id.as_deref().filter(|_| is_call)
    }

    /// Returns the session as a number that grows with each connection; 0 if there is none.
    pub fn session(&self) -> u128 {
        let id = self.data.session_id.as_deref().unwrap_or_default();
        id.bytes()
            .filter_map(|byte| char::from(byte).to_digit(16))
            .fold(0, |sum, digit| sum.wrapping_shl(4) | u128::from(digit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_and_nothing_else() {
        let text = br#"{"specversion":"1.0","id":"e1","source":"/g","type":"ocpp.message.received","subject":"LT-000001","time":"t","datacontenttype":"application/json","data":{"sessionId":"0199aaaa-0000-7000-8000-00000000000f","ocppVersion":"1.6","messageType":"CALL","messageId":"r-42","action":"Heartbeat","payload":{"messageId":"no"},"answeredBy":"gateway"}}"#;
        let event = Event::parse(text).unwrap();
        assert_eq!(event.call(), Some("r-42"));
        assert_eq!(event.session(), 0x0199_aaaa_0000_7000_8000_0000_0000_000f);
        let text = br#"{"id":"e1","type":"ocpp.message.sent","subject":"x","data":{"messageType":"CALL","messageId":"r-42"}}"#;
        assert_eq!(Event::parse(text).unwrap().call(), None);
        let text =
            br#"{"id":"e1","type":"ocpp.station.rejected","subject":"x","data":{"reason":"notFound"}}"#;
        assert_eq!(Event::parse(text).unwrap().call(), None);
        assert!(Event::parse(b"{}").is_err());
    }
}
