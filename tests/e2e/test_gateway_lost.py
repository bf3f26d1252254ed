"""Sessions that were open when the gateway was killed end once, as `gatewayLost`, before anything new of their stations.

On the local log, on Kafka, and on Kafka with a spool while Kafka is away. An event may be told again after a crash, and then it is the
same event.
"""

import asyncio
import random
import time
from datetime import datetime

import pytest
from harness.contract import violations
from harness.disk import COMPILER, Disk
from harness.fleet import VERSIONS
from harness.sessions import first_told, sessions_of
from harness.station import BOOT
from harness.waiting import wait_for
from harness.wire import Wire

CONNECTED, DISCONNECTED = "ocpp.station.connected", "ocpp.station.disconnected"


@pytest.fixture(params=["local", "kafka"])
def bus(request):
    """The configuration of a bus, and a function that reads its events."""
    if request.param == "local":
        return {}, lambda node: node.events()
    kafka, topics = request.getfixturevalue("kafka"), request.getfixturevalue("topics")
    config = {"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics}
    return config, lambda _: events_of(kafka, topics)


def events_of(broker, topics):
    return [record.event for record in broker.records(topics["events"])]


async def connect(node, numbers) -> list[Wire]:
    return await asyncio.gather(
        *(Wire.connect(node, f"CP-{number:03}", VERSIONS[number % len(VERSIONS)]) for number in numbers)
    )


async def told(read, node, count, what, timeout=30.0):
    """Waits until this many different events are there of which `what` is true; all events."""

    def look():
        events = read(node)
        return events if len({event.json["id"] for event in events if what(event)}) >= count else None

    return await asyncio.to_thread(wait_for, look, f"{count} events", timeout, 0.2)


def begins(event):
    return event.type == CONNECTED


def ends(event):
    return event.type == DISCONNECTED


def is_lost(event):
    return event.type == DISCONNECTED and event.data["reason"] == "gatewayLost"


def by_station(events):
    """Station -> its sessions, for a consumer that takes each event once."""
    stations = {}
    for event in first_told(events):
        stations.setdefault(event.station, []).append(event)
    return {station: sessions_of(its_events) for station, its_events in stations.items()}


async def test_each_open_session_ends_once_and_before_a_new_one_begins(gateway, bus):
    config, read = bus
    node = gateway(config)
    stations = await connect(node, range(30))
    for station in stations[:10]:
        await station.call("boot", "BootNotification", BOOT["1.6"])
    for station in stations[:5]:
        await station.leave()
    await told(read, node, 30, begins)
    await told(read, node, 5, ends)
    # So that the journal learns which `connected` events are durable: they are not told again.
    await asyncio.sleep(1.5)
    node.kill9()
    killed = time.time()
    await asyncio.to_thread(node.restart)
    again = await connect(node, range(15))
    await told(read, node, 45, begins)
    events = await told(read, node, 25, is_lost)

    assert len(events) == len({event.json["id"] for event in events}), "nothing was told twice"
    for event in filter(is_lost, events):
        assert violations(event.json) == []
        assert event.data["messagesIn"] is None
        assert event.data["closeCode"] is None
        begin = next(e for e in events if begins(e) and e.data["sessionId"] == event.data["sessionId"])
        began, ended = (datetime.fromisoformat(one.json["time"]).timestamp() for one in (begin, event))
        assert began <= ended <= killed
        assert event.data["durationMs"] == pytest.approx((ended - began) * 1000, abs=2)
    lives = by_station(events)
    for number in range(30):
        expected = ["stationClosed" if number < 5 else "gatewayLost"] + [None] * (number < 15)
        assert [session.reason for session in lives[f"CP-{number:03}"]] == expected
    assert node.metric("ocpp_gateway_sessions_closed_total", reason="gatewayLost") == 25
    assert "sessions=25" in node.log_text()

    # A shutdown leaves nothing open.
    assert await asyncio.to_thread(node.sigterm) == 0
    await asyncio.gather(*(station.end() for station in again))
    await asyncio.to_thread(node.restart)
    assert await asyncio.to_thread(node.sigterm) == 0
    await asyncio.to_thread(node.restart)
    lives = by_station(read(node))
    reasons = [session.reason for sessions in lives.values() for session in sessions]
    assert sorted(reasons) == ["gatewayLost"] * 25 + ["shutdown"] * 15 + ["stationClosed"] * 5


async def test_a_start_that_is_killed_tells_the_same_when_it_is_repeated(gateway, bus):
    config, read = bus
    node = gateway(config | {"log": {"level": "info"}})
    await connect(node, range(200))
    await told(read, node, 200, begins)
    node.kill9()
    moment = random.Random(3)
    for _ in range(6):
        node.start(until=None)
        # So that the kill comes at any moment of the start, and of what follows.
        await asyncio.sleep(0.05 + moment.random() * 0.4)
        node.kill9()
    await asyncio.to_thread(node.start)
    await connect(node, range(100))
    await told(read, node, 300, begins)
    events = await told(read, node, 200, is_lost)
    lives = by_station(events)
    assert len(lives) == 200
    for number in range(200):
        expected = ["gatewayLost"] + [None] * (number < 100)
        assert [session.reason for session in lives[f"CP-{number:03}"]] == expected


async def test_a_kill_at_any_moment_leaves_no_session_without_its_end(gateway, bus):
    """Connections that begin and end while the gateway is killed: whatever of them is told has a beginning and an end."""
    config, read = bus
    node = gateway(config | {"log": {"level": "info"}})
    moment = random.Random(5)

    async def come_and_go(number):
        while True:
            try:
                station = await Wire.connect(node, f"CP-{number:03}")
                await asyncio.sleep(moment.random() * 0.02)
                if number % 3:
                    await station.leave()
            except (OSError, ConnectionError):
                return

    for _ in range(4):
        stations = asyncio.gather(*(come_and_go(number) for number in range(40)), return_exceptions=True)
        # So that the kill comes at any moment of a session.
        await asyncio.sleep(0.5 + moment.random() * 0.2)
        node.kill9()
        await stations
        await asyncio.to_thread(node.restart)
    assert await asyncio.to_thread(node.sigterm) == 0
    await asyncio.to_thread(node.restart)
    events = read(node)
    sessions = [session for sessions in by_station(events).values() for session in sessions]
    assert all(session.reason for session in sessions), "every session has ended"
    lost = sum(session.reason == "gatewayLost" for session in sessions)
    print(f"\n{len(sessions)} sessions, {lost} of them lost, {len(events)} events for {len(first_told(events))}")
    assert lost > 0


async def test_lost_sessions_end_in_the_spool_while_kafka_is_away(gateway, own_kafka, tmp_path):
    own_kafka.start()
    topics = own_kafka.fresh_topics()
    spool = {"dir": str(tmp_path / "spool"), "after": "500ms"}
    node = gateway(
        {"bus": {"kind": "kafka", "kafka": {"brokers": own_kafka.address}, "spool": spool}, "topics": topics}
    )
    read = lambda _: events_of(own_kafka, topics)  # noqa: E731
    await connect(node, range(20))
    await told(read, node, 20, begins)
    own_kafka.pause()
    try:
        # Told in the spool only.
        await connect(node, range(20, 25))
        wait_for(lambda: node.get("/health").json()["bus"]["state"] == "spooling", "spooling", 20)
        node.kill9()
        await asyncio.to_thread(node.restart, until="/livez")
        stations = await connect(node, range(15))
        answer = await stations[0].call("boot", "BootNotification", BOOT["1.6"], timeout=20)
        assert answer[2]["status"] == "Accepted", "the spool has the event"
        node.kill9()
        await asyncio.to_thread(node.restart, until="/livez")
        await connect(node, range(5))
    finally:
        own_kafka.resume()
    events = await told(read, node, 40, is_lost, timeout=60)
    await told(read, node, 45, begins, timeout=60)
    assert await asyncio.to_thread(node.sigterm) == 0
    lives = by_station(read(node))
    for number in range(25):
        expected = ["gatewayLost"] + ["gatewayLost"] * (number < 15) + ["shutdown"] * (number < 5)
        assert [session.reason for session in lives[f"CP-{number:03}"]] == expected
    assert len(events) > 0


async def test_a_start_without_kafka_and_without_a_spool_keeps_the_order(gateway, own_kafka):
    own_kafka.start()
    topics = own_kafka.fresh_topics()
    # Fewer places than lost sessions: their ends wait for room, and new sessions wait for them.
    limits = {"kind": "kafka", "kafka": {"brokers": own_kafka.address}, "queue_events": 16}
    node = gateway({"bus": limits, "topics": topics})
    read = lambda _: events_of(own_kafka, topics)  # noqa: E731
    await connect(node, range(40))
    await told(read, node, 40, begins)
    node.kill9()
    own_kafka.pause()
    try:
        await asyncio.to_thread(node.start, until="/livez")
        stations = await connect(node, range(40))
        stations[0].send('[2,"held","Heartbeat",{}]')
        await stations[0].silence(1.0)
        assert node.get("/readyz").status_code == 503
    finally:
        own_kafka.resume()
    await told(read, node, 80, begins, timeout=60)
    lives = by_station(read(node))
    assert [[session.reason for session in sessions] for sessions in lives.values()] == [["gatewayLost", None]] * 40


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")
async def test_a_session_that_cannot_be_noted_tells_nothing_until_it_can(gateway, tmp_path):
    disk = Disk(tmp_path / "disk")
    node = gateway(start=False)
    node.environment = disk.environment
    node.start()
    await connect(node, range(1))
    node.await_events(lambda events: len(events) == 1, "the first session")
    with disk.holding("stations"):
        await connect(node, range(1, 4))
        await asyncio.to_thread(wait_for, lambda: node.metric("ocpp_gateway_sessions") == 4, "four sessions")
        assert len(node.events()) == 1, "no beginning without a note of it"
        node.kill9()
    node.start()
    lives = by_station(node.await_events(lambda events: any(map(is_lost, events)), "the end"))
    told_of = {station: [session.reason for session in sessions] for station, sessions in lives.items()}
    assert told_of["CP-000"] == ["gatewayLost"]
    assert all(reasons == ["gatewayLost"] for reasons in told_of.values()), "a beginning has an end"
    with disk.holding("stations"):
        await connect(node, range(4, 6))
        await asyncio.to_thread(wait_for, lambda: node.metric("ocpp_gateway_sessions") == 2, "two sessions")
        assert not any(event.station == "CP-004" for event in node.events())
    node.await_events(lambda events: {"CP-004", "CP-005"} <= {e.station for e in events}, "both sessions")
