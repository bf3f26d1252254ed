"""P5 and P3 in races: the newest connection of an identity wins, and the events of each session are complete and in order.

A thousand races of one identity in several spellings: in each, an old socket does something while one or more new ones connect. After
every race the newest one is served and shown by the admin API. At the end the log holds one session after another: one `connected`,
one `disconnected`, everything else in between, and session numbers that only grow.

Races that a thousand repetitions would rarely hit are forced in tests of their own, with a disk that hangs or a socket that is full.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import requests
from harness.disk import COMPILER, Disk
from harness.sessions import sessions_of
from harness.stall import stall
from harness.station import BOOT
from harness.waiting import wait_for
from harness.wire import Wire, call_text, frame

RACES = 1000
SPELLINGS = ["CP-Race", "cp-race", "CP-RACE", "cP-rAcE"]
REGISTERED = SPELLINGS[0]

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")


class Arena:
    """One station identity whose connections race."""

    def __init__(self, node) -> None:
        self.node = node
        self.random = random.Random(5)
        self.http = requests.Session()
        self.session_id = ""
        self.left: list[Wire] = []
        self.ids = 0
        self.again = 0

    async def close(self) -> None:
        self.http.close()
        for wire in self.left:
            wire.reset()
            await wire.end()

    def heartbeat(self) -> str:
        self.ids += 1
        return call_text(f"h{self.ids}", "Heartbeat", {})

    async def moment(self) -> None:
        """No time, a turn of the loop, or up to 3 ms, so that the same race ends differently."""
        kind = self.random.randrange(3)
        if kind:
            await asyncio.sleep(0 if kind == 1 else self.random.random() * 0.003)

    async def ask(self, behind: bytes = b"") -> Wire:
        """Opens a new socket and sends its handshake."""
        wire = await Wire.dial(self.node.port)
        wire.ask(self.random.choice(SPELLINGS), self.random.choice(["1.6", "2.0.1", "2.1"]), behind=behind)
        self.left.append(wire)
        return wire

    async def newest(self, wire: Wire) -> None:
        """Waits until this connection is answered, which ends the race; the API must show it, with a greater session number."""
        await wire.upgraded()
        self.ids += 1
        wire.send(call_text(f"n{self.ids}", "Heartbeat", {}))
        # What was sent behind the handshake is answered first.
        while (await wire.receive())[1] != f"n{self.ids}":
            pass
        shown = self.http.get(f"{self.node.admin_url}/api/v1/stations/{REGISTERED.lower()}", timeout=10).json()
        assert shown["remoteAddress"] == wire.address, "the newest session is the one that is shown"
        assert shown["sessionId"] > self.session_id, "its number is the greatest"
        assert shown["id"] == REGISTERED
        self.session_id = shown["sessionId"]


async def old_is_silent(arena, old):
    return await arena.ask()


async def old_is_sending(arena, old):
    new = await arena.ask()
    for _ in range(6):
        if not old.transport.is_closing():
            old.send(arena.heartbeat())
        await arena.moment()
    return new


async def old_waits_for_answers(arena, old):
    for _ in range(arena.random.randrange(1, 12)):
        old.send(arena.heartbeat())
    await arena.moment()
    return await arena.ask()


async def old_is_closing(arena, old):
    old.say_goodbye()
    await arena.moment()
    return await arena.ask()


async def old_closes_with_answers_pending(arena, old):
    old.send(arena.heartbeat())
    old.send(arena.heartbeat())
    old.say_goodbye()
    await arena.moment()
    return await arena.ask()


async def old_closes_while_the_new_one_comes(arena, old):
    new = await arena.ask()
    await arena.moment()
    if not old.transport.is_closing():
        old.say_goodbye()
    return new


async def old_is_half_closed(arena, old):
    old.send(arena.heartbeat())
    old.half_close()
    await arena.moment()
    return await arena.ask()


async def old_is_reset(arena, old):
    old.send(arena.heartbeat())
    old.reset()
    await arena.moment()
    return await arena.ask()


async def old_is_reset_while_the_new_one_comes(arena, old):
    new = await arena.ask()
    await arena.moment()
    old.reset()
    return new


async def old_is_in_the_middle_of_a_message(arena, old):
    old.send_bytes(frame(1, b'[2,"x","Heartb', fin=False))
    old.send_bytes(frame(0, b"eat", fin=False)[: arena.random.randrange(1, 9)])
    await arena.moment()
    return await arena.ask()


async def old_breaks_the_rules(arena, old):
    old.send_bytes(b"\xff\xff\xff\xff")
    await arena.moment()
    return await arena.ask()


async def new_sends_before_its_handshake_is_answered(arena, old):
    text = arena.heartbeat()
    return await arena.ask(behind=frame(1, text.encode()))


async def one_between_resets_during_its_handshake(arena, old):
    """Two handshakes at once: the one that was reset may be processed last, and then the station must connect again."""
    between = await arena.ask()
    await arena.moment()
    between.reset()
    new = await arena.ask()
    await new.upgraded()
    new.send(arena.heartbeat())
    try:
        await new.receive()
    except ConnectionError:
        arena.again += 1
        new = await arena.ask()
    return new


async def one_between_resets_after_its_handshake(arena, old):
    between = await arena.ask()
    await between.upgraded()
    new = await arena.ask()
    between.reset()
    return new


async def several_one_after_the_other(arena, old):
    """Each has its 101 before the next one connects: there is no doubt which is the newest."""
    for _ in range(arena.random.randrange(2, 5)):
        new = await arena.ask()
        await new.upgraded()
        if not new.transport.is_closing():
            new.send(arena.heartbeat())
    return new


async def several_at_once(arena, old):
    """Nobody can say which of them is the newest; exactly one stays, and the others are closed as replaced."""
    several = await asyncio.gather(*(arena.ask() for _ in range(arena.random.randrange(2, 6))))
    await asyncio.gather(*(wire.upgraded() for wire in several))
    done, staying = await asyncio.wait(
        [asyncio.create_task(wire.end()) for wire in several], return_when="FIRST_COMPLETED"
    )
    while len(staying) > 1:
        done, staying = await asyncio.wait(staying, return_when="FIRST_COMPLETED", timeout=10)
        assert done, f"{len(staying)} connections of one identity stay open"
    for task in staying:
        task.cancel()
    gone = [wire for wire in several if wire.ended.done()]
    assert len(gone) == len(several) - 1, "one stays"
    # Without a close frame: replaced before its own predecessor had ended, and so before it began.
    assert {wire.close_code for wire in gone} <= {1008, None}
    return next(wire for wire in several if wire not in gone)


SCENARIOS = [
    old_is_silent,
    old_is_sending,
    old_waits_for_answers,
    old_is_closing,
    old_closes_with_answers_pending,
    old_closes_while_the_new_one_comes,
    old_is_half_closed,
    old_is_reset,
    old_is_reset_while_the_new_one_comes,
    old_is_in_the_middle_of_a_message,
    old_breaks_the_rules,
    new_sends_before_its_handshake_is_answered,
    one_between_resets_during_its_handshake,
    one_between_resets_after_its_handshake,
    several_one_after_the_other,
    several_at_once,
]


@pytest.mark.serial
async def test_a_thousand_races(gateway):
    began = time.monotonic()
    # A connection abandoned in the middle of a frame cannot answer a close frame.
    node = gateway({"log": {"level": "info"}, "session": {"close_timeout": "200ms"}})
    arena = Arena(node)
    newest = await arena.ask()
    await newest.upgraded()
    await newest.leave()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(arena.close)
        newest = await Wire.connect(node, REGISTERED)
        await newest.call("boot", "BootNotification", BOOT["1.6"])
        for race in range(RACES):
            scenario = SCENARIOS[race % len(SCENARIOS)]
            try:
                newest = await scenario(arena, newest)
                await arena.newest(newest)
            except Exception as error:
                raise AssertionError(f"race {race}, {scenario.__name__}: {error!r}") from error
            arena.left = [wire for wire in arena.left if wire is newest or not wire.ended.done()]
            assert node.running
        assert len(node.get("/api/v1/stations?connected=true").json()["stations"]) == 1
        await newest.leave()
    wait_for(lambda: node.metric("ocpp_gateway_sessions") == 0, "every session to end")

    # The first session began before the station was registered, and so in its own spelling.
    sessions = sessions_of(node.events(station=REGISTERED))
    assert all(one.reason is not None for one in sessions), "every session has ended"
    assert {one.station for one in sessions[1:]} == {REGISTERED}, "one spelling in every event"
    assert sessions[-1].id == arena.session_id
    assert len(sessions) > RACES
    # How often depends on the machine.
    assert arena.again < RACES // len(SCENARIOS), "an abandoned handshake must not always win"
    opened = sum(
        node.metric("ocpp_gateway_sessions_opened_total", version=version) for version in ("1.6", "2.0.1", "2.1")
    )
    assert opened == len(sessions)
    replaced = sum(one.replaced is not None for one in sessions)
    assert node.metric("ocpp_gateway_replacements_total") == replaced
    print(
        f"\n{RACES} races in {time.monotonic() - began:.0f} s: {len(sessions)} sessions, {replaced} replaced another one; "
        f"{dict(Counter(one.reason for one in sessions))}; came again: {arena.again}"
    )


async def test_spellings_that_differ_in_case_never_hold_two_sessions(gateway):
    node = gateway()
    wires: list[Wire] = []

    def one_is_left() -> bool:
        stations = node.get("/api/v1/stations?connected=true").json()["stations"]
        assert len(stations) == 1, stations
        return sum(not wire.ended.done() for wire in wires) == 1

    for _ in range(20):
        several = [await Wire.dial(node.port) for _ in SPELLINGS]
        for wire, spelling in zip(several, SPELLINGS, strict=True):
            wire.ask(spelling)
        wires += several
        await asyncio.gather(*(wire.upgraded() for wire in several))
        await asyncio.to_thread(wait_for, one_is_left, "one session to be left", 10, 0.01)
    last = next(wire for wire in wires if not wire.ended.done())
    assert node.get("/api/v1/stations/cp-race").json()["remoteAddress"] == last.address
    await last.leave()
    sessions_of(node.events(station=REGISTERED))


async def test_an_old_connection_that_does_not_read_does_not_delay_the_new_one(gateway):
    """The old socket is full of unread answers, as after a cut cable; the station is back and must be served."""
    node = gateway({"session": {"close_timeout": "1s"}})
    old = await Wire.connect(node, "CP-1", receive_buffer=4096)
    await old.call("boot", "BootNotification", BOOT["1.6"])
    await stall(node, old, "CP-1")
    new = await Wire.connect(node, "CP-1")
    began = time.monotonic()
    await new.call("new", "Heartbeat", {}, timeout=20)
    assert time.monotonic() - began < 3, "little longer than session.close_timeout"
    await new.leave()
    old.reset()
    ends = lambda events: sum(event.type == "ocpp.station.disconnected" for event in events)  # noqa: E731
    sessions = sessions_of(node.await_events(lambda events: ends(events) == 2, "both ends", station="CP-1"))
    assert [one.reason for one in sessions] == ["replaced", "stationClosed"]


def queues(wire, port):
    """Bytes that the gateway has not read from a connection, and bytes that the station's kernel has not delivered."""
    _, _, own = wire.address.rpartition(":")
    unread = unsent = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, waiting, *_ = line.split()
        ends = [int(end.rpartition(":")[2], 16) for end in (local, remote)]
        sending, receiving = (int(count, 16) for count in waiting.split(":"))
        if ends == [port, int(own)]:
            unread = receiving
        elif ends == [int(own), port]:
            unsent = sending
    return unread, unsent


