//! Simulates charging stations against a gateway, measures its answers, and verifies that nothing it answered is lost.
//!
//! ```text
//!   coordinator ──┬── worker 1..n      stations on their own source addresses; latency from the due time
//!        │        └── verifier         reads the bus (Kafka, or the gateway's local log) and compares
//!        ├── /metrics, /proc           what the gateway and the load test itself cost
//!        └── summary, JSON, HTML
//! ```
//!
//! All processes run this binary and exchange JSON lines over pipes. In reading order:
//!
//! * [`scenario`]: what a run does
//! * [`station`], [`frame`]: one station as a state machine, and the frames it exchanges
//! * [`ranges`], [`random`], [`latency`]: sets of numbers, numbers, distributions
//! * [`worker`]: a process that simulates many stations
//! * [`verify`]: the process that reads the bus and compares it with what the stations know
//! * [`coordinator`]: a run from the plan to the report; [`scrape`], [`http`]: the gateway's metrics
//! * [`report`]: JSON, a summary, a page with plots; whether the run passed
//! * [`pipe`], [`process`]: messages between processes, and what a process costs
//! * [`error`]: errors as text for people

pub mod coordinator;
pub mod error;
pub mod frame;
pub mod http;
pub mod latency;
pub mod pipe;
pub mod process;
pub mod random;
pub mod ranges;
pub mod report;
pub mod scenario;
pub mod scrape;
pub mod station;
pub mod verify;
pub mod worker;
