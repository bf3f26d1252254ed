//! Whether the payload of a request or response satisfies the official schema.
//!
//! Owns the check and the choice of error code. The schemas are data (`data/*.shapes`, read by
//! `notation`). The caller decides whether a violation is ignored, logged or refused.
//!
//! Two things that the schemas forbid are allowed, because stations send them and they are
//! unambiguous: `null` for an optional field without a value, and `null` for an empty payload.

mod notation;

use std::fmt;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::action::Action;
use crate::error_code::ErrorCode;
use crate::version::Version;
use notation::{Field, Kind, Range, Shapes};

/// How a payload violates its schema. Only the first violation is reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The code to refuse a request with (OCPP-J 1.6 Table 7; Part 4, 4.3).
    pub code: ErrorCode,
    /// The path to the field, such as `meterValue[0].timestamp`; empty for the payload as a whole. At
    /// most [`Violation::MAX_FIELD_CHARS`] characters, since the station may have invented the name.
    pub field: String,
    /// What is wrong with it, as a phrase that follows the field's name.
    pub description: String,
}

impl Violation {
    /// The longest path that is reported.
    pub const MAX_FIELD_CHARS: usize = 120;
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = if self.field.is_empty() { "payload" } else { &self.field };
        write!(f, "{field} {}", self.description)
    }
}

impl std::error::Error for Violation {}