async def test_an_old_connection_that_closes_without_reading_ends_before_the_next_begins(gateway):
    """Its answers are stuck when its close frame is read, so its end takes a while, and the next session's events wait for it."""
    node = gateway({"session": {"close_timeout": "1s", "max_unacknowledged": 100_000}})
    old = await Wire.connect(node, "CP-1", receive_buffer=256 * 1024)
    await old.call("boot", "BootNotification", BOOT["1.6"])
    old.stop_reading()
    # Many more answers than the kernel buffers, and then a close frame: the gateway reads all of it.
    for number in range(16_000):
        old.send(call_text(f"{number:036}", "Heartbeat", {}))
    old.say_goodbye()
    read = lambda: not node.get("/api/v1/stations/CP-1").json()["connected"]  # noqa: E731
    try:
        await asyncio.to_thread(wait_for, read, "the close frame to be read", 40)
    except AssertionError:
        # Linux drops what a full receive buffer has no room for, and then discards the peer's acknowledgements as out of
        # window: the station's data crawls from one retransmission to the next. That is not the gateway's fault if it has
        # read everything that arrived.
        unread, unsent = queues(old, node.port)
        assert unread == 0, f"the gateway left {unread} bytes unread"
        assert unsent > 0, "everything was delivered, but the close frame was not noticed"
        pytest.skip(f"the kernel does not deliver the station's last {unsent} bytes")
    new = await Wire.connect(node, "CP-1")
    await new.call("new", "Heartbeat", {}, timeout=20)
    await new.leave()
    old.reset()
    sessions = sessions_of(node.events(station="CP-1"))
    assert [one.reason for one in sessions] == ["stationClosed", "stationClosed"]


