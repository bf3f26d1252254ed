"""Records that Kafka never accepts, missing topics, and wrong credentials: scenario 9."""

import time
from collections.abc import Callable

import requests
from harness.waiting import free_port, wait_for

from .stage import Stage

TOPIC_LIMIT = 20_000
LARGE = 60_000
FEW = 60
COMMANDS = 5


def record_too_large(stage: Stage) -> None:
    """9: some records are larger than the topic allows: they become dead letters, the others are delivered"""
    stage.start_kafka()
    stage.topics = stage.broker.fresh_topics(config={"max.message.bytes": str(TOPIC_LIMIT)})
    stage.start_gateway(spool=True)
    stage.start_load(large_every=20, large_bytes=LARGE)
    stage.go_on(2.0)
    stage.attempt(lambda: _counted(stage, 10), "a count of the dead letters")
    time.sleep(stage.outage(15))
    stage.settle()
    small = [
        one
        for one in stage.dead_letters()
        if len(one["event"]["data"].get("payload", {}).get("data", "")) < TOPIC_LIMIT
    ]
    stage.note(f"{stage.row.verdict.dead_letters} dead letters, {len(small)} of which would have fitted")
    stage.expect(not small, f"{len(small)} events that fit became dead letters")
    _are_reported(stage)


def record_too_large_draining(stage: Stage) -> None:
    """9: the same while Kafka is away and comes back: the large ones are in the spool among the others"""
    stage.start_kafka()
    stage.topics = stage.broker.fresh_topics(config={"max.message.bytes": str(TOPIC_LIMIT)})
    stage.start_gateway(spool=True)
    stage.start_load(large_every=20, large_bytes=LARGE)
    stage.go_on(1.0)
    stage.broker.kill9()
    stage.gateway.until_state("spooling")
    time.sleep(stage.outage(15))
    stage.broker.start()
    stage.attempt(lambda: stage.gateway.until_state("direct", timeout=90), "after the fault")
    stage.settle()
    small = [
        one
        for one in stage.dead_letters()
        if len(one["event"]["data"].get("payload", {}).get("data", "")) < TOPIC_LIMIT
    ]
    stage.note(f"{stage.row.verdict.dead_letters} dead letters, {len(small)} of which would have fitted")
    stage.expect(not small, f"{len(small)} events that fit became dead letters")
    _are_reported(stage)


def unknown_results_topic_spool(stage: Stage) -> None:
    """9: the topic of command results does not exist; with a spool"""
    _unknown_results_topic(stage, spool=True)


def unknown_results_topic_hold(stage: Stage) -> None:
    """9: the same without a spool"""
    _unknown_results_topic(stage, spool=False)


def _unknown_results_topic(stage: Stage, *, spool: bool) -> None:
    stage.prepare_kafka().properties["auto.create.topics.enable"] = "false"
    stage.broker.start()
    stage.topics = stage.broker.fresh_topics() | {"command_results": "no.such.topic"}
    stage.start_gateway(spool=spool)
    stage.longest_wait = 15.0
    stage.start_load()
    stage.go_on(1.0)
    for number in range(COMMANDS):
        _command_to_nobody(stage, f"NOBODY-{number}")
    stage.attempt(lambda: _counted(stage, COMMANDS), "a count of the dead letters")
    stage.attempt(lambda: stage.go_on(2.0, timeout=20), "other events")
    stage.attempt(lambda: stage.gateway.until_state("direct", timeout=20), "once they are dead letters")
    stage.settle()
    found = [one for one in stage.dead_letters() if one["topic"] == "no.such.topic"]
    stage.expect(len(found) >= COMMANDS, f"{len(found)} of {COMMANDS} results are dead letters")
    _are_reported(stage)


def _command_to_nobody(stage: Stage, station: str) -> None:
    """Sends a command, whose result is an event. The response may take as long as the event waits for space in the queue."""
    body = {"action": "ClearCache", "payload": {}, "timeoutMs": 1000}
    try:
        url = f"{stage.gateway.admin_url}/api/v1/stations/{station}/commands"
        requests.post(url, json=body, timeout=1.0)
    except requests.Timeout:
        pass


