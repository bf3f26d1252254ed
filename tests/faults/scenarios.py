"""Faults of Kafka, of the gateway and of the spool's disk: scenarios 1 to 6 and 8.

Each function is a scenario; the table shows its name, and `--list` the first line of its docstring as well.
"""

import random
import time
from collections.abc import Callable

from harness.follower import Follower, alter_topic
from harness.proxy import SlowProxy
from harness.tmpfs import Tmpfs
from harness.waiting import free_port, wait_for

from .stage import SPOOL_AFTER, Stage

MIB = 1 << 20


def _spools(stage: Stage) -> None:
    """Fails unless the outage is noticed and answers continue during it."""
    stage.attempt(lambda: stage.gateway.until_state("spooling", timeout=SPOOL_AFTER + 5), "after the fault")
    stage.attempt(lambda: stage.go_on(2.0, timeout=20), "while spooling")


def _recovers(stage: Stage) -> None:
    began = time.monotonic()
    stage.attempt(lambda: stage.gateway.until_state("direct", timeout=90), "after the fault")
    stage.note(f"direct {time.monotonic() - began:.1f} s after the end of the fault")
    stage.attempt(lambda: stage.go_on(1.0, timeout=60), "after the fault")


# -- 1 and 2: Kafka killed, Kafka frozen ------------------------------------------------------------------------


def kafka_killed_spool(stage: Stage) -> None:
    """1: Kafka is killed (-9) and restarted 30 s later; with a spool"""
    stage.play(spool=True)
    stage.broker.kill9()
    killed = time.monotonic()
    _spools(stage)
    time.sleep(max(0.0, killed + stage.outage(30) - time.monotonic()))
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def kafka_killed_hold(stage: Stage) -> None:
    """1: the same without a spool: answers are delayed, stations stay connected"""
    stage.play(spool=False)
    stage.broker.kill9()
    time.sleep(stage.outage(30))
    status = stage.load.status
    stage.expect(status.connected == stage.load.stations, f"only {status.connected} stations stayed connected")
    stage.expect(status.open >= stage.load.stations, f"only {status.open} CALLs are waiting")
    stage.expect(stage.gateway.get("/readyz").status_code == 503, "the gateway is ready while answers are delayed")
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def kafka_killed_close(stage: Stage) -> None:
    """1: the same with a short bus.hold_limit: stations are closed and refused until Kafka is back"""
    stage.play(spool=False, config={"bus": {"hold_limit": "6s", "kafka": {"unready_after": "2s"}}})
    stage.broker.kill9()
    closed = lambda status: status.closes["1013"] >= stage.load.stations  # noqa: E731
    stage.attempt(lambda: stage.load.until(closed, "every station to be closed with 1013", 30), "while holding")
    stage.attempt(lambda: stage.load.until(lambda status: status.refusals, "refused connections", 10), "while holding")
    time.sleep(stage.outage(15))
    stage.broker.start()
    _recovers(stage)
    verdict = stage.settle()
    stage.expect(not verdict.refused, "CALLs were answered with CALLERROR")


def kafka_frozen_spool(stage: Stage) -> None:
    """2: Kafka is frozen (SIGSTOP) for 60 s, then resumed; with a spool"""
    stage.play(spool=True)
    _freeze(stage, lambda: _spools(stage))
    stage.settle()


def kafka_frozen_hold(stage: Stage) -> None:
    """2: the same without a spool"""
    stage.play(spool=False)
    _freeze(stage, lambda: None)
    stage.settle()


def _freeze(stage: Stage, meanwhile: Callable[[], None]) -> None:
    stage.broker.pause()
    paused = time.monotonic()
    try:
        meanwhile()
        time.sleep(max(0.0, paused + stage.outage(60) - time.monotonic()))
    finally:
        stage.broker.resume()
    _recovers(stage)


# -- 3: Kafka refuses -------------------------------------------------------------------------------------------


def kafka_disk_full(stage: Stage) -> None:
    """3: Kafka's disk is full, and Kafka exits; then the disk is freed and Kafka restarted; with a spool"""
    broker = stage.prepare_kafka()
    disk = Tmpfs(broker.directory / "logs", 96 * MIB)
    stage.closing.callback(disk.unmount)
    stage.closing.callback(broker.stop)
    stage.play(spool=True)
    disk.fill(leave=MIB)
    stage.attempt(lambda: stage.gateway.until_state("spooling", timeout=60), "with a full disk")
    stage.attempt(lambda: stage.go_on(2.0, timeout=20), "while spooling")
    stage.note(f"Kafka's disk had {disk.free_bytes >> 10} KiB left")
    stage.broker.stop()
    disk.free()
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def replicas_missing_spool(stage: Stage) -> None:
    """3: min.insync.replicas = 2 and one of two brokers is killed; then 1 is enough; with a spool"""
    _lose_replica(stage, spool=True)
    _spools(stage)
    time.sleep(stage.outage(15))
    alter_topic(stage.broker, stage.topics["events"], min__insync__replicas="1")
    _recovers(stage)
    stage.settle()


