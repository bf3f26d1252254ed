//! Options of validation: what is done about payloads that violate their schemas, and which deviations are let through.
//!
//! Owns the keys and the words of lists, which the rules for single stations share. The checks themselves are the protocol crate's,
//! what is done about them the session's and the dispatcher's.

use ocpp_options::{Problems, word, words, words_of};
use ocpp_protocol::{Action, ActionSet, IdRules, Tolerance};
use ocpp_station::options::{IdLeniency, Leniency, Validation, ValidationMode};
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Whether payloads are checked against the official schemas. The envelope of a message always is, and so are the answers of
/// backends to the CALLs of stations: one that violates its schema is refused.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct ValidationOptions {
    /// What is done about messages of stations that violate their schemas. They are counted
    /// (`ocpp_gateway_payload_violations_total`), and their events say how (`violation`). A CALL that is refused is answered with
    /// CALLERROR. The answer to a command is refused in OCPP 2.1 only, with CALLRESULTERROR, and reaches the backend all the same.
    #[serde(deserialize_with = "word")]
    pub mode: ValidationMode,
    /// What is done about commands that violate the schema of their action in the station's version. They are counted
    /// (`ocpp_gateway_command_violations_total`); one that is refused ends as `invalid`, and its error names the member.
    #[serde(deserialize_with = "word")]
    pub commands: ValidationMode,
    /// Deviations of stations that are no reason to refuse a message. They are counted (`ocpp_gateway_leniencies_total`), and what
    /// reaches the events stays what the station sent.
    #[serde(deserialize_with = "words_of")]
    pub tolerate: Vec<Leniency>,
    /// Actions of which no message and no command is refused: `enforce` is as `warn` for them. By default those that report
    /// transactions, which a station would discard after a few refusals.
    #[schemars(with = "Vec<String>")]
    pub exempt: ActionNames,
    /// Message ids of stations that are read besides those of the specification, whatever the mode. They are counted
    /// (`ocpp_gateway_leniencies_total`).
    #[serde(deserialize_with = "words_of")]
    pub message_ids: Vec<IdLeniency>,
    /// Rows of `GET /api/v1/deviations`. Beyond, the row with the lowest count makes way.
    #[schemars(extend("x-tuning" = true))]
    pub report_rows: usize,
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self {
            mode: ValidationMode::Off,
            commands: ValidationMode::Enforce,
            tolerate: Vec::new(),
            exempt: ActionNames::transactions(),
            message_ids: Vec::new(),
            report_rows: 1000,
        }
    }
}

impl ValidationOptions {
    /// The same as sessions need it.
    pub fn rules(&self) -> Validation {
        Validation {
            mode: self.mode,
            commands: self.commands,
            tolerate: tolerance(&self.tolerate),
            exempt: self.exempt.0,
            message_ids: id_rules(&self.message_ids),
        }
    }

    /// What is wrong with these values.
    pub fn check(&self, problems: &mut Problems) {
        problems.demand_count("validation.report_rows", self.report_rows);
    }
}

/// What these words let through.
pub fn tolerance(leniencies: &[Leniency]) -> Tolerance {
    leniencies.iter().flat_map(|leniency| leniency.kinds()).copied().collect()
}

/// The words that let this through.
pub fn leniencies(tolerance: Tolerance) -> Vec<Leniency> {
    let is_tolerated = |one: &Leniency| one.kinds().iter().all(|kind| tolerance.contains(*kind));
    Leniency::ALL.into_iter().filter(is_tolerated).collect()
}

/// Which ids these words let through.
pub fn id_rules(leniencies: &[IdLeniency]) -> IdRules {
    IdRules {
        long: leniencies.contains(&IdLeniency::Long),
        numeric: leniencies.contains(&IdLeniency::Numeric),
    }
}

/// The words that let these ids through.
pub fn id_leniencies(ids: IdRules) -> Vec<IdLeniency> {
    let all = [(ids.long, IdLeniency::Long), (ids.numeric, IdLeniency::Numeric)];
    all.into_iter().filter_map(|(is_on, word)| is_on.then_some(word)).collect()
}

/// Actions, written as a list of their names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionNames(pub ActionSet);

impl ActionNames {
    fn transactions() -> Self {
        let names = ["MeterValues", "StartTransaction", "StopTransaction", "TransactionEvent"];
        Self(names.into_iter().filter_map(Action::find).collect())
    }
}

impl<'de> Deserialize<'de> for ActionNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let find = |name: String| {
            Action::find(&name).ok_or_else(|| D::Error::custom(format!("{name:?} is not an OCPP action")))
        };
        words(deserializer)?
            .into_iter()
            .filter(|name| !name.is_empty())
            .map(find)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Serialize for ActionNames {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = Action::all().iter().filter(|action| self.0.contains(action)).map(|action| action.name);
        serializer.collect_seq(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_they_are_read() {
        for leniency in Leniency::ALL {
            assert_eq!(leniencies(tolerance(&[leniency])), [leniency]);
        }
        assert_eq!(leniencies(tolerance(&Leniency::ALL)), Leniency::ALL);
        for ids in [
            vec![],
            vec![IdLeniency::Long],
            vec![IdLeniency::Numeric],
            vec![IdLeniency::Long, IdLeniency::Numeric],
        ] {
            assert_eq!(id_leniencies(id_rules(&ids)), ids);
        }
        let names = serde_json::to_value(ActionNames::transactions()).unwrap();
        assert_eq!(
            names,
            serde_json::json!(["MeterValues", "StartTransaction", "StopTransaction", "TransactionEvent"])
        );
        let read: ActionNames = serde_json::from_value(serde_json::json!("Reset, MeterValues")).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::json!(["MeterValues", "Reset"]));
        let error =
            serde_json::from_value::<ActionNames>(serde_json::json!(["Rset"])).unwrap_err().to_string();
        assert!(error.contains("Rset"), "{error}");
    }

    #[test]
    fn a_word_that_is_unknown_is_named_with_those_that_are_known() {
        let options = |json| serde_json::from_value::<ValidationOptions>(json);
        let error =
            options(serde_json::json!({"tolerate": ["longStrings", "everything"]})).unwrap_err().to_string();
        assert!(error.contains("everything") && error.contains("singleForList"), "{error}");
        let read = options(serde_json::json!({"tolerate": "nulls,times", "message_ids": ""})).unwrap();
        assert_eq!((read.tolerate, read.message_ids), (vec![Leniency::Nulls, Leniency::Times], vec![]));
    }
}
