"""P2, P6 and P7: a blocked bus pauses stations and drops nothing; a misbehaving station harms only itself.

Without Kafka and with a tiny queue, every station waits: no CALLERROR, no disconnection, and memory that does not grow with what
stations try to send. Once Kafka is there, everything that was read is answered and stored in order. While the bus works, a station
that floods or reads no answers does not delay the others. Liveness: silence ends a connection, any frame prevents that, pings are
sent but need no answer, and a station that reads nothing is closed as a slow reader.
"""

import asyncio
import json
import os
import statistics
import time
from pathlib import Path

import pytest
from harness.fleet import Fleet
from harness.sessions import sessions_of
from harness.stall import stall
from harness.station import BOOT
from harness.waiting import wait_for
from harness.wire import Wire, call_text

MEBI = 1 << 20

# Kafka never starts in these tests, and what is lost at their end does not matter.
IMPATIENT = {"shutdown": {"deadline": "500ms", "close_spread": "100ms"}}


def resident(node) -> int:
    """The process's resident memory in bytes."""
    pages = int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def booted(node, identity, **options):
    wire = await Wire.connect(node, identity, **options)
    assert (await wire.call("boot", "BootNotification", BOOT["1.6"]))[0] == 3
    return wire


# -- a blocked bus --------------------------------------------------------------------------------------------------


async def test_without_kafka_stations_are_held_and_nothing_is_dropped(gateway, own_kafka):
    topics = {"events": "ocpp.events"}
    node = gateway(
        {
            "bus": {"kind": "kafka", "kafka": {"brokers": own_kafka.address}, "queue_events": 64},
            "topics": topics,
            # The flooders never boot.
            "registration": {"trigger_boot": False},
            "log": {"level": "info"},
        },
        until="/livez",
    )
    fleet = Fleet(50)
    await fleet.connect(node)
    fleet.begin()
    flooders = [await Wire.connect(node, f"FLOOD-{number}") for number in range(5)]
    payload = {"vendorId": "V", "data": "x" * 30_000}
    sent = dict.fromkeys(range(5), 0)

    def flood():
        for number, wire in enumerate(flooders):
            while wire.transport.get_write_buffer_size() < MEBI:
                wire.send(call_text(f"{sent[number]}", "DataTransfer", payload))
                sent[number] += 1

    before = resident(node)
    offered, since = -1, time.monotonic()
    # Until the gateway has taken nothing more for a second.
    while time.monotonic() - since < 1:
        flood()
        # Lets the loop write.
        await asyncio.sleep(0.05)
        assert fleet.ledger.answers == 0, "an answer without Kafka"
        if sum(sent.values()) != offered:
            offered, since = sum(sent.values()), time.monotonic()
    offered = sum(sent.values()) * 30_000
    grown = resident(node) - before
    assert not any(wire.texts for wire in flooders), "no answer of any kind, CALLERROR included"
    assert not any(wire.ended.done() for wire in [*flooders, *(member.wire for member in fleet.members)])
    bus = node.get("/stats").json()["bus"]
    assert bus["inFlightRecords"] == 64 == node.metric("ocpp_gateway_bus_queue_capacity_records", bus="events")
    assert node.metric("ocpp_gateway_reads_paused_total") > 0
    assert node.get("/readyz").status_code == 503
    print(f"\noffered {offered / MEBI:.0f} MiB, resident memory grew by {grown / MEBI:.1f} MiB")
    # 55 sessions may each hold one message and the library's buffers; the queue holds 64 records.
    assert grown < 24 * MEBI

    await asyncio.to_thread(own_kafka.start)
    await fleet.answers_reach(500, timeout=60)
    flooded = [0] * 5
    for number, wire in enumerate(flooders):
        # Everything that was sent is answered in the end: nothing was dropped.
        while flooded[number] < sent[number]:
            answer = await wire.receive(30)
            # Not registered: a CALLERROR, which is as durable as any other answer.
            assert answer[:2] == [4, f"{flooded[number]}"]
            assert answer[2] == "SecurityError"
            flooded[number] += 1
    node.process.terminate()
    await fleet.ended(20)
    assert await asyncio.to_thread(node.process.wait, 20) == 0
    events = [record.event for record in own_kafka.records("ocpp.events")]
    figures = fleet.ledger.compare(event for event in events if not event.station.startswith("FLOOD"))
    print(f"{figures}; {sum(sent.values())} large ones besides")
    assert figures.faults == {}
    assert fleet.faults == []
    for number in range(5):
        ids = [
            event.data["messageId"]
            for event in events
            if event.station == f"FLOOD-{number}" and event.type == "ocpp.message.received"
        ]
        assert ids == [f"{n}" for n in range(sent[number])]


