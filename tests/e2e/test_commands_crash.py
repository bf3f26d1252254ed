"""Commands from Kafka over crashes and stops of the gateway: none is lost, none is on the wire twice.

Proves: every command has one result, told again with the same event id if at all, and what it says of the sending is true
of what arrived at the station; what was committed does not come again, what was not does and is not sent again.
"""

import asyncio
import random

import pytest
from harness.obedient import Obedient, body, connect_all
from harness.orders import post, show
from harness.waiting import wait_for

LONG = 60_000


async def test_a_stop_with_commands_in_flight_ends_or_keeps_each(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    stations = [Obedient(f"CP-{number}", delay=None) for number in range(30)]
    await connect_all(stations, node)
    ids, kept = [], []
    for number in range(4):
        for one in stations:
            more = {"ifOffline": "queue"} if number == 2 else {}
            ids.append(backend.send(one.identity, f"{one.identity}-{number}", timeoutMs=LONG, **more))
            kept += ids[-1:] if more else []
    backend.flush()

    def all_in_flight() -> bool:
        arrived = all(one.arrived for one in stations)
        return arrived and node.metric("ocpp_gateway_commands_consumer_open_records") == 120

    await asyncio.to_thread(wait_for, all_in_flight, "120 commands in flight", 30)
    assert await asyncio.to_thread(node.sigterm) == 0
    await asyncio.to_thread(node.restart)
    for one in stations:
        one.delay = 0
    await connect_all(stations, node)
    await backend.has_told(ids)
    await backend.has_committed()
    backend.check_account(stations, ids)
    assert {backend.first(id).status for id in kept} == {"answered"}
    lost = [backend.first(id) for id in ids if id not in kept]
    # A stop is no crash: what was sent is known.
    assert {(result.status, result.sent) for result in lost} == {("offline", "yes"), ("offline", "no")}


@pytest.mark.parametrize("crashes", [1, 2])
async def test_a_thousand_in_flight_when_the_gateway_is_killed(gateway, backends, crashes):
    """250 stations that do not answer hold 1,000 commands, 50 others are busy; killed and started, once or again and again."""
    backend = backends()
    node = gateway(backend.config())
    holding = [Obedient(f"HOLD-{number}", delay=None) for number in range(250)]
    busy = [Obedient(f"BUSY-{number}") for number in range(50)]
    stations = [*holding, *busy]
    await connect_all(stations, node)
    ids, kept = [], []
    for number in range(4):
        for one in holding:
            # Of the four, the third may be kept for the station.
            more = {"ifOffline": "queue"} if number == 2 else {}
            ids.append(backend.send(one.identity, f"{one.identity}-{number}", timeoutMs=LONG, **more))
            kept += ids[-1:] if more else []
    backend.flush()

    def all_in_flight() -> bool:
        arrived = all(one.arrived for one in holding)
        return arrived and node.metric("ocpp_gateway_commands_consumer_open_records") == 1000

    await asyncio.to_thread(wait_for, all_in_flight, "1,000 commands in flight", 30)
    moment = random.Random(crashes)
    for crash in range(crashes):
        for round in range(20):
            ids += [
                backend.send(one.identity, f"{one.identity}-{crash}-{round}", timeoutMs=LONG)
                for one in moment.sample(busy, 25)
            ]
        served = sum(len(one.arrived) for one in busy)
        await asyncio.to_thread(
            wait_for, lambda least=served + 50: sum(len(one.arrived) for one in busy) >= least, "more work", 20, 0.001
        )
        node.kill9()
        for one in holding:
            one.delay = 0
        await asyncio.gather(*(one.wire.end() for one in stations))
        await asyncio.to_thread(node.restart)
        if crash == crashes - 1 or crash % 2:
            await connect_all(stations, node)
        else:
            # Killed again before any station is back, in the middle of telling what became of the commands.
            node.kill9()
            await asyncio.to_thread(node.restart)
            await connect_all(stations, node)
    backend.flush()
    await backend.has_told(ids, 60)
    await backend.has_committed()
    backend.read(1.0)
    backend.check_account(stations, ids)
    # Nothing that may be kept is given up, unless it was on its way when the gateway was killed again.
    given_up = {backend.first(id).sent for id in kept if backend.first(id).status != "answered"}
    assert given_up == set() if crashes == 1 else given_up <= {"unknown"}
    held = {id for one in holding for id in one.arrived if id.endswith("-0")}
    assert {(backend.first(id).status, backend.first(id).sent) for id in held} == {("offline", "unknown")}
    counts: dict[str, int] = {}
    for id in ids:
        word = f"{backend.first(id).status}, sent {backend.first(id).sent}"
        counts[word] = counts.get(word, 0) + 1
    again = sum(len(results) for results in backend.results.values()) - len(ids)
    print(f"\n{len(ids)} commands, {crashes} crashes: {counts}; {again} results delivered again")


async def test_a_repeated_command_gets_the_same_event_and_nothing_on_the_wire(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)

    def told(times: int) -> bool:
        return len(backend.results["c-1"]) >= times

    backend.send("CP-1", "c-1")
    await backend.has_told(["c-1"])
    for times, how in ((2, "at once"), (3, "after a stop"), (4, "after a crash")):
        if how == "after a stop":
            await asyncio.to_thread(node.restart)
        elif how == "after a crash":
            node.kill9()
            await asyncio.to_thread(node.restart)
        if how != "at once":
            await station.connect(node)
        backend.send("CP-1", "c-1")
        await asyncio.to_thread(
            backend.await_that, lambda times=times: told(times), 20, lambda how=how: f"the result again, {how}"
        )
    assert len({result.event.text for result in backend.results["c-1"]}) == 1
    # By the other way as well.
    again = (await post(node, "CP-1", body("c-1"))).json()
    assert again["payload"] == backend.first("c-1").event.data["payload"]
    last = backend.send("CP-1", "last")
    await backend.has_told([last])
    assert station.arrived == ["c-1", "last"]
    await backend.has_committed()
    # A record whose offset a crash lost is one delivery more.
    assert len(backend.results["c-1"]) >= 4
    assert backend.told_twice() == {}


async def test_a_crash_after_everything_was_committed_brings_nothing_again(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    ids = [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await backend.has_told(ids)
    await backend.has_committed()
    node.kill9()
    await asyncio.to_thread(node.restart)
    await station.connect(node)
    ids.append(backend.send("CP-1", "last"))
    await backend.has_told(ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 1
    assert {len(results) for results in backend.results.values()} == {1}
    backend.check_account([station], ids)


async def test_a_crash_before_anything_was_committed_brings_all_again_and_sends_nothing_again(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    mute, station = Obedient("MUTE", delay=None), Obedient("CP-1")
    await connect_all([mute, station], node)
    ids = [backend.send("MUTE", "held", timeoutMs=LONG)]
    ids += [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await backend.has_told(ids[1:])
    assert backend.lag() == 21
    node.kill9()
    await asyncio.to_thread(node.restart)
    await connect_all([mute, station], node)
    await backend.has_told(ids)
    await backend.has_committed()
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 21
    last = backend.send("CP-1", "last")
    await backend.has_told([last])
    assert mute.arrived == ["held"]
    assert backend.first("held").sent == "unknown"
    backend.check_account([mute, station], [*ids, last])


async def test_what_is_kept_is_committed_and_survives(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    ids = [backend.send("CP-1", f"c-{number:02}", ifOffline="queue") for number in range(50)]
    backend.flush()
    await asyncio.to_thread(
        wait_for, lambda: show(node, ids[-1]).json().get("state") == "kept", "the last command kept"
    )
    await backend.has_committed()
    node.kill9()
    await asyncio.to_thread(node.restart)
    station = await Obedient("CP-1").connect(node)
    await backend.has_told(ids)
    assert station.arrived == ids
    backend.check_account([station], ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 0
