//! The defaults of a scenario.

use std::time::Duration;

use super::{Commands, Connect, Limits, Misbehaviour, Reconnect, Scenario, Traffic, Versions};

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            stations: 100,
            targets: vec!["ws://127.0.0.1:9000/ocpp".into()],
            duration: Duration::from_secs(60),
            settle: Duration::from_secs(30),
            workers: 0,
            prefix: "LT-".into(),
            versions: Versions::default(),
            connect: Connect::default(),
            reconnect: Reconnect::default(),
            traffic: Traffic::default(),
            moments: Vec::new(),
            slow_readers: Misbehaviour::default(),
            chatty: Misbehaviour::default(),
            commands: Commands::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self { v16: 60, v201: 30, v21: 10 }
    }
}

impl Default for Connect {
    fn default() -> Self {
        Self { over: Duration::from_secs(10), timeout: Duration::from_secs(30) }
    }
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            messages_per_second: 10.0,
            heartbeat_every: 5,
            meter_values_per_session: 10,
            meter_values_bytes: 400,
            connectors: 2,
            ping_every: Duration::from_secs(60),
        }
    }
}

impl Default for Misbehaviour {
    fn default() -> Self {
        Self { stations: 0, after: Duration::ZERO, every: Duration::from_millis(100), window: 4 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1.0,
            answered: 1.0,
            disconnects: 0,
            commands_answered: 1.0,
            p99: None,
            send_lag_p99: Duration::from_millis(50),
        }
    }
}