def replicas_missing_hold(stage: Stage) -> None:
    """3: the same without a spool, and the second broker comes back"""
    follower = _lose_replica(stage, spool=False)
    time.sleep(stage.outage(15))
    stage.expect(stage.gateway.get("/readyz").status_code == 503, "the gateway is ready while replicas are missing")
    stage.note(f"/readyz said: {stage.gateway.get('/readyz').text.strip()}")
    follower.start()
    _recovers(stage)
    stage.settle()


def _lose_replica(stage: Stage, *, spool: bool) -> Follower:
    stage.start_kafka()
    follower = Follower(stage.broker).start()
    stage.closing.callback(follower.kill9)
    stage.topics = stage.broker.fresh_topics(replicas=2, config={"min.insync.replicas": "2"})
    stage.start_gateway({"bus": {"kafka": {"unready_after": "3s"}}}, spool=spool)
    stage.start_load()
    stage.go_on()
    follower.kill9()
    return follower


# -- 4 and 5: the gateway killed --------------------------------------------------------------------------------


def gateway_killed(stage: Stage) -> None:
    """4: the gateway is killed (-9) at random moments, 20 times"""
    stage.play(spool=True)
    stage.longest_wait = None
    chance = random.Random(4)
    for _ in range(stage.repetitions(20)):
        stage.go_on(0.5)
        time.sleep(chance.random())
        stage.kill_gateway()
        stage.restart_gateway()
    stage.settle()


def gateway_killed_spooling(stage: Stage) -> None:
    """4: the same 10 times while Kafka is away and events are spooled"""
    stage.play(spool=True)
    stage.longest_wait = None
    stage.broker.kill9()
    stage.gateway.until_state("spooling")
    chance = random.Random(5)
    for _ in range(stage.repetitions(10)):
        stage.go_on(0.5)
        time.sleep(chance.random())
        stage.kill_gateway()
        stage.restart_gateway()
        stage.gateway.until_state("spooling")
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def gateway_killed_draining(stage: Stage) -> None:
    """4: the same 10 times while the spool is drained"""
    stage.play(spool=True)
    stage.longest_wait = None
    chance = random.Random(6)
    kills = 0
    for _ in range(stage.repetitions(10)):
        # Enough in the spool to be killed in the middle of it.
        stage.broker.kill9()
        stage.gateway.until_state("spooling")
        wait_for(lambda: stage.gateway.bus["spool"]["records"] >= 3000, "3000 spooled events", 60)
        stage.broker.start()
        for _ in range(2):
            if stage.gateway.until_state("draining", "direct") == "draining":
                # Three thousand events drain in a few tenths of a second.
                time.sleep(chance.random() * 0.1)
                kills += stage.gateway.bus["state"] == "draining"
                stage.kill_gateway()
                stage.restart_gateway()
        stage.attempt(lambda: stage.gateway.until_state("direct", timeout=90), "after being killed while draining")
    stage.note(f"{kills} kills while draining")
    stage.expect(kills >= stage.repetitions(10) / 2, f"only {kills} kills hit a draining gateway")
    stage.settle()


def both_down(stage: Stage) -> None:
    """5: Kafka is killed, then the gateway; both are restarted, the gateway first"""
    stage.play(spool=True)
    stage.longest_wait = None
    stage.broker.kill9()
    _spools(stage)
    stage.kill_gateway()
    time.sleep(3.0)
    stage.restart_gateway()
    stage.attempt(lambda: stage.go_on(1.0, timeout=60), "with Kafka still away")
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def both_down_hold(stage: Stage) -> None:
    """5: the same without a spool: stations repeat what was not answered"""
    stage.play(spool=False)
    stage.broker.kill9()
    time.sleep(3.0)
    stage.kill_gateway()
    stage.restart_gateway()
    time.sleep(3.0)
    stage.broker.start()
    _recovers(stage)
    stage.settle()


# -- 6: the spool's disk ----------------------------------------------------------------------------------------


