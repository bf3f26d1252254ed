//! ocpp-gateway: holds the WebSockets of charging stations and carries their messages to durable storage.
//!
//! [`listener`] takes a connection through its handshake, [`registry`] makes its session the one that serves the station, and
//! [`driver`] runs the session. ARCHITECTURE.md follows a message and a command through the files.
//!
//! [`app`] builds the parts from a [`config::Config`]; [`drain`] takes them down again.

pub mod app;
pub mod auth;
pub mod backend;
pub mod bus_options;
pub mod command_options;
pub mod config;
pub mod consumer;
pub mod deviations;
pub mod drain;
pub mod driver;
pub mod durable_point;
mod file_stamp;
mod http;
mod https;
pub mod kinds;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod open_sessions;
pub mod rate_limit;
pub mod readiness;
pub mod registry;
pub mod session;
pub mod session_journal;
pub mod settings;
pub mod socket;
pub mod spans;
pub mod stations;
pub mod telemetry;
pub mod twins;
pub mod validation;
