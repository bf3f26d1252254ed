//! A command's place in a trace, kept for as long as the command. Makes no spans: whoever does implements
//! [`crate::port::Traces`].

use ocpp_station::trace::TraceParent;
use serde::{Deserialize, Serialize};

/// A command's place in a trace. The journal keeps it for as long as the command.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(default)]
pub struct CommandTrace {
    /// What it came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<TraceParent>,
    /// Its own span, if it is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<TraceParent>,
    /// What it came with breaks the rules.
    #[serde(skip)]
    pub is_ignored: bool,
}

impl CommandTrace {
    /// That of a command that came with this `traceparent`. One that breaks the rules counts as none.
    pub fn stated(traceparent: Option<&str>) -> Self {
        let parent = traceparent.and_then(TraceParent::parse);
        Self { parent, span: None, is_ignored: traceparent.is_some() && parent.is_none() }
    }

    /// What `traceparent` is for whatever comes of it: its own span, or else what it came with, unchanged.
    pub fn context(self) -> Option<TraceParent> {
        self.span.or(self.parent)
    }

    /// That of each command of a batch which came with this.
    #[must_use]
    pub fn of_each(self) -> Self {
        Self { is_ignored: false, ..self }
    }

    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        self.context().is_none()
    }
}
