//! Reading the shape files into memory, once per version, on first use.
//!
//! Owns the notation, which `data/README.md` describes. The files are part of the program. A line that
//! could not be read would be left out, which weakens the check and breaks nothing else; a test
//! ensures that there is none.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::version::Version;

/// All shapes of one version.
#[derive(Default)]
pub(super) struct Shapes {
    pub(super) requests: HashMap<&'static str, Vec<Field>>,
    pub(super) responses: HashMap<&'static str, Vec<Field>>,
    pub(super) types: HashMap<&'static str, Vec<Field>>,
    pub(super) kinds: HashMap<&'static str, Kind>,
    /// Whether every object may have a `customData`.
    pub(super) implies_custom_data: bool,
}

/// One field of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
}

/// What a value may be.
pub(super) enum Kind {
    Any,
    Text {
        max: Option<usize>,
    },
    Time,
    Integer(Range),
    Number(Range),
    /// A number with at most one decimal place.
    Tenths,
    Boolean,
    OneOf(Vec<&'static str>),
    List {
        min: usize,
        max: usize,
        of: Box<Self>,
    },
    Named(&'static str),
}

/// Bounds, both inclusive.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
}

impl Shapes {
    /// The shapes of a version.
    pub(super) fn of(version: Version) -> &'static Self {
        static ALL: LazyLock<[Shapes; 3]> =
            LazyLock::new(|| Version::ALL.map(|version| Shapes::read(text(version), version.is_2x())));
        &ALL[version.index()]
    }

    /// The words that a place below these fields may have; none if there is no such place, or it has no fixed words.
    pub(super) fn words<'a>(&'a self, fields: &'a [Field], place: &[&str]) -> &'a [&'static str] {
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

    fn read(text: &'static str, implies_custom_data: bool) -> Self {
        let mut shapes = Self { implies_custom_data, ..Self::default() };
        for line in text.lines() {
            // `None` only for the comment at the top.
            let _known = shapes.read_line(line);
        }
        shapes
    }

    pub(super) fn read_line(&mut self, line: &'static str) -> Option<()> {
        let (heading, body) = line.split_once(':')?;
        let (sort, name) = heading.split_once(' ')?;
        match sort {
            "request" => drop(self.requests.insert(name, read_fields(body)?)),
            "response" => drop(self.responses.insert(name, read_fields(body)?)),
            "type" => drop(self.types.insert(name, read_fields(body)?)),
            "kind" => drop(self.kinds.insert(name, Kind::read(body.trim())?)),
            _ => return None,
        }
        Some(())
    }
}

pub(super) fn text(version: Version) -> &'static str {
    match version {
        Version::V16 => include_str!("../../data/1.6.shapes"),
        Version::V201 => include_str!("../../data/2.0.1.shapes"),
        Version::V21 => include_str!("../../data/2.1.shapes"),
    }
}

fn read_fields(body: &'static str) -> Option<Vec<Field>> {
    let body = body.trim();
    if body.is_empty() {
        return Some(Vec::new());
    }
    body.split(", ").map(Field::read).collect()
}

impl Field {
    fn read(text: &'static str) -> Option<Self> {
        let (name, kind) = text.split_once(' ')?;
        let required = name.ends_with('!');
        Some(Self { name: name.trim_end_matches('!'), required, kind: Kind::read(kind)? })
    }
}

impl Kind {
    fn read(text: &'static str) -> Option<Self> {
        if let Some(words) = text.strip_prefix('(') {
            return Some(Self::OneOf(words.strip_suffix(')')?.split('|').collect()));
        }
        if let Some(list) = text.strip_prefix('[') {
            let (bounds, kind) = list.strip_suffix(']')?.split_once(' ')?;
            let (min, max) = bounds.split_once("..")?;
            return Some(Self::List {
                min: bound(min)?.unwrap_or(0),
                max: bound(max)?.unwrap_or(usize::MAX),
                of: Box::new(Self::read(kind)?),
            });
        }
        if text.starts_with(|first: char| first.is_ascii_uppercase()) {
            return Some(Self::Named(text));
        }
        match text {
            "any" => Some(Self::Any),
            "b" => Some(Self::Boolean),
            "d" => Some(Self::Tenths),
            "t" => Some(Self::Time),
            _ => {
                let (sort, limits) = text.split_at_checked(1)?;
                match sort {
                    "s" => Some(Self::Text { max: bound(limits)? }),
                    "i" => Some(Self::Integer(Range::read(limits)?)),
                    "n" => Some(Self::Number(Range::read(limits)?)),
                    _ => None,
                }
            }
        }
    }
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { low: None, high: None });
        }
        let (low, high) = text.split_once("..")?;
        Some(Self { low: bound(low)?, high: bound(high)? })
    }
}

/// `Some(None)` for a bound that is left out, `None` for one that cannot be read.
fn bound<T: std::str::FromStr>(text: &str) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
}
