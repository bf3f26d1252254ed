//! What is true of one station and its connection, without I/O, without a clock and without a runtime.
//!
//! Owns the nouns that the rooms above share: who a session is ([`SessionId`], [`Subject`]), why it ended
//! ([`CloseReason`]), what became of a command ([`Outcome`]), what a backend responds ([`Response`]), and how all of it
//! is spelled in events ([`events`], [`envelope`]); and what is remembered of a station between its connections
//! ([`StationRecord`]). Time is an argument ([`Now`]).

mod answer_queue;
pub mod close;
mod content;
pub mod delegated_calls;
pub mod envelope;
pub mod events;
pub mod host;
pub mod inbox;
mod keepalive;
pub mod observation;
pub mod options;
pub mod outbound_call;
pub mod outbox;
pub mod outcome;
pub mod recent_calls;
pub mod record;
pub mod response;
pub mod session;
pub mod session_id;
pub mod time;
pub mod trace;
pub mod transaction_ids;

pub use close::CloseReason;
pub use content::Content;
pub use events::Subject;
pub use host::Host;
pub use options::Options;
pub use outbound_call::OutboundCall;
pub use outcome::{CommandError, Outcome, Sent, Status};
pub use record::{Standing, StationModel, StationRecord};
pub use response::Response;
pub use session::{Link, Session, Wanted};
pub use session_id::SessionId;
pub use time::Now;
pub use trace::TraceParent;
pub use transaction_ids::TransactionIds;