async def test_the_queue_is_bounded_in_bytes_as_well(gateway, own_kafka):
    node = gateway(
        {"bus": {"kind": "kafka", "kafka": {"brokers": own_kafka.address}, "queue_bytes": "4MiB"}} | IMPATIENT,
        until="/livez",
    )
    wires = [await Wire.connect(node, f"CP-{number}") for number in range(20)]
    payload = {"vendorId": "V", "data": "x" * 200_000}
    for wire in wires:
        for number in range(8):
            wire.send(call_text(f"{number}", "DataTransfer", payload))
    wait_for(lambda: node.metric("ocpp_gateway_reads_paused_total") >= 20, "every station to be paused")
    bus = node.get("/stats").json()["bus"]
    assert 3 * MEBI < bus["inFlightBytes"] <= 4 * MEBI
    assert bus["inFlightRecords"] <= 80, "at most four of each station's eight messages"
    for wire in wires:
        wire.reset()


@pytest.mark.parametrize("answered", [True, False], ids=["CALL", "SEND"])
async def test_no_station_fills_the_bus_with_large_messages(gateway, own_kafka, answered):
    """`session.max_unacknowledged_size` bounds a station's share in bytes, SENDs included, and is released by the bus alone."""
    kafka = {"kind": "kafka", "kafka": {"brokers": own_kafka.address}}
    node = gateway({"bus": kafka, "session": {"max_unacknowledged_size": "256KiB"}} | IMPATIENT, until="/livez")
    wires = [await Wire.connect(node, f"CP-{number}", version="2.1") for number in range(3)]
    data = "x" * 200_000
    for wire in wires:
        for number in range(8):
            call = call_text(f"{number}", "DataTransfer", {"vendorId": "V", "data": data})
            send = json.dumps([6, f"{number}", "NotifyPeriodicEventStream", {"data": data}])
            wire.send(call if answered else send)
    wait_for(lambda: node.metric("ocpp_gateway_reads_paused_total") >= 3, "every station to be paused")
    # No more must be taken in from here on.
    await asyncio.sleep(0.3)
    bus = node.get("/stats").json()["bus"]
    assert 3 * 400_000 < bus["inFlightBytes"] < 3 * 420_000, "two of each station's eight messages"
    await asyncio.to_thread(own_kafka.start)

    def ids():
        records = own_kafka.records("ocpp.events")
        received = [one.event for one in records if one.event.type == "ocpp.message.received"]
        return {f"CP-{n}": [one.data["messageId"] for one in received if one.station == f"CP-{n}"] for n in range(3)}

    await asyncio.to_thread(
        wait_for, lambda: all(len(found) == 8 for found in ids().values()), "all of them in Kafka", 60, 1
    )
    assert all(found == [f"{number}" for number in range(8)] for found in ids().values())
    for wire in wires:
        wire.reset()


# -- one station and the others ---------------------------------------------------------------------------------------


async def latencies(wires, seconds) -> list[float]:
    """How long each CALL of these stations took over some seconds; each has one CALL open at a time."""
    took: list[float] = []
    end = time.monotonic() + seconds

    async def talk(wire):
        number = 0
        while time.monotonic() < end:
            number += 1
            began = time.monotonic()
            answer = await wire.call(f"t{began}-{number}"[:36], "Heartbeat", {})
            took.append(time.monotonic() - began)
            assert answer[0] == 3
            # The pace of an ordinary station.
            await asyncio.sleep(0.02)

    await asyncio.gather(*(talk(wire) for wire in wires))
    return took


def slowest(took) -> str:
    return f"median {statistics.median(took) * 1e3:.1f} ms, greatest {max(took) * 1e3:.0f} ms of {len(took)}"


async def send_without_end(wire, payload):
    """As much as the socket takes, in small portions: the other stations live in the same process."""
    number = 0
    while not wire.transport.is_closing():
        for _ in range(20):
            if wire.transport.get_write_buffer_size() < 200_000:
                number += 1
                wire.send(call_text(f"{number:036}", "DataTransfer", payload))
        # Lets the loop write, and the others have their turn.
        await asyncio.sleep(0.001)


