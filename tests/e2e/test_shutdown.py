"""P8, graceful shutdown: SIGTERM makes the gateway unready, refuses new stations, and costs no station an answer.

What is in flight is answered, stations are closed with 1001 spread over `shutdown.close_spread`, every event is durable, and the
process exits with code 0 by `shutdown.deadline`, even if stations do not answer, subscribers stay, handshakes are incomplete, or
Kafka is away.
"""

import asyncio
import signal
import socket
import time

import pytest
import requests
from harness.disk import COMPILER, Disk
from harness.fleet import Fleet
from harness.sessions import sessions_of
from harness.stall import stall
from harness.station import BOOT
from harness.waiting import free_port, wait_for
from harness.wire import RefusedError, Wire

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")


async def gone(node, within: float) -> int:
    """Waits for the process to end; its exit code."""
    return await asyncio.to_thread(node.process.wait, within)


def read(node) -> int:
    """Messages that the gateway has read from all connected stations."""
    return sum(one["messagesIn"] for one in node.get("/api/v1/stations").json()["stations"])


@pytest.mark.serial
async def test_busy_stations_are_closed_one_by_one(gateway):
    spread, deadline = 2.0, 10.0
    node = gateway({"shutdown": {"close_spread": f"{spread}s", "deadline": f"{deadline}s"}, "log": {"level": "info"}})
    fleet = Fleet(60)
    await fleet.connect(node)
    fleet.begin()
    await fleet.answers_reach(1000)
    closed: dict[str, float] = {}

    async def watch(member):
        await member.wire.end(deadline)
        closed[member.identity] = time.monotonic()

    watchers = [asyncio.create_task(watch(member)) for member in fleet.members]
    # A turn of the loop, in which every task starts.
    await asyncio.sleep(0)

    began = time.monotonic()
    node.process.send_signal(signal.SIGTERM)

    def unready():
        return node.get("/readyz").status_code == 503

    await asyncio.to_thread(wait_for, unready, "not ready", timeout=0.5, interval=0.01)
    assert "draining" in node.get("/readyz").text
    assert node.get("/livez").status_code == 200, "draining is not being dead"
    with pytest.raises((RefusedError, OSError)):
        await Wire.connect(node, "CP-NEW")

    await asyncio.gather(*watchers)
    assert await gone(node, deadline) == 0
    took = time.monotonic() - began
    assert spread * 0.9 < took < deadline

    assert {member.wire.close_code for member in fleet.members} == {1001}
    moments = sorted(moment - began for moment in closed.values())
    assert moments[0] < spread / 4
    assert moments[-1] > spread * 0.9
    for third in range(3):
        share = sum(third * spread / 3 <= moment < (third + 1) * spread / 3 for moment in moments)
        assert share >= len(moments) / 6, f"not spread evenly: {moments}"

    assert fleet.faults == []
    await asyncio.to_thread(node.restart)
    events = node.events()
    figures = fleet.ledger.compare(events)
    print(f"\ngone after {took:.1f} s, closed from {moments[0]:.2f} to {moments[-1]:.2f} s: {figures}")
    assert figures.faults == {}
    assert figures.unanswered_stored == 0, "what was in flight was answered"
    for member in fleet.members:
        sessions = sessions_of(event for event in events if event.station == member.identity)
        assert [one.reason for one in sessions] == ["shutdown"]
    ends = [event.data["closeCode"] for event in events if event.type == "ocpp.station.disconnected"]
    assert ends == [1001] * len(fleet.members)


