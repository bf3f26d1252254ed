//! `docs/metrics.md`: every metric that a gateway can have, in the sections of the template.
//!
//! A line of the template that is `- name` or `- name: note` becomes the metric's row. Type, labels and help text come from the
//! code, and so do a label's values where they are known from the start.

use std::collections::{BTreeMap, BTreeSet};

use ocpp_bus::Registrar;
use ocpp_bus::registrar::Family;

use crate::Failure;

const TEMPLATE: &str = include_str!("../metrics.md");
const PREFIX: &str = "ocpp_gateway_";
const HEAD: &str = "| name | type | labels | what |\n|---|---|---|---|\n";

/// The whole page. Fails if the template leaves out a metric, or names one that does not exist.
pub(crate) fn render() -> Result<String, Failure> {
    let registrar = ocpp_gateway::app::every_metric()?;
    let mut families: BTreeMap<String, Family> =
        registrar.families().into_iter().map(|family| (family.name.clone(), family)).collect();
    let values = label_values(&registrar);
    let mut page = String::new();
    let mut in_table = false;
    for line in TEMPLATE.lines() {
        let Some(entry) = line.strip_prefix("- ") else {
            in_table = false;
            page.push_str(line);
            page.push('\n');
            continue;
        };
        if !in_table {
            page.push_str(HEAD);
            in_table = true;
        }
        let (name, note) = entry.split_once(": ").unwrap_or((entry, ""));
        let family = families
            .remove(&format!("{PREFIX}{name}"))
            .ok_or_else(|| format!("the template names {name} twice, or it is no metric"))?;
        page.push_str(&row(name, &family, note, &values));
    }
    match families.into_keys().next() {
        Some(left) => Err(format!("the template leaves out {left}").into()),
        None => Ok(page),
    }
}

/// The values of each metric's labels, of the series that exist from the start.
type LabelValues = BTreeMap<(String, String), BTreeSet<String>>;

fn label_values(registrar: &Registrar) -> LabelValues {
    let mut values = LabelValues::new();
    for family in registrar.registry().gather() {
        for label in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let key = (family.name().to_owned(), label.name().to_owned());
            values.entry(key).or_default().insert(label.value().to_owned());
        }
    }
    values
}

fn row(name: &str, family: &Family, note: &str, values: &LabelValues) -> String {
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    let mut what = format!("{}.", family.help);
    for label in &family.labels {
        // The three buses are named once, above their table.
        if let Some(values) = values.get(&(family.name.clone(), label.clone())).filter(|_| label != "bus") {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            what.push_str(&format!(" `{label}` is one of {}.", values.join(", ")));
        }
    }
    if !note.is_empty() {
        what.push(' ');
        what.push_str(note);
    }
    format!("| `{name}` | {} | {} | {what} |\n", family.kind.as_str(), labels.join(", "))
}