def spool_disk_full(stage: Stage) -> None:
    """6: the spool's disk is full while Kafka is away; it is freed before Kafka comes back"""
    disk = Tmpfs(stage.directory / "spool", 64 * MIB)
    stage.closing.callback(disk.unmount)
    stage.play(spool=True)
    stage.longest_wait = None
    disk.fill(leave=4 * MIB)
    stage.broker.kill9()
    stage.attempt(lambda: stage.gateway.until_state("spooling", timeout=15), "Kafka away")
    stage.attempt(lambda: stage.gateway.until_state("holding", timeout=90), "with a full disk")
    stage.note(f"holding: {stage.gateway.bus['detail']}")
    stage.expect(stage.gateway.get("/readyz").status_code == 503, "the gateway is ready with a full spool")
    time.sleep(stage.outage(10))
    status = stage.load.status
    stage.expect(status.connected == stage.load.stations, f"only {status.connected} stations stayed connected")
    disk.free()
    stage.attempt(lambda: stage.gateway.until_state("spooling", timeout=15), "with space again")
    stage.attempt(lambda: stage.go_on(1.0, timeout=30), "with space again")
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def spool_disk_full_drain(stage: Stage) -> None:
    """6: the spool's disk stays full; Kafka comes back, and the spool drains all the same"""
    disk = Tmpfs(stage.directory / "spool", 64 * MIB)
    stage.closing.callback(disk.unmount)
    stage.play(spool=True)
    stage.longest_wait = None
    disk.fill(leave=4 * MIB)
    stage.broker.kill9()
    stage.attempt(lambda: stage.gateway.until_state("holding", timeout=120), "with a full disk")
    stage.broker.start()
    _recovers(stage)
    stage.settle()


def spool_limit(stage: Stage) -> None:
    """6: bus.spool.max_size is reached while Kafka is away"""
    config = {"session": {"max_message_size": "16KiB"}, "bus": {"spool": {"max_size": "4MiB", "alarm_level": 0.5}}}
    stage.play(spool=True, config=config)
    stage.longest_wait = None
    stage.broker.kill9()
    stage.attempt(lambda: stage.gateway.until_state("holding", timeout=120), "with a full spool")
    stage.note(f"holding: {stage.gateway.bus['detail']}")
    stage.expect(stage.gateway.metric("ocpp_gateway_bus_spool_alarm", bus="events") == 1, "no alarm at the limit")
    bytes_on_disk = sum(file.stat().st_size for file in (stage.directory / "spool").glob("*.log"))
    stage.expect(bytes_on_disk <= 4 * MIB, f"{bytes_on_disk} bytes in a spool of 4 MiB")
    stage.broker.start()
    _recovers(stage)
    stage.expect(stage.gateway.metric("ocpp_gateway_bus_spool_alarm", bus="events") == 0, "the alarm is still on")
    stage.settle()


# -- 8: slow Kafka ----------------------------------------------------------------------------------------------

# What the documented formula allows, with a margin for the program itself: `docs/configuration.md`, Memory.
SLOW_QUEUE = 8 * MIB
SLOW_STATIONS = 600
SLOW_MEMORY = 2 * SLOW_QUEUE + SLOW_STATIONS * 40_000 + 64 * MIB


def kafka_slow_200ms(stage: Stage) -> None:
    """8: every response of Kafka takes 200 ms; stations send as fast as they can"""
    _slow(stage, 0.2)


def kafka_slow_2s(stage: Stage) -> None:
    """8: every response of Kafka takes 2 s; stations send as fast as they can"""
    _slow(stage, 2.0)


def _slow(stage: Stage, delay: float) -> None:
    inner, outer = free_port(), free_port()
    broker = stage.prepare_kafka()
    plain = f"PLAINTEXT://{broker.address}"
    # Clients of the listener SLOW are directed to the proxy; the stage's consumer uses the other listener.
    broker.properties |= {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SLOW:PLAINTEXT",
        "listeners": f"{plain},CONTROLLER://127.0.0.1:{broker.port + 1},SLOW://127.0.0.1:{inner}",
        "advertised.listeners": f"{plain},SLOW://127.0.0.1:{outer}",
    }
    broker.start()
    proxy = SlowProxy(outer, inner, 0.0)
    stage.closing.callback(proxy.close)
    bus = {
        "queue_events": 20_000,
        "queue_bytes": "8MiB",
        "kafka": {"brokers": f"127.0.0.1:{outer}", "unready_after": "30s"},
    }
    stage.start_gateway({"bus": bus}, spool=False)
    # Half of the stations do not wait for answers, so that a slow gateway stays under pressure.
    load = stage.start_load(SLOW_STATIONS, window=8, window_every=2, pace=0.5, large_every=3, large_bytes=4000)
    stage.go_on(2.0)
    rates = []
    for its_delay in (0.0, delay, 0.0):
        proxy.delay = its_delay
        before, began = load.status.answered, time.monotonic()
        time.sleep(stage.outage(15 if its_delay == 0 else 30))
        rates.append((load.status.answered - before) / (time.monotonic() - began))
        queued = stage.gateway.bus
        if its_delay:
            stage.note(f"in flight while slow: {queued['inFlightRecords']} events, {queued['inFlightBytes'] >> 10} KiB")
            connected = load.status.connected
            stage.expect(connected == SLOW_STATIONS, f"only {connected} stations stayed connected")
    stage.note("answers a second before, while and after: " + ", ".join(f"{rate:.0f}" for rate in rates))
    stage.settle()
    peak = stage.row.peak_rss
    stage.expect(peak <= SLOW_MEMORY, f"{peak / MIB:.0f} MiB of memory instead of at most {SLOW_MEMORY / MIB:.0f}")
