//! The span of a station's CALL, as its session sees it.

use ocpp_station::TraceParent;
use ocpp_station::host::Trace;

use crate::spans::Span;

/// The trace of a station's CALL; nothing while nobody wants spans.
#[derive(Debug, Default)]
pub(super) struct CallSpan(pub(super) Option<Span>);

impl Trace for CallSpan {
    fn context(&self) -> Option<TraceParent> {
        self.0.as_ref().and_then(Span::context)
    }

    fn ended(&mut self, outcome: &'static str) {
        let Some(span) = &mut self.0 else { return };
        span.set("ocpp.outcome", outcome);
        if outcome != "answered" {
            span.failed();
        }
    }
}
