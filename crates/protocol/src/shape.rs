//! Whether the payload of a request or response satisfies the official schema.
//!
//! Owns the check. The schemas are data (`data/*.shapes`, read by `notation`). The caller decides whether a violation is
//! ignored, reported or refused.
//!
//! A payload of `null` counts as the empty object: the specification allows both as JSON, and it is unambiguous.

mod notation;
mod violation;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::action::Action;
use crate::date_time::{TimeForm, form_of};
use crate::version::Version;
use notation::{Field, Kind, Range, Shapes};
pub use violation::{Findings, Tolerance, Violation, ViolationKind};

/// Checks the payload of a CALL or SEND strictly. Every payload passes if the version does not have the action.
///
/// # Errors
/// The first [`Violation`]: known members in the order of the schema, then unexpected ones.
pub fn validate_request(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
) -> Result<(), Violation> {
    check_request(version, action, payload, Tolerance::NONE).into_result()
}

/// Checks the payload of a CALLRESULT to this action; otherwise like [`validate_request`].
///
/// # Errors
/// The first [`Violation`].
pub fn validate_response(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
) -> Result<(), Violation> {
    check_response(version, action, payload, Tolerance::NONE).into_result()
}

/// Looks for everything that is wrong with the payload of a CALL or SEND. Nothing is if the version does not have the action.
pub fn check_request(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
    tolerance: Tolerance,
) -> Findings {
    let shapes = Shapes::of(version);
    check(shapes, shapes.requests.get(action.name), payload, tolerance)
}

/// The words that this place in a CALLRESULT may have; none if there is no such place, or it has no fixed words.
pub(crate) fn response_words(
    version: Version,
    action: &'static Action,
    place: &[&str],
) -> &'static [&'static str] {
    let shapes = Shapes::of(version);
    shapes.responses.get(action.name).map_or(&[], |fields| shapes.words(fields, place))
}

/// The same for the payload of a CALLRESULT to this action.
pub fn check_response(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
    tolerance: Tolerance,
) -> Findings {
    let shapes = Shapes::of(version);
    check(shapes, shapes.responses.get(action.name), payload, tolerance)
}

fn check(
    shapes: &'static Shapes,
    fields: Option<&'static Vec<Field>>,
    payload: &RawValue,
    tolerance: Tolerance,
) -> Findings {
    let mut check = Check { shapes, tolerance, findings: Findings::default() };
    if let Some(fields) = fields {
        match serde_json::from_str(payload.get()) {
            Ok(Value::Object(object)) => check.object(&object, fields, Path::Root),
            Ok(Value::Null) => check.object(&Map::new(), fields, Path::Root),
            Ok(_) => check.note(ViolationKind::WrongType, Path::Root, "not an object"),
            Err(_) => check.note(
                ViolationKind::Unreadable,
                Path::Root,
                "unreadable: nested too deeply, a number too large, or text that is not Unicode",
            ),
        }
    }
    check.findings
}

/// A check under way.
///
/// It descends along the shapes, which are not circular, and never along the payload alone: what no shape describes is
/// noted or skipped, however deep it is nested.
struct Check {
    shapes: &'static Shapes,
    tolerance: Tolerance,
    findings: Findings,
}

impl Check {
    fn note(&mut self, kind: ViolationKind, path: Path<'_>, description: &str) {
        self.note_with(kind, path, || description.to_owned());
    }

    fn note_with(&mut self, kind: ViolationKind, path: Path<'_>, description: impl FnOnce() -> String) {
        let is_tolerated = self.tolerance.contains(kind);
        self.findings.note(kind, is_tolerated, || path.spelled(), description);
    }

    fn object(&mut self, object: &Map<String, Value>, fields: &'static [Field], path: Path<'_>) {
        for field in fields {
            let path = Path::Field(&path, field.name);
            match object.get(field.name) {
                None if field.required => self.note(ViolationKind::Missing, path, "missing"),
                None => {}
                Some(Value::Null) if matches!(field.kind, Kind::Any) => {}
                Some(Value::Null) if field.required => {
                    self.note(ViolationKind::Missing, path, "missing: null");
                }
                Some(Value::Null) => self.note(ViolationKind::Null, path, "null"),
                Some(value) => self.value(value, &field.kind, path),
            }
        }
        for (name, value) in object {
            let path = Path::Field(&path, name);
            if self.shapes.implies_custom_data && name == "customData" {
                self.custom_data(value, path);
            } else if !fields.iter().any(|field| field.name == name) {
                self.note(ViolationKind::Additional, path, "not in the schema");
            }
        }
    }

    fn value(&mut self, value: &Value, kind: &'static Kind, path: Path<'_>) {
        match kind {
            Kind::Any => {}
            Kind::Text { max } => self.text(value, *max, path),
            Kind::Time => self.time(value, path),
            Kind::Integer(range) => self.integer(value, range, path),
            Kind::Number(range) => {
                if let Some(number) = self.number(value, path) {
                    self.range(number, range, path);
                }
            }
            Kind::Tenths => self.tenths(value, path),
            Kind::Boolean if value.is_boolean() => {}
            Kind::Boolean => self.note(ViolationKind::WrongType, path, "neither true nor false"),
            Kind::OneOf(words) => match value.as_str() {
                Some(text) if words.contains(&text) => {}
                Some(text) => self.note_with(ViolationKind::UnknownValue, path, || {
                    format!("{} is not one of the allowed values", quoted(text))
                }),
                None => self.note(ViolationKind::WrongType, path, "not text"),
            },
            Kind::List { min, max, of } => self.list(value, (*min, *max), of, path),
            Kind::Named(name) => {
                let shapes = self.shapes;
                if let Some(kind) = shapes.kinds.get(name) {
                    self.value(value, kind, path);
                } else if let Some(fields) = shapes.types.get(name) {
                    match value.as_object() {
                        Some(object) => self.object(object, fields, path),
                        None => self.note(ViolationKind::WrongType, path, "not an object"),
                    }
                }
            }
        }
    }

