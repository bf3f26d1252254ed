//! ocpp-gateway: holds the WebSockets of charging stations and carries their messages to durable storage.
//!
//! The path of a message, through the files:
//!
//! ```text
//! listener/handshake (auth) ─ socket ─ session/actor ─ session/inbound ─ ocpp_protocol::frame
//!                                           │                │
//!                                           │                └─ events ─ ocpp_bus::Publisher ─ … ─ durable
//!                                           └─ session/outbound ◄─ session/pending ◄───────────┘
//! ```
//!
//! and of a command: `http/commands` ─ [`ocpp_commands`] ─ [`registry`] ─ `session/mailbox` ─ `session/outbound` ─ socket.
//!
//! [`app`] builds the parts from a [`config::Config`]; [`drain`] takes them down again.

pub mod app;
pub mod auth;
pub mod backend;
pub mod bus_options;
pub mod command_options;
pub mod config;
pub mod consumer;
pub mod drain;
pub mod driver;
pub mod durable_point;
mod http;
mod https;
pub mod kinds;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod rate_limit;
pub mod readiness;
pub mod registry;
pub mod session;
pub mod socket;
pub mod spans;
pub mod stations;
pub mod telemetry;
