//! Simulates charging stations against a gateway, measures how it answers, and verifies that nothing it answered is lost.
//!
//! ```text
//!   coordinator ──┬── worker 1..n      stations on their own source addresses; latency from the due time
//!        │        └── verifier         reads the bus (Kafka, or the gateway's local log) and keeps the books
//!        ├── /metrics, /proc           what the gateway and everybody else costs
//!        └── summary, JSON, HTML
//! ```
//!
//! All processes are this binary; they speak JSON lines over pipes. In reading order:
//!
//! * [`scenario`]: what a run does
//! * [`station`], [`frame`]: one station as a state machine, and what it says
//! * [`ranges`], [`random`], [`latency`]: sets of numbers, numbers, distributions
//! * [`worker`]: a process full of stations
//! * [`verify`]: the process that reads the bus and keeps the books
//! * [`coordinator`]: a run from the plan to the report; [`scrape`], [`http`]: what the gateway says meanwhile
//! * [`report`]: JSON, a summary, a page with plots; whether the run passed
//! * [`pipe`], [`process`]: how processes speak, and what they cost

pub mod coordinator;
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