    fn list(&mut self, value: &Value, (min, max): (usize, usize), of: &'static Kind, path: Path<'_>) {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            single => {
                self.note(ViolationKind::SingleForList, path, "not a list");
                std::slice::from_ref(single)
            }
        };
        if items.len() < min {
            self.note_with(ViolationKind::WrongCount, path, || format!("fewer than {min} elements"));
        }
        if items.len() > max {
            self.note_with(ViolationKind::WrongCount, path, || format!("more than {max} elements"));
        }
        for (at, item) in items.iter().enumerate() {
            self.value(item, of, Path::Item(&path, at));
        }
    }

    fn text(&mut self, value: &Value, max: Option<usize>, path: Path<'_>) {
        match (value, max) {
            (Value::String(text), Some(max)) if text.chars().nth(max).is_some() => {
                self.note_with(ViolationKind::LongString, path, || format!("longer than {max} characters"));
            }
            (Value::String(_), _) => {}
            (Value::Number(_), _) => {
                self.note(ViolationKind::StringAsNumber, path, "a number where text is due");
            }
            _ => self.note(ViolationKind::WrongType, path, "not text"),
        }
    }

    fn time(&mut self, value: &Value, path: Path<'_>) {
        match value.as_str().map(|text| (text, form_of(text))) {
            Some((_, TimeForm::Rfc3339)) => {}
            Some((text, TimeForm::Other)) => self.note_with(ViolationKind::OddTime, path, || {
                format!("{} is not a date and time of RFC 3339", quoted(text))
            }),
            Some((text, TimeForm::None)) => self.note_with(ViolationKind::WrongValue, path, || {
                format!("{} is not a date and time", quoted(text))
            }),
            None => self.note(ViolationKind::WrongType, path, "not a date and time"),
        }
    }

    fn number(&mut self, value: &Value, path: Path<'_>) -> Option<f64> {
        if let Some(number) = value.as_f64() {
            return Some(number);
        }
        let number = value.as_str().and_then(number_in);
        if number.is_some() {
            self.note(ViolationKind::NumberAsString, path, "text where a number is due");
        } else {
            self.note(ViolationKind::WrongType, path, "not a number");
        }
        number
    }

    /// `1.0` counts as an integer: it is one in the JSON Schema drafts that 2.x uses, and refusing it on
    /// 1.6 would help nobody. All versions limit integers to 32 bits (2.x Part 2, 2.1.4).
    fn integer(&mut self, value: &Value, range: &Range, path: Path<'_>) {
        let Some(number) = self.number(value, path) else { return };
        if number.fract() != 0.0 {
            self.note(ViolationKind::WrongType, path, "not an integer");
        } else if number < f64::from(i32::MIN) || number > f64::from(i32::MAX) {
            self.note(ViolationKind::WrongValue, path, "more than 32 bits");
        } else {
            self.range(number, range, path);
        }
    }

    /// 0.1 has no exact binary form, so that a multiple of it is one within what doubles can tell apart.
    fn tenths(&mut self, value: &Value, path: Path<'_>) {
        let Some(number) = self.number(value, path) else { return };
        let tenths = number * 10.0;
        if (tenths - tenths.round()).abs() > 1e-9 * tenths.abs().max(1.0) {
            self.note(ViolationKind::WrongValue, path, "more than one decimal place");
        }
    }

    fn range(&mut self, number: f64, range: &Range, path: Path<'_>) {
        match range {
            Range { low: Some(low), .. } if number < *low => {
                self.note_with(ViolationKind::WrongValue, path, || format!("less than {low}"));
            }
            Range { high: Some(high), .. } if number > *high => {
                self.note_with(ViolationKind::WrongValue, path, || format!("greater than {high}"));
            }
            _ => {}
        }
    }

    /// `customData` is free apart from naming its vendor (Part 4 section 9).
    fn custom_data(&mut self, value: &Value, path: Path<'_>) {
        let object = match value {
            Value::Null => return self.note(ViolationKind::Null, path, "null"),
            Value::Object(object) => object,
            _ => return self.note(ViolationKind::WrongType, path, "not an object"),
        };
        let path = Path::Field(&path, "vendorId");
        match object.get("vendorId") {
            Some(vendor) => self.text(vendor, Some(255), path),
            None => self.note(ViolationKind::Missing, path, "missing"),
        }
    }
}

/// A number in a text, as a person would read it.
fn number_in(text: &str) -> Option<f64> {
    // Words such as `inf` are numbers to the parser.
    let is_numeric = |byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let text = text.trim();
    let number = text.bytes().all(is_numeric).then(|| text.parse::<f64>().ok())??;
    number.is_finite().then_some(number)
}

/// A sender's value in a description: escaped, and cut.
fn quoted(text: &str) -> String {
    const MOST: usize = 32;
    let start: String = text.chars().take(MOST).collect();
    let dots = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{dots}")
}

/// Where the check has got to. Spelled out only to report a violation.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl Path<'_> {
    fn spelled(self) -> String {
        let mut field = String::new();
        self.spell(&mut field);
        if let Some((end, _)) = field.char_indices().nth(Violation::MAX_FIELD_CHARS) {
            field.truncate(end);
        }
        field
    }

    fn spell(self, out: &mut String) {
        match self {
            Path::Root => {}
            Path::Field(parent, name) => {
                parent.spell(out);
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Path::Item(parent, at) => {
                parent.spell(out);
                out.push_str(&format!("[{at}]"));
            }
        }
    }
}

#[cfg(test)]
mod tests;
