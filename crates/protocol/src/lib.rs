//! OCPP-J as data and pure functions: what a station and its CSMS say to each other over a
//! WebSocket, in OCPP 1.6, 2.0.1 and 2.1.
//!
//! ```text
//!   station                                                           CSMS
//!      │  [2,"17","BootNotification",{…}]                              │
//!      ├──────────────────────────── CALL ────────────────────────────▶│
//!      │                              [3,"17",{"status":"Accepted",…}] │
//!      │◀───────────────────────── CALLRESULT ─────────────────────────┤
//!      │                                                               │
//!      │                          [2,"c0ffee-…","Reset",{"type":"…"}]  │  either side may call;
//!      │◀─────────────────────────── CALL ─────────────────────────────┤  calls may cross, but
//!      │  [4,"c0ffee-…","NotSupported","why",{}]                       │  each side waits for the
//!      ├────────────────────────── CALLERROR ─────────────────────────▶│  answer before its next
//!      │                                                               │
//!      │  [5,"17","FormatViolation","why",{}]                          │  2.1: "I cannot use
//!      ├─────────────────────── CALLRESULTERROR ──────────────────────▶│  your answer"
//!      │  [6,"18","NotifyPeriodicEventStream",{…}]                     │  2.1: never answered
//!      ├──────────────────────────── SEND ────────────────────────────▶│
//! ```
//!
//! A message on its way through this crate, in reading order:
//!
//! * [`identity`], [`version`]: whose connection it is and which language it speaks
//! * [`frame`], [`message_id`]: text to message; the payload stays the sender's bytes
//! * [`mod@write`]: message to text
//! * [`malformed`], [`error_code`]: texts that are not messages, and how they are answered
//! * [`action`]: which messages there are and who may send them
//! * [`boot`]: what may be sent before a station is accepted
//! * [`shape`]: whether a payload satisfies its schema
//! * [`repetition`]: whether a message that comes again can be a new one
//! * [`answer`], [`refusal`], [`transaction`]: answers that need no backend
//! * [`exchange`]: the one CALL that we have outstanding, and what completes it
//!
//! The crate does no I/O, reads no clock and needs no runtime. It never panics or recurses on what a
//! peer sends, and every limit is a constant with its reason beside it. Connections, storage,
//! decisions about stations, and the meaning of payloads beyond the few fields that answers depend
//! on belong elsewhere.

pub mod action;
pub mod answer;
pub mod boot;
mod date_time;
pub mod error_code;
pub mod exchange;
pub mod frame;
pub mod grants;
pub mod identity;
mod literal;
pub mod malformed;
pub mod message_id;
pub mod refusal;
pub mod repetition;
pub mod shape;
pub mod transaction;
pub mod version;
pub mod write;

pub use action::{
    Action, ActionKind, ActionSet, Direction, InboundAction, Mark, classify_call, classify_send,
};
pub use answer::{AnswerContext, Registration, builtin};
pub use boot::{BootState, csms_may_send, is_accepted, registration_in, station_may_send, vendor_and_model};
pub use error_code::ErrorCode;
pub use exchange::{Answered, Busy, Exchange};
pub use frame::{Call, CallError, CallResult, Frame, MAX_DEPTH, parse, parse_with};
pub use grants::Grants;
pub use identity::{Identity, IdentityError, IdentityKey};
pub use malformed::{Envelope, Malformed, MalformedKind, Reply, ReplyKind};
pub use message_id::{IdRules, MessageId, UNREADABLE_ID};
pub use refusal::{nobody, refusal, refusals};
pub use repetition::is_unmistakable;
pub use shape::{
    Findings, Tolerance, Violation, ViolationKind, check_request, check_response, validate_request,
    validate_response,
};
pub use transaction::{StartKey, start_key};
pub use version::Version;
pub use write::{
    MAX_DESCRIPTION_CHARS, write_call, write_call_error, write_call_error_with_details, write_call_result,
    write_call_result_error,
};
