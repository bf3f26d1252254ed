//! The rules of a session, each as a table of inputs at their times and the effects they have. No socket, no clock, no
//! runtime: `bench.rs` is the driver.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod backpressure;
mod bench;
mod boot;
mod commands;
mod delegation;
mod ending;
mod fallback;
mod keepalive;
mod messages;
mod model;
mod repeats;
mod validation;
