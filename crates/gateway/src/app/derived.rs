//! What follows from the options of several features at once.

use ocpp_bus::kafka::KafkaOptions;
use ocpp_bus::kafka::consumer::ConsumerOptions;
use ocpp_commands::Limits;

use crate::backend::Rules;
use crate::bus_options::BusKind;
use crate::config::Config;

/// The rules that sessions keep.
pub(super) fn session_options(config: &Config) -> ocpp_station::Options {
    let session = &config.session;
    ocpp_station::Options {
        max_unacknowledged: session.max_unacknowledged,
        ping_interval: session.ping_interval,
        idle_timeout: session.idle_timeout,
        write_timeout: session.write_timeout,
        close_timeout: session.close_timeout,
        hold_limit: config.bus.hold_limit,
        grace: config.commands.grace,
        before_boot: config.registration.before_boot,
        boot_interval: config.registration.interval,
        authorization: config.answers.authorization.as_str(),
        validation: config.validation.mode,
    }
}

/// What answers by a backend depend on.
pub(super) fn backend_rules(config: &Config) -> Rules<'_> {
    Rules {
        answers: &config.answers,
        hooks: &config.hooks,
        validation: config.validation.mode,
        // What is larger would not fit into the event of the answer.
        largest: config.session.max_message_size.as_u64(),
    }
}

/// What a command may ask for, and how much is remembered.
pub(super) fn command_limits(config: &Config) -> Limits {
    config.commands.limits(config.session.max_message_size.as_u64())
}

/// Where commands are read from; nowhere on the local bus.
pub(super) fn consumer_options(config: &Config) -> Option<ConsumerOptions> {
    let is_read = config.bus.kind == BusKind::Kafka && !config.topics.commands.is_empty();
    is_read.then(|| ConsumerOptions {
        topic: config.topics.commands.clone(),
        group: config.commands.consumer_group.clone(),
        most_open: config.commands.max_in_flight,
        // What a crash brings again must still be known.
        widest: (config.commands.remembered / 2).max(1),
        max_value_bytes: config.session.max_event_bytes(),
    })
}

/// What the Kafka client and the spool beside it are told.
pub(super) fn kafka_options(config: &Config) -> KafkaOptions {
    config.bus.kafka(&config.node, &config.topics, config.session.max_event_bytes())
}