/// Checks the payload of a CALL or SEND. Every payload passes if the version does not have the action.
///
/// # Errors
/// The first [`Violation`]: known fields in the order of the schema, then unexpected ones.
pub fn validate_request(
    version: Version,
    action: &'static Action,
    payload: &RawValue,
) -> Result<(), Violation> {
    let shapes = Shapes::of(version);
    validate(shapes, shapes.requests.get(action.name), payload)
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
    let shapes = Shapes::of(version);
    validate(shapes, shapes.responses.get(action.name), payload)
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

fn validate(shapes: &Shapes, fields: Option<&Vec<Field>>, payload: &RawValue) -> Result<(), Violation> {
    let Some(fields) = fields else {
        return Ok(());
    };
    match serde_json::from_str(payload.get()) {
        Ok(Value::Object(object)) => shapes.check_object(&object, fields, Path::Root),
        Ok(Value::Null) => shapes.check_object(&Map::new(), fields, Path::Root),
        Ok(_) => Err(Path::Root.violation(ErrorCode::TypeConstraintViolation, "is not an object")),
        Err(_) => Err(Path::Root.violation(ErrorCode::FormatViolation, "is nested too deeply to read")),
    }
}

impl Shapes {
    fn words<'a>(&'a self, fields: &'a [Field], place: &[&str]) -> &'a [&'static str] {
        let Some((name, rest)) = place.split_first() else { return &[] };
        let mut kind = fields.iter().find(|field| field.name == *name).map(|field| &field.kind);
        loop {
            match kind {
                Some(Kind::OneOf(words)) if rest.is_empty() => return words,
                Some(Kind::List { of, .. }) => kind = Some(of),
                Some(Kind::Named(name)) => match self.types.get(name) {
                    Some(fields) => return self.words(fields, rest),
                    None => kind = self.kinds.get(name),
                },
                _ => return &[],
            }
        }
    }
}

/// The check descends along the shapes, which are not circular, and never along the payload alone:
/// what no shape describes is refused or skipped, however deep it is nested.
impl Shapes {
    fn check_object(
        &self,
        object: &Map<String, Value>,
        fields: &[Field],
        path: Path<'_>,
    ) -> Result<(), Violation> {
        for field in fields {
            let path = Path::Field(&path, field.name);
            match object.get(field.name).filter(|value| !value.is_null()) {
                Some(value) => self.check(value, &field.kind, path)?,
                None if field.required => {
                    return Err(
                        path.violation(ErrorCode::OccurrenceConstraintViolation, "is required but missing")
                    );
                }
                None => {}
            }
        }
        for (name, value) in object {
            let path = Path::Field(&path, name);
            if self.implies_custom_data && name == "customData" {
                check_custom_data(value, path)?;
            } else if !fields.iter().any(|field| field.name == name) {
                return Err(path.violation(ErrorCode::FormatViolation, "is not a field of this message"));
            }
        }
        Ok(())
    }

    fn check(&self, value: &Value, kind: &Kind, path: Path<'_>) -> Result<(), Violation> {
        match kind {
            Kind::Any => Ok(()),
            Kind::Text { max } => check_text(value, *max, path),
            Kind::Time => check_time(value, path),
            Kind::Integer(range) => check_integer(value, range, path),
            Kind::Number(range) => match value.as_f64() {
                Some(number) => check_range(number, range, path),
                None => Err(path.wrong_type("is not a number")),
            },
            Kind::Boolean if value.is_boolean() => Ok(()),
            Kind::Boolean => Err(path.wrong_type("is neither true nor false")),
            Kind::OneOf(words) => match value.as_str() {
                Some(text) if words.contains(&text) => Ok(()),
                Some(_) => Err(path.wrong_value("is not one of the allowed values")),
                None => Err(path.wrong_type("is not text")),
            },
            Kind::List { min, max, of } => {
                let items = value.as_array().ok_or_else(|| path.wrong_type("is not a list"))?;
                if items.len() < *min {
                    return Err(path.wrong_count(format!("has fewer than {min} elements")));
                }
                if items.len() > *max {
                    return Err(path.wrong_count(format!("has more than {max} elements")));
                }
                let mut items = items.iter().enumerate();
                items.try_for_each(|(at, item)| self.check(item, of, Path::Item(&path, at)))
            }
            Kind::Named(name) => {
                if let Some(kind) = self.kinds.get(name) {
                    self.check(value, kind, path)
                } else if let Some(fields) = self.types.get(name) {
                    let object = value.as_object().ok_or_else(|| path.wrong_type("is not an object"))?;
                    self.check_object(object, fields, path)
                } else {
                    Ok(())
                }
            }
        }
    }
}

fn check_text(value: &Value, max: Option<usize>, path: Path<'_>) -> Result<(), Violation> {
    let text = value.as_str().ok_or_else(|| path.wrong_type("is not text"))?;
    match max {
        Some(max) if text.chars().nth(max).is_some() => {
            Err(path.wrong_value(format!("is longer than {max} characters")))
        }
        _ => Ok(()),
    }
}

/// Stations write times in many ways, and whoever needs the value has to be forgiving. Only an empty
/// text, which says nothing, is refused.
fn check_time(value: &Value, path: Path<'_>) -> Result<(), Violation> {
    match value.as_str() {
        Some("") => Err(path.wrong_value("is not a date and time")),
        Some(_) => Ok(()),
        None => Err(path.wrong_type("is not a date and time")),
    }
}

/// `1.0` counts as an integer: it is one in the JSON Schema drafts that 2.x uses, and refusing it on
/// 1.6 would help nobody. All versions limit integers to 32 bits (2.x Part 2, 2.1.4).
fn check_integer(value: &Value, range: &Range, path: Path<'_>) -> Result<(), Violation> {
    let number = value.as_f64().ok_or_else(|| path.wrong_type("is not an integer"))?;
    if number.fract() != 0.0 {
        return Err(path.wrong_type("is not an integer"));
    }
    if number < f64::from(i32::MIN) || number > f64::from(i32::MAX) {
        return Err(path.wrong_value("does not fit into 32 bits"));
    }
    check_range(number, range, path)
}

fn check_range(number: f64, range: &Range, path: Path<'_>) -> Result<(), Violation> {
    match range {
        Range { low: Some(low), .. } if number < *low => Err(path.wrong_value(format!("is less than {low}"))),
        Range { high: Some(high), .. } if number > *high => {
            Err(path.wrong_value(format!("is greater than {high}")))
        }
        _ => Ok(()),
    }
}

/// `customData` is free apart from naming its vendor (Part 4 section 9).
fn check_custom_data(value: &Value, path: Path<'_>) -> Result<(), Violation> {
    let object = match value {
        Value::Null => return Ok(()),
        Value::Object(object) => object,
        _ => return Err(path.wrong_type("is not an object")),
    };
    let path = Path::Field(&path, "vendorId");
    match object.get("vendorId") {
        Some(vendor) => check_text(vendor, Some(255), path),
        None => Err(path.violation(ErrorCode::OccurrenceConstraintViolation, "is required but missing")),
    }
}

/// Where the check has got to. Spelled out only to report a violation.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl Path<'_> {
    fn violation(self, code: ErrorCode, description: impl Into<String>) -> Violation {
        let mut field = String::new();
        self.spell(&mut field);
        if let Some((end, _)) = field.char_indices().nth(Violation::MAX_FIELD_CHARS) {
            field.truncate(end);
        }
        Violation { code, field, description: description.into() }
    }

    fn wrong_type(self, description: &str) -> Violation {
        self.violation(ErrorCode::TypeConstraintViolation, description)
    }

    fn wrong_value(self, description: impl Into<String>) -> Violation {
        self.violation(ErrorCode::PropertyConstraintViolation, description)
    }

    fn wrong_count(self, description: String) -> Violation {
        self.violation(ErrorCode::OccurrenceConstraintViolation, description)
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
