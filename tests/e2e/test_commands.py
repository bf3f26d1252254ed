"""Commands over HTTP on the local bus: deduplication, results, cancellation.

Proves: a repeated commandId gets the first outcome and sends nothing, whether at once, after a restart or after a crash; a command
in flight during a crash ends once and says what is known about its sending; nobody hears what a power cut could take back; a
cancelled command is never sent; what is remembered is bounded. `test_offline_queue.py` has the rest.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from harness.disk import COMPILER, Disk
from harness.gateway import Gateway, merged
from harness.obedient import ACTION, Obedient, body
from harness.orders import (
    ASYNC,
    SOON,
    arrival,
    cancel,
    ended,
    in_state,
    leave,
    post,
    problem,
    results,
    settled,
    show,
)
from harness.waiting import wait_for

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")


@pytest.fixture
def on_disk(gateway: Callable[..., Gateway], tmp_path: Path) -> tuple[Gateway, Disk]:
    """A running gateway, and its disk."""
    disk = Disk(tmp_path / "disk")
    node = gateway(SOON, start=False)
    node.environment = disk.environment
    return node.start(), disk


# -- the same command again ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["nothing", "sigterm", "kill9"])
async def test_a_repeated_command_gets_the_first_outcome_and_nothing_is_sent(gateway, between):
    node = gateway(SOON)
    station = await Obedient("CP-1").connect(node)
    first = await post(node, "CP-1", body("c-1"))
    assert (first.status_code, first.json()["status"], first.json()["sent"]) == (200, "answered", "yes")
    nobody = await post(node, "CP-2", body("c-2"))
    assert (nobody.json()["status"], nobody.json()["sent"]) == ("offline", "no")
    first_results = results(node)
    if between != "nothing":
        await leave(node, between)
        await asyncio.to_thread(node.restart)
        await station.connect(node)
        # It could be sent now, but keeps its first outcome.
        other = await Obedient("CP-2").connect(node)
    for identity, id, before in (("CP-1", "c-1", first), ("CP-2", "c-2", nobody)):
        again = await post(node, identity, body(id))
        assert (again.status_code, again.text) == (200, before.text)
        assert show(node, id).text == before.text
        assert (await post(node, identity, body(id), ASYNC)).text == before.text
    await settled(node, station)
    assert station.arrived == ["c-1"]
    if between != "nothing":
        await settled(node, other)
        assert other.arrived == []
    after = results(node)
    assert {id: after[id].text for id in first_results} == {id: event.text for id, event in first_results.items()}


async def test_a_repeat_of_a_command_in_flight_waits_for_the_same_outcome(gateway):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    waiting = [post(node, "CP-1", body("c-1", timeoutMs=20_000)) for _ in range(6)]
    await in_state(node, "c-1", "sending")
    assert (await post(node, "CP-1", body("c-1"), ASYNC)).status_code == 202
    assert not any(one.done() for one in waiting)
    await arrival(station, "c-1")
    # A new connection ends it.
    await station.connect(node)
    assert {(await one).text for one in waiting} == {show(node, "c-1").text}
    assert (await ended(node, "c-1"))["status"] == "replaced"
    assert station.arrived == ["c-1"]
    assert list(results(node)) == ["c-1"]


async def test_an_id_belongs_to_one_command(gateway):
    node = gateway(SOON)
    await Obedient("CP-1", delay=None).connect(node)
    other = await Obedient("CP-2").connect(node)
    first = post(node, "CP-1", body("c-1", timeoutMs=3000))
    await in_state(node, "c-1", "sending")
    problem(await post(node, "CP-2", body("c-1")), 409)
    problem(await post(node, "CP-1", {"commandId": "c-1", "action": "ClearCache"}), 409)
    assert (await first).json()["status"] == "timeout"
    problem(await post(node, "CP-2", body("c-1")), 409)
    await settled(node, other)
    assert other.arrived == []
    # Another spelling of the same station.
    assert (await post(node, "cp-1", body("c-1"))).json() == (await first).json()


async def test_commands_in_flight_during_a_crash_end_once_and_say_whether_they_were_sent(gateway):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    lost = [post(node, "CP-1", body("on-the-wire"))]
    await in_state(node, "on-the-wire", "sending")
    lost.append(post(node, "CP-1", body("waited")))
    await in_state(node, "waited", "waiting")
    lost.append(post(node, "CP-1", body("to-be-kept", ifOffline="queue")))
    await in_state(node, "to-be-kept", "waiting")
    await arrival(station, "on-the-wire")
    assert station.arrived == ["on-the-wire"]
    node.kill9()
    assert all(isinstance(one, requests.ConnectionError) for one in await asyncio.gather(*lost, return_exceptions=True))
    await asyncio.to_thread(node.restart)
    outcomes = {id: await ended(node, id) for id in ("on-the-wire", "waited")}
    assert {id: (one["status"], one["sent"]) for id, one in outcomes.items()} == {
        "on-the-wire": ("offline", "unknown"),
        "waited": ("offline", "no"),
    }
    await in_state(node, "to-be-kept", "kept")
    station.delay = 0
    await station.connect(node)
    assert (await ended(node, "to-be-kept"))["status"] == "answered"
    for id, outcome in outcomes.items():
        assert (await post(node, "CP-1", body(id))).json() == outcome
    await settled(node, station)
    assert station.arrived == ["on-the-wire", "to-be-kept"]
    assert set(results(node)) >= {"on-the-wire", "waited", "to-be-kept"}


@pytest.mark.parametrize("crash", range(6))
async def test_crashes_at_any_moment_leave_one_outcome_per_command(gateway, crash):
    """Ten stations work through a hundred commands when the gateway is killed, a little later each time."""
    node = gateway(SOON | {"log": {"level": "info"}})
    stations = [Obedient(f"CP-{number}", delay=0.01) for number in range(10)]
    await asyncio.gather(*(station.connect(node) for station in stations))
    ids = {f"c-{number}": stations[number % 10] for number in range(100)}
    answers = [post(node, station.identity, body(id)) for id, station in ids.items()]

    def served() -> bool:
        return sum(len(station.arrived) for station in stations) > 12 * crash

    await asyncio.to_thread(wait_for, served, "some work", 20, 0.001)
    node.kill9()
    heard = await asyncio.gather(*answers, return_exceptions=True)
    await asyncio.to_thread(node.restart)
    await asyncio.gather(*(station.connect(node) for station in stations))
    answered, wire = 0, {id: ids[id].arrived.count(id) for id in ids}
    for (id, station), before in zip(ids.items(), heard, strict=True):
        if isinstance(before, requests.Response):
            assert show(node, id).text == before.text, "the sender was told what is remembered"
            answered += 1
            continue
        if show(node, id).status_code == 404:
            # It had not been accepted, so nothing can have happened to it.
            assert wire[id] == 0
            continue
        outcome = await ended(node, id)
        assert outcome["sent"] in (("yes", "unknown") if wire[id] else ("no", "unknown")), outcome
        assert (await post(node, station.identity, body(id))).json() == outcome
    for station in stations:
        await settled(node, station)
    assert {id: ids[id].arrived.count(id) for id in ids} == wire, "nothing was sent again"
    assert max(wire.values()) == 1
    results(node)
    print(f"\n{sum(wire.values())} of 100 arrived, {answered} were answered before the crash")


async def test_a_stop_ends_commands_in_flight_and_queues_those_that_may_be_queued(gateway):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    asked = [post(node, "CP-1", body("on-the-wire"))]
    await arrival(station, "on-the-wire")
    for id, more in (("waited", {}), ("to-be-kept", {"ifOffline": "queue"})):
        asked.append(post(node, "CP-1", body(id, **more)))
        await in_state(node, id, "waiting")
    assert await asyncio.to_thread(node.sigterm) == 0
    heard = [one.json() for one in await asyncio.gather(*asked)]
    await asyncio.to_thread(node.restart)
    outcomes = [show(node, id).json() for id in ("on-the-wire", "waited")]
    # Unlike a crash, a stop knows what was sent.
    assert [(one["status"], one["sent"]) for one in outcomes] == [("offline", "yes"), ("offline", "no")]
    assert heard[:2] == outcomes
    assert heard[2]["state"] == show(node, "to-be-kept").json()["state"] == "kept"
    station.delay = 0
    await station.connect(node)
    assert (await ended(node, "to-be-kept"))["status"] == "answered"
    assert station.arrived == ["on-the-wire", "to-be-kept"]
    assert set(results(node)) == set(station.arrived) | {"waited"}


@needs_compiler
async def test_no_command_is_sent_before_its_write_ahead_note_is_durable(on_disk):
    node, disk = on_disk
    station = await Obedient("CP-1").connect(node)
    with disk.holding():
        outcome = post(node, "CP-1", body("c-1"))
        kept = post(node, "CP-2", body("c-2", ifOffline="queue"))
        accepted = post(node, "CP-3", body("c-3", ifOffline="queue"), ASYNC)
        await in_state(node, "c-2", "waiting")
        await in_state(node, "c-3", "waiting")
        # The same again: what is known is not durable yet.
        again = [
            post(node, "CP-2", body("c-2", ifOffline="queue")),
            post(node, "CP-3", body("c-3", ifOffline="queue"), ASYNC),
        ]
        # Nothing must leave, and nobody be told anything.
        await asyncio.sleep(0.5)
        assert station.arrived == []
        assert not any(one.done() for one in (outcome, kept, accepted))
        assert not any(one.done() for one in again), "a repeat is told what is not durable yet"
    assert (await outcome).json()["status"] == "answered"
    assert [(await one).status_code for one in (kept, accepted, *again)] == [202] * 4
    assert station.arrived == ["c-1"]


@needs_compiler
async def test_no_outcome_is_reported_before_it_is_durable(on_disk):
    """A crash could take it back: whoever was told `answered` would be told something else afterwards."""
    node, disk = on_disk
    station = await Obedient("CP-1", delay=0.3).connect(node)
    outcome = post(node, "CP-1", body("c-1", timeoutMs=60_000))
    await arrival(station, "c-1")
    with disk.holding():
        await asyncio.to_thread(wait_for, lambda: station.answered == ["c-1"], "the station's answer")
        # Behind the answer, on the same connection: the gateway has read both.
        station.wire.send('[4,"no-such-call","GenericError","",{}]')
        await asyncio.to_thread(
            wait_for,
            lambda: node.metric("ocpp_gateway_unmatched_answers_total", kind="unknown") == 1,
            "the frame behind the answer to be read",
        )
        assert not outcome.done()
        assert show(node, "c-1").json().get("state") == "sending"
    assert (await outcome).json()["status"] == show(node, "c-1").json()["status"] == "answered"
    assert results(node)["c-1"].data["status"] == "answered"


@needs_compiler
async def test_a_power_cut_takes_back_no_outcome_and_sends_nothing_again(on_disk):
    node, disk = on_disk
    station, mute = await Obedient("CP-1").connect(node), await Obedient("MUTE", delay=None).connect(node)
    outcomes = {f"c-{number}": (await post(node, "CP-1", body(f"c-{number}"))).json() for number in range(10)}
    kept = [f"k-{number}" for number in range(10)]
    for id in kept:
        assert (await post(node, "AWAY", body(id, ifOffline="queue"))).status_code == 202
    assert (await post(node, "MUTE", body("out", timeoutMs=60_000), ASYNC)).status_code == 202
    await arrival(mute, "out")
    node.kill9()
    print(f"\nbytes that the power cut took: {disk.power_cut(node.data_dir)}")
    await asyncio.to_thread(node.restart)
    for one in (station, mute):
        one.delay = 0
        await one.connect(node)
    for id, before in outcomes.items():
        assert (await post(node, "CP-1", body(id))).json() == before
    assert (await ended(node, "out"))["sent"] == "unknown"
    assert (await post(node, "MUTE", body("out"))).json()["status"] == "offline"
    away = await Obedient("AWAY").connect(node)
    assert (await ended(node, kept[-1]))["status"] == "answered"
    for one, ids in ((station, list(outcomes)), (mute, ["out"]), (away, kept)):
        await settled(node, one)
        assert one.arrived == ids
    results(node)


# -- not waiting for the outcome ----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["c-1", "a/b c?d=ü%2F"])
async def test_respond_async_gives_the_location_of_the_outcome(gateway, id):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    response = await post(node, "CP-1", body(id), {"Prefer": 'handling=lenient, respond-async; foo="bar"'})
    assert response.status_code == 202
    assert (response.json()["commandId"], response.json()["stationId"]) == (id, "CP-1")
    location = response.headers["Location"]
    await in_state(node, id, "sending")
    shown = node.get(location).json()
    assert (shown["commandId"], shown["stationId"], shown["action"]) == (id, "CP-1", ACTION)
    await arrival(station, id)
    station.delay = 0
    station.wire.reset()
    outcome = await ended(node, id)
    assert (outcome["status"], outcome["sent"]) == ("offline", "yes")
    assert node.get(location).json() == outcome


async def test_a_command_without_an_id_gets_one(gateway):
    node = gateway(SOON)
    await Obedient("CP-1").connect(node)
    first, second = [
        (await post(node, "CP-1", {"action": ACTION, "payload": {"vendorId": "v", "data": "x"}})).json()
        for _ in range(2)
    ]
    assert first["status"] == second["status"] == "answered"
    assert first["commandId"] != second["commandId"]
    assert show(node, first["commandId"]).json() == first


async def test_commands_accepted_with_respond_async_survive_a_crash(gateway):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    ids = [f"c-{number}" for number in range(20)]
    assert {one.status_code for one in await asyncio.gather(*(post(node, "CP-1", body(id), ASYNC) for id in ids))} == {
        202
    }
    node.kill9()
    await asyncio.to_thread(node.restart)
    for id in ids:
        outcome = await ended(node, id)
        assert outcome["status"] == "offline"
        assert outcome["sent"] in (("unknown",) if id in station.arrived else ("no", "unknown"))
    assert set(results(node)) == set(ids)


# -- cancellation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", ["nothing", "kill9"])
async def test_a_cancelled_command_of_the_offline_queue_is_never_sent(gateway, between):
    node = gateway(SOON)
    for id in ("c-1", "c-2", "c-3"):
        assert (await post(node, "CP-1", body(id, ifOffline="queue"))).status_code == 202
    if between == "kill9":
        node.kill9()
        await asyncio.to_thread(node.restart)
    response = cancel(node, "c-2")
    assert response.status_code == 200
    outcome = response.json()
    assert (outcome["status"], outcome["sent"], outcome["error"]["code"]) == ("expired", "no", "calledBack")
    assert show(node, "c-2").json() == outcome
    problem(cancel(node, "c-2"), 409)
    if between == "kill9":
        node.kill9()
        await asyncio.to_thread(node.restart)
    station = await Obedient("CP-1").connect(node)
    assert (await ended(node, "c-3"))["status"] == "answered"
    assert station.arrived == ["c-1", "c-3"]
    assert results(node)["c-2"].data["status"] == "expired"


async def test_a_cancelled_command_is_never_sent_and_a_sent_one_cannot_be_cancelled(gateway):
    node = gateway(SOON)
    station = await Obedient("CP-1", delay=None).connect(node)
    first = post(node, "CP-1", body("sent"))
    await in_state(node, "sent", "sending")
    second = post(node, "CP-1", body("waits"))
    await in_state(node, "waits", "waiting")
    problem(cancel(node, "sent"), 409)
    outcome = cancel(node, "waits")
    assert outcome.status_code == 200
    assert (outcome.json()["status"], outcome.json()["sent"]) == ("expired", "no")
    assert (await second).json() == outcome.json(), "whoever waited is told"
    problem(cancel(node, "nobody-sent-this"), 404)
    problem(show(node, "nobody-sent-this"), 404)
    # A reconnect frees the slot; the cancelled command does not go to the new connection.
    station.delay = 0
    await station.connect(node)
    assert (await first).json()["status"] == "replaced"
    await settled(node, station)
    assert station.arrived == ["sent"]
    problem(cancel(node, "sent"), 409)


# -- limits -------------------------------------------------------------------------------------------------------


async def test_too_many_in_flight_are_refused_until_some_have_ended(gateway):
    node = gateway(merged(SOON, {"commands": {"max_in_flight": 3}}))
    station = await Obedient("CP-1", delay=None).connect(node)
    waiting = []
    for number in range(3):
        waiting.append(post(node, "CP-1", body(f"c-{number}", timeoutMs=30_000)))
        await in_state(node, f"c-{number}", "sending" if number == 0 else "waiting")
    problem(await post(node, "CP-1", body("c-3")), 503)
    problem(show(node, "c-3"), 404)
    station.delay = 0
    await station.connect(node)
    assert sorted([(await one).json()["status"] for one in waiting]) == ["answered", "answered", "replaced"]
    # A refusal leaves no trace: the same command may be sent again.
    assert (await post(node, "CP-1", body("c-3"))).json()["status"] == "answered"


async def test_the_offline_queue_is_bounded_in_bytes_as_well(gateway):
    node = gateway(merged(SOON, {"commands": {"offline_bytes": "64KiB"}}))
    large = {"vendorId": "x" * 20_000, "data": "-"}
    for number in range(3):
        command = body(f"c-{number}", ifOffline="queue") | {"payload": large}
        assert (await post(node, f"CP-{number}", command)).status_code == 202
    full = body("c-3", ifOffline="queue") | {"payload": large}
    assert (await post(node, "CP-3", full)).json()["status"] == "queueFull"
    assert (await post(node, "CP-3", body("small", ifOffline="queue"))).status_code == 202
    node.kill9()
    await asyncio.to_thread(node.restart)
    assert (await post(node, "CP-3", full | {"commandId": "c-4"})).json()["status"] == "queueFull"
    assert cancel(node, "c-0").status_code == 200
    assert (await post(node, "CP-3", full | {"commandId": "c-5"})).status_code == 202


async def test_the_journal_is_compacted(gateway):
    """Many large commands pass through; what is remembered of them is small."""
    config = {"commands": {"remembered": 20}, "log": {"level": "info"}, "validation": {"commands": "off"}}
    node = gateway(merged(SOON, config))
    station = await Obedient("CP-1").connect(node)
    large = {"vendorId": "x" * 900_000, "data": "-"}

    def on_disk() -> int:
        return sum(file.stat().st_size for file in (node.data_dir / "commands").rglob("*") if file.is_file())

    sizes = []
    for number in range(120):
        command = body(f"c-{number}") | {"payload": large}
        assert (await post(node, "CP-1", command)).json()["status"] == "answered"
        sizes.append(on_disk())
    print(f"\nthe journal had at most {max(sizes) >> 20} MiB and has {sizes[-1] >> 20} MiB")
    assert len(station.arrived) == 120
    assert max(sizes) < 100 << 20
    node.kill9()
    await asyncio.to_thread(node.restart)
    assert show(node, "c-119").json()["status"] == "answered"


async def test_the_oldest_outcomes_are_forgotten(gateway):
    node = gateway(merged(SOON, {"commands": {"remembered": 10}}))
    station = await Obedient("CP-1").connect(node)
    for number in range(20):
        assert (await post(node, "CP-1", body(f"c-{number}"))).json()["status"] == "answered"
    problem(show(node, "c-0"), 404)
    assert show(node, "c-19").status_code == 200
    node.kill9()
    await asyncio.to_thread(node.restart)
    problem(show(node, "c-0"), 404)
    assert show(node, "c-10").status_code == 200
    await station.connect(node)
    assert (await post(node, "CP-1", body("c-19"))).json()["status"] == "answered"
    assert station.arrived == [f"c-{number}" for number in range(20)]


@pytest.mark.parametrize(
    ("path", "text", "status"),
    [
        ("CP-1", b'{"action":"Reset","ifOffline":"wait"}', 400),
        ("CP-1", b'{"action":"Reset","commandId":"' + b"x" * 129 + b'"}', 400),
        ("CP-1", b'{"action":"Reset","stationId":"CP-2"}', 400),
        ("CP-1", b'{"action":"' + b"x" * 65 + b'"}', 400),
        ("CP-1", b'{"action":"Reset","payload":{"a":"\xff"}}', 400),
        ("CP-1", b'{"action":"Reset","expiresAt":1}', 400),
        ("CP-1", b'{"action":"Reset","payload":{"a":"' + b"x" * (1 << 20) + b'"}}', 413),
        ("x" * 2000, b'{"action":"Reset"}', 400),
        ("%FF", b'{"action":"Reset"}', 400),
    ],
)
def test_an_invalid_command_is_a_problem_and_leaves_no_trace(shared_node, path, text, status):
    response = requests.post(f"{shared_node.admin_url}/api/v1/stations/{path}/commands", data=text, timeout=10)
    problem(response, status)
    assert shared_node.events() == [], "no command, no result"


@pytest.fixture(scope="module")
def shared_node(shared_gateway) -> Gateway:
    return shared_gateway()
