//! Commands: from a backend to the session that serves the station, and the outcome back, exactly once.
//!
//! ```text
//!  request ── Dispatcher ── a session's inbox ── station
//!                │   ▲              │
//!                │   └── outcome ◄──┘
//!                ├── CommandStore: journal, offline queues, ended commands
//!                └── result event ── bus
//! ```
//!
//! Owns what a command is, what is remembered of it, where it goes and how its result is published. A session owns sending it,
//! one at a time, and is reached through [`dispatch::Sessions`]: this crate knows no socket, no HTTP and no Kafka client. Having been
//! written to the socket is not an outcome.

pub mod batch;
pub mod command;
pub mod dispatch;
pub mod dispatcher;
pub mod kinds;
pub mod limits;
pub mod metrics;
pub mod nearest;
pub mod port;
mod prepared_note;
pub mod record;
pub mod request;
pub mod store;
mod time;
pub mod trace;

pub use crate::command::{Command, IfOffline};
pub use crate::dispatch::Dispatch;
pub use crate::dispatcher::Dispatcher;
pub use crate::limits::Limits;
pub use crate::prepared_note::PreparedNote;
pub use crate::store::CommandStore;
