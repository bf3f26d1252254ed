//! What is wrong with a payload, and which of it an operator lets through.
//!
//! Owns the kinds and their words. Finds nothing itself.

use std::fmt;

use crate::error_code::ErrorCode;

/// Which rule of a schema a value breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ViolationKind {
    /// A required member is missing, or `null`.
    Missing,
    /// A value has the wrong type.
    WrongType,
    /// A number is out of range, or a text is no date and time.
    WrongValue,
    /// A list has too few or too many elements.
    WrongCount,
    /// The payload cannot be read: it is nested too deeply, has a number that is too large, or text that is not Unicode.
    Unreadable,
    /// A text is too long.
    LongString,
    /// A text is not one of the allowed values.
    UnknownValue,
    /// A value stands where a list of such values is due.
    SingleForList,
    /// A text stands where a number is due, and is one.
    NumberAsString,
    /// A number stands where text is due.
    StringAsNumber,
    /// An optional member is `null`.
    Null,
    /// A date and time is not written as RFC 3339 demands, but can be understood.
    OddTime,
    /// A member is not in the schema.
    Additional,
}

impl ViolationKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::WrongType,
        Self::WrongValue,
        Self::WrongCount,
        Self::Unreadable,
        Self::LongString,
        Self::UnknownValue,
        Self::SingleForList,
        Self::NumberAsString,
        Self::StringAsNumber,
        Self::Null,
        Self::OddTime,
        Self::Additional,
    ];

    /// The word for it in metric labels, reports and the configuration, which never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongType => "wrongTypes",
            Self::WrongValue => "wrongValues",
            Self::WrongCount => "wrongCounts",
            Self::Unreadable => "unreadable",
            Self::LongString => "longStrings",
            Self::UnknownValue => "unknownValues",
            Self::SingleForList => "singleForList",
            Self::NumberAsString => "numbersAsStrings",
            Self::StringAsNumber => "stringsAsNumbers",
            Self::Null => "nulls",
            Self::OddTime => "times",
            Self::Additional => "additional",
        }
    }

    /// The code to refuse a message with (OCPP-J 1.6 Table 7; Part 4, 4.3).
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Missing | Self::WrongCount => ErrorCode::OccurrenceConstraintViolation,
            Self::WrongType
            | Self::SingleForList
            | Self::NumberAsString
            | Self::StringAsNumber
            | Self::Null => ErrorCode::TypeConstraintViolation,
            Self::WrongValue | Self::LongString | Self::UnknownValue | Self::OddTime => {
                ErrorCode::PropertyConstraintViolation
            }
            Self::Unreadable | Self::Additional => ErrorCode::FormatViolation,
        }
    }
}

/// A set of kinds: those that an operator lets through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tolerance(u16);

impl Tolerance {
    /// Nothing is let through.
    pub const NONE: Self = Self(0);

    /// Whether this kind is let through.
    pub fn contains(self, kind: ViolationKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

impl FromIterator<ViolationKind> for Tolerance {
    fn from_iter<I: IntoIterator<Item = ViolationKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }
}

/// One way in which a payload violates its schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule it breaks.
    pub kind: ViolationKind,
    /// The path to the value, such as `meterValue[0].timestamp`; empty for the payload as a whole. At
    /// most [`Violation::MAX_FIELD_CHARS`] characters, since the sender may have invented the name.
    pub field: String,
    /// What is wrong with it, as a phrase that follows the path.
    pub description: String,
}

impl Violation {
    /// The longest path that is reported.
    pub const MAX_FIELD_CHARS: usize = 120;

    /// The code to refuse the message with.
    pub fn code(&self) -> ErrorCode {
        self.kind.code()
    }

    /// The path without the positions in lists: `meterValue[].timestamp`. The same for every message that violates the
    /// same rule.
    pub fn member(&self) -> String {
        without_positions(&self.field).collect()
    }
}

/// `payload.meterValue[0].timestamp: missing`.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.field.is_empty() { "" } else { "." };
        write!(f, "payload{dot}{}: {}", self.field, self.description)
    }
}

impl std::error::Error for Violation {}

/// What was found in a payload. Of violations of one rule by one member of several list elements the first is here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    violations: Vec<Violation>,
    noted: usize,
    refusal: Option<usize>,
}

impl Findings {
    /// Violations of one payload that are listed.
    const MOST: usize = 16;
    /// Violations of one payload that are looked at to be listed. A message may be full of them.
    const MOST_NOTED: usize = 1000;

    /// Whether the payload satisfies its schema.
    pub fn is_empty(&self) -> bool {
        self.violations.is_empty()
    }

    /// What was found, at most 16 violations: known members in the order of the schema, then unexpected ones.
    pub fn all(&self) -> &[Violation] {
        &self.violations
    }

    /// The first violation that is not tolerated.
    pub fn refusal(&self) -> Option<&Violation> {
        self.violations.get(self.refusal?)
    }

    /// The violation to tell of if there is room for one.
    pub fn foremost(&self) -> Option<&Violation> {
        self.refusal().or_else(|| self.violations.first())
    }

    /// The first violation that is not tolerated, as an error.
    ///
    /// # Errors
    /// If there is one.
    pub fn into_result(self) -> Result<(), Violation> {
        self.into_refusal().map_or(Ok(()), Err)
    }

    /// The first violation that is not tolerated.
    pub fn into_refusal(mut self) -> Option<Violation> {
        self.refusal.map(|at| self.violations.swap_remove(at))
    }

    pub(super) fn note(
        &mut self,
        kind: ViolationKind,
        is_tolerated: bool,
        field: impl FnOnce() -> String,
        description: impl FnOnce() -> String,
    ) {
        let is_refusal = !is_tolerated && self.refusal.is_none();
        self.noted += 1;
        if !is_refusal && (self.violations.len() >= Self::MOST || self.noted > Self::MOST_NOTED) {
            return;
        }
        let field = field();
        let is_same = |known: &Violation| {
            known.kind == kind && without_positions(&known.field).eq(without_positions(&field))
        };
        if !is_refusal && self.violations.iter().any(is_same) {
            return;
        }
        if is_refusal {
            self.refusal = Some(self.violations.len());
        }
        self.violations.push(Violation { kind, field, description: description() });
    }
}

fn without_positions(field: &str) -> impl Iterator<Item = char> {
    let mut is_position = false;
    field.chars().filter(move |character| {
        is_position = match character {
            '[' => true,
            ']' => false,
            _ => return !is_position,
        };
        true
    })
}