@needs_compiler
async def test_what_is_in_flight_is_answered_before_the_close(gateway, tmp_path):
    disk = Disk(tmp_path / "disk")
    node = gateway(start=False)
    node.environment = disk.environment
    node.start()
    stations = [await Wire.connect(node, f"CP-{number}") for number in range(5)]
    for station in stations:
        await station.call("boot", "BootNotification", BOOT["1.6"])
    with disk.holding():
        for station in stations:
            for number in range(3):
                station.send(f'[2,"{number}","Heartbeat",{{}}]')
        wait_for(lambda: read(node) == 20, "all CALLs to be read")
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: node.get("/readyz").status_code == 503, "not ready")
        await asyncio.gather(*(station.silence(0.5) for station in stations))
    for station in stations:
        assert [(await station.receive())[:2] for _ in range(3)] == [[3, "0"], [3, "1"], [3, "2"]]
        assert await station.end() == 1001
    assert await gone(node, 10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_without_stations_it_exits_at_once(gateway, number):
    node = gateway({"shutdown": {"close_spread": "10s", "deadline": "30s"}})
    node.process.send_signal(number)
    assert await gone(node, 3) == 0


async def test_stations_full_of_answers_do_not_outlast_the_deadline(gateway):
    node = gateway({"session": {"close_timeout": "1s"}, "shutdown": {"deadline": "3s"}, "log": {"level": "info"}})
    deaf = await Wire.connect(node, "CP-DEAF", receive_buffer=4096)
    await deaf.call("boot", "BootNotification", BOOT["1.6"])
    await stall(node, deaf, "CP-DEAF")
    node.process.send_signal(signal.SIGTERM)
    assert await gone(node, 4.5) == 0
    deaf.reset()


async def test_incomplete_handshakes_and_subscribers_do_not_outlast_the_deadline(gateway):
    node = gateway({"handshake": {"timeout": "60s"}, "shutdown": {"deadline": "3s"}})
    with (
        socket.create_connection(("127.0.0.1", node.port)) as silent,
        socket.create_connection(("127.0.0.1", node.port)) as half,
        requests.get(f"{node.admin_url}/api/v1/events", stream=True, timeout=10),
        socket.create_connection(("127.0.0.1", node.admin_port)),
    ):
        half.sendall(b"GET /ocpp/CP-1 HTTP/1.1\r\nHost: gateway\r\n")
        wait_for(lambda: node.metric("ocpp_gateway_handshakes_in_progress") == 2, "both to be accepted")
        node.process.send_signal(signal.SIGTERM)
        assert await gone(node, 4.5) == 0
        silent.settimeout(1)
        assert silent.recv(1) == b""


async def test_an_incomplete_handshake_does_not_delay_the_shutdown(gateway):
    """A load balancer's probe or a scanner: no station is behind such a connection."""
    node = gateway({"handshake": {"timeout": "60s"}, "shutdown": {"deadline": "30s"}})
    with socket.create_connection(("127.0.0.1", node.port)):
        wait_for(lambda: node.metric("ocpp_gateway_handshakes_in_progress") == 1, "it to be accepted")
        node.process.send_signal(signal.SIGTERM)
        assert await gone(node, 5) == 0


async def test_the_deadline_applies_when_kafka_is_away(gateway):
    nobody = f"127.0.0.1:{free_port()}"
    node = gateway(
        {
            "bus": {"kind": "kafka", "kafka": {"brokers": nobody}},
            "shutdown": {"deadline": "3s", "close_spread": "500ms"},
        },
        until="/livez",
    )
    stations = [await Wire.connect(node, f"CP-{number}") for number in range(20)]
    for station in stations:
        station.send('[2,"boot","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
    wait_for(lambda: node.get("/stats").json()["bus"]["inFlightRecords"] == 40, "every event to wait")
    node.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert await gone(node, 5) == 0
    took = time.monotonic() - began
    assert 2 < took < 4.5, f"{took:.1f} s: it tries until the deadline, and not longer"
    assert not any(station.texts for station in stations), "nothing was answered"
    assert "not durable" in node.log_text(), "it reports that something was not stored"
    await asyncio.gather(*(station.end() for station in stations))


async def test_events_reach_a_kafka_that_comes_back_in_time(gateway, kafka, topics):
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    stations = [await Wire.connect(node, f"CP-{number}") for number in range(10)]
    for station in stations:
        await station.call("boot", "BootNotification", BOOT["1.6"])
    kafka.pause()
    try:
        for station in stations:
            station.send('[2,"last","Heartbeat",{}]')
        wait_for(lambda: read(node) == 20, "all CALLs to be read")
        node.process.send_signal(signal.SIGTERM)
        wait_for(lambda: node.get("/readyz").status_code == 503, "not ready")
        await asyncio.gather(*(station.silence(1.0) for station in stations))
    finally:
        kafka.resume()
    for station in stations:
        assert (await station.receive())[:2] == [3, "last"]
        assert await station.end() == 1001
    assert await gone(node, 10) == 0
    records = kafka.records(topics["events"])
    for number in range(10):
        published = [
            (record.event.type, record.event.data.get("messageId"))
            for record in records
            if record.key == f"CP-{number}"
        ]
        assert published == [
            ("ocpp.station.connected", None),
            ("ocpp.message.received", "boot"),
            ("ocpp.message.sent", "boot"),
            ("ocpp.message.received", "last"),
            ("ocpp.message.sent", "last"),
            ("ocpp.station.disconnected", None),
        ]


async def test_a_second_signal_ends_it_at_once(gateway):
    node = gateway({"shutdown": {"close_spread": "20s", "deadline": "30s"}})
    stations = [await Wire.connect(node, f"CP-{number}") for number in range(3)]
    node.process.send_signal(signal.SIGTERM)
    wait_for(lambda: node.get("/readyz").status_code == 503, "not ready")
    node.process.send_signal(signal.SIGTERM)
    assert await gone(node, 3) == 1
    assert "second signal" in node.log_text().splitlines()[-1]
    await asyncio.gather(*(station.end() for station in stations))