@pytest.mark.serial
@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "deaf"])
async def test_a_flood_does_not_delay_the_others(gateway, reads, size):
    node = gateway({"log": {"level": "info"}})
    others = [await booted(node, f"CP-{number}") for number in range(10)]
    alone = await latencies(others, 1)
    flooder = await booted(node, "FLOOD")
    flooder.on_text = lambda text: None
    if not reads:
        flooder.stop_reading()
    flood = asyncio.create_task(send_without_end(flooder, {"vendorId": "V", "data": "x" * size}))
    beside = await latencies(others, 3)
    flooded = node.get("/api/v1/stations/FLOOD").json()
    flooder.reset()
    await flood
    print(f"\nalone: {slowest(alone)}; beside {flooded.get('messagesIn')} floods: {slowest(beside)}")
    assert len(beside) > 10 * 3 / 0.02 / 10
    assert statistics.median(beside) < max(0.05, 10 * statistics.median(alone))
    assert max(beside) < 1.5
    for wire in others:
        await wire.leave()


async def test_the_messages_of_a_station_wait_in_its_own_socket(gateway):
    """`session.max_unacknowledged` bounds what the gateway holds of one station, however much it sends."""
    node = gateway({"session": {"max_unacknowledged": 4}, "log": {"level": "info"}})
    deaf = await Wire.connect(node, "CP-1", receive_buffer=4096)
    await deaf.call("boot", "BootNotification", BOOT["1.6"])
    before = resident(node)
    sent = await stall(node, deaf, "CP-1", quiet=1, buffer=MEBI)
    assert node.get("/api/v1/stations/CP-1").json()["messagesIn"] < sent, "it was stopped"
    assert resident(node) - before < 12 * MEBI
    deaf.reset()


# -- liveness -------------------------------------------------------------------------------------------------------


async def ended_with(node, identity, reason):
    events = await asyncio.to_thread(
        node.await_events,
        lambda events: events and events[-1].type == "ocpp.station.disconnected",
        "the end of the session",
        station=identity,
    )
    sessions = sessions_of(events)
    assert sessions[-1].reason == reason
    return events[-1].data


async def test_silence_ends_a_connection(gateway):
    node = gateway({"session": {"idle_timeout": "1s", "ping_interval": "0s"}})
    began = time.monotonic()
    wire = await booted(node, "CP-1")
    assert await wire.end(5) == 1008
    assert 0.9 < time.monotonic() - began < 3
    assert (await ended_with(node, "CP-1", "idle"))["closeCode"] == 1008


async def test_pings_keep_a_station_that_answers_them(gateway):
    node = gateway({"session": {"idle_timeout": "1s", "ping_interval": "200ms"}})
    wire = await booted(node, "CP-1")
    began = time.monotonic()
    await asyncio.to_thread(wait_for, lambda: wire.pings >= 10, "ten pings")
    assert time.monotonic() - began > 1.4, "no more than one each interval"
    assert not wire.ended.done(), "twice the idle timeout has passed"
    pongs = lambda: node.metric("ocpp_gateway_ping_round_trip_seconds_count")  # noqa: E731
    await asyncio.to_thread(wait_for, lambda: pongs() >= 10, "ten pongs")
    await wire.leave()


async def test_a_station_that_reads_nothing_is_closed(gateway):
    """By the kernel or by the session: both wait for `session.write_timeout`, and the kernel starts counting sooner."""
    limit = 2.0
    node = gateway({"session": {"write_timeout": f"{limit}s", "close_timeout": "1s"}, "log": {"level": "info"}})
    deaf = await Wire.connect(node, "CP-1", receive_buffer=4096)
    await deaf.call("boot", "BootNotification", BOOT["1.6"])
    deaf.stop_reading()
    number, began = 0, time.monotonic()
    while node.get("/api/v1/stations/CP-1").json()["connected"]:
        while deaf.transport.get_write_buffer_size() < 100_000 and not deaf.transport.is_closing():
            number += 1
            deaf.send(call_text(f"{number:036}", "Heartbeat", {}))
        # Lets the loop write.
        await asyncio.sleep(0.05)
        assert time.monotonic() - began < limit + 5, "still connected"
    assert time.monotonic() - began > limit
    deaf.reset()
    events = node.await_events(lambda events: len(events) == 1, "its end", type="ocpp.station.disconnected")
    assert events[0].data["reason"] in ("slowReader", "connectionLost")