@needs_compiler
async def test_the_order_holds_while_the_bus_is_full(gateway, tmp_path):
    """The last events of a session that ends while the bus is full come before its successor's first."""
    disk = Disk(tmp_path / "disk")
    node = gateway({"bus": {"queue_events": 16}}, start=False)
    node.environment = disk.environment
    node.start()
    old = await Wire.connect(node, "CP-1")
    others = [await Wire.connect(node, f"CP-{number}") for number in range(2, 6)]
    for station in (old, *others):
        await station.call("boot", "BootNotification", BOOT["1.6"])
    # Two events are due when the old one ends: the command's outcome and its own end.
    command = asyncio.create_task(
        asyncio.to_thread(node.post, "/api/v1/stations/CP-1/commands", {"action": "ClearCache", "payload": {}})
    )
    assert (await old.receive())[2] == "ClearCache"
    with disk.holding():
        for station in others:
            for number in range(9):
                station.send(call_text(f"{number}", "Heartbeat", {}))
        bus = lambda: node.get("/stats").json()["bus"]["inFlightRecords"]  # noqa: E731
        wait_for(lambda: bus() == 16, "the bus to be full")
        old.reset()
        new = await Wire.connect(node, "CP-1")
        shown = lambda: node.get("/api/v1/stations/CP-1").json()  # noqa: E731
        wait_for(lambda: shown().get("remoteAddress") == new.address, "the new one to be connected")
        new.send(call_text("new", "Heartbeat", {}))
    assert (await new.receive())[1] == "new"
    assert (await command).json()["status"] in ("offline", "replaced")
    await new.leave()
    for station in others:
        await station.leave()
    sessions = sessions_of(node.events(station="CP-1"))
    assert len(sessions) == 2