def unknown_events_topic(stage: Stage) -> None:
    """9: the topic of events does not exist until it is created; with a spool"""
    stage.prepare_kafka().properties["auto.create.topics.enable"] = "false"
    stage.broker.start()
    stage.topics = {"events": "not.yet.there", "command_results": "not.yet.there.either"}
    stage.start_gateway(spool=True)
    stage.prepare_load(FEW).open()
    stage.attempt(lambda: stage.load.until(lambda status: status.booted == FEW, "answers", 60), "without a topic")
    time.sleep(stage.outage(40))
    stage.note(f"/health: {stage.gateway.bus['state']}, {stage.gateway.bus['detail']}")
    reported = str(stage.gateway.bus["detail"]) + stage.gateway.log_text()
    stage.expect("not.yet.there" in reported, "neither /health nor the log names the topic that is missing")
    existing = stage.broker.fresh_topics(names=stage.topics)
    stage.expect(existing == stage.topics, "the topics could not be created")
    stage.attempt(lambda: stage.gateway.until_state("direct", timeout=60), "with the topic")
    stage.settle()


def wrong_credentials_spool(stage: Stage) -> None:
    """9: Kafka refuses the gateway's password until it is corrected; with a spool"""
    _wrong_credentials(stage, spool=True)


def wrong_credentials_hold(stage: Stage) -> None:
    """9: the same without a spool"""
    _wrong_credentials(stage, spool=False)


def _wrong_credentials(stage: Stage, *, spool: bool) -> None:
    port = free_port()
    broker = stage.prepare_kafka()
    listeners = f"PLAINTEXT://{broker.address},SASL://127.0.0.1:{port}"
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    broker.properties |= {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT",
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{broker.port + 1}",
        "advertised.listeners": listeners,
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": f'{module} required user_gateway="right";',
    }
    broker.start()
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": "gateway",
        "sasl.password": "wrong",
    }
    config = {"bus": {"kafka": {"brokers": f"127.0.0.1:{port}", "options": options, "unready_after": "3s"}}}
    gateway = stage.start_gateway(config, spool=spool)
    stage.prepare_load().open()
    state = "spooling" if spool else "holding"
    stage.attempt(lambda: gateway.until_state(state, timeout=30), "with the wrong password")
    if spool:
        stage.attempt(lambda: stage.go_on(2.0, timeout=60), "with the wrong password")
    stage.attempt(lambda: wait_for(_mentions("authentication", stage), "the reason in /health", 20), "the error")
    stage.note(f"/health said: {gateway.bus['detail']}")
    log = [line for line in gateway.log_text().splitlines() if "authentication" in line.lower()]
    stage.expect(log, "no line of the log mentions authentication")
    code = gateway.sigterm()
    stage.expect(code == 0, f"after SIGTERM the gateway ended with {code}")
    # What it had not stored is forgotten, and the stations send it again.
    stage.was_killed = True
    gateway.config["bus"]["kafka"]["options"]["sasl.password"] = "right"
    stage.longest_wait = None
    stage.restart_gateway()
    stage.attempt(lambda: gateway.until_state("direct", timeout=60), "with the right password")
    stage.attempt(lambda: stage.go_on(2.0, timeout=60), "with the right password")
    stage.settle()


def _mentions(word: str, stage: Stage) -> Callable[[], bool]:
    return lambda: word in str(stage.gateway.bus["detail"]).lower()


def _counted(stage: Stage, count: int) -> None:
    name = "ocpp_gateway_bus_set_aside_total"
    wait_for(lambda: stage.gateway.metric(name, bus="events") >= count, f"{name} >= {count}", 90, 0.5)


def _are_reported(stage: Stage) -> None:
    """Fails unless every dead letter is in the log, and readable in its file with key and reason."""
    lines = [line for line in stage.gateway.log_text().splitlines() if "can never take this event" in line]
    found = stage.dead_letters()
    stage.expect(len(lines) >= len(found) > 0, f"{len(found)} dead letters, {len(lines)} lines in the log")
    stage.expect(all(one["reason"] and one["key"] for one in found), "a dead letter has no reason or no key")
