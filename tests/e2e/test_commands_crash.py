"""Commands from Kafka across crashes and stops of the gateway: none is lost, none is sent twice.

Proves: every command has one result, published again only with the same event id, and its `sent` is true of what arrived at the
station; what was committed is not consumed again; what was not is consumed again, but not sent again.
"""

import asyncio
import random

import pytest
from harness.obedient import Obedient, body, connect_all
from harness.orders import post, show
from harness.waiting import wait_for

LONG = 60_000


async def test_a_stop_with_commands_in_flight_ends_or_queues_each(gateway, backends):
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
    await backend.has_results(ids)
    await backend.has_committed()
    backend.check_results(stations, ids)
    assert {backend.first(id).status for id in kept} == {"answered"}
    lost = [backend.first(id) for id in ids if id not in kept]
    # Unlike a crash, a stop knows what was sent.
    assert {(result.status, result.sent) for result in lost} == {("offline", "yes"), ("offline", "no")}


@pytest.mark.parametrize("crashes", [1, 2])
async def test_a_thousand_in_flight_when_the_gateway_is_killed(gateway, backends, crashes):
    """250 stations that do not answer hold 1,000 commands while 50 others are busy; the gateway is killed once, or repeatedly."""
    backend = backends()
    node = gateway(backend.config())
    holding = [Obedient(f"HOLD-{number}", delay=None) for number in range(250)]
    busy = [Obedient(f"BUSY-{number}") for number in range(50)]
    stations = [*holding, *busy]
    await connect_all(stations, node)
    ids, kept = [], []
    for number in range(4):
        for one in holding:
            # The third of the four may go to the offline queue.
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
            # Killed again before any station is back, while results are being published.
            node.kill9()
            await asyncio.to_thread(node.restart)
            await connect_all(stations, node)
    backend.flush()
    await backend.has_results(ids, 60)
    await backend.has_committed()
    backend.read(1.0)
    backend.check_results(stations, ids)
    # No queueable command is given up, unless it was being sent when the gateway was killed again.
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


async def test_a_repeated_command_gets_the_same_event_and_is_not_sent(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)

    def has_results(times: int) -> bool:
        return len(backend.results["c-1"]) >= times

    backend.send("CP-1", "c-1")
    await backend.has_results(["c-1"])
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
            backend.await_that, lambda times=times: has_results(times), 20, lambda how=how: f"the result again, {how}"
        )
    assert len({result.event.text for result in backend.results["c-1"]}) == 1
    # Over HTTP as well.
    again = (await post(node, "CP-1", body("c-1"))).json()
    assert again["payload"] == backend.first("c-1").event.data["payload"]
    last = backend.send("CP-1", "last")
    await backend.has_results([last])
    assert station.arrived == ["c-1", "last"]
    await backend.has_committed()
    # A record whose offset was lost in a crash is delivered once more.
    assert len(backend.results["c-1"]) >= 4
    assert backend.distinct_results() == {}


async def test_a_crash_after_everything_was_committed_redelivers_nothing(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    ids = [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await backend.has_results(ids)
    await backend.has_committed()
    node.kill9()
    await asyncio.to_thread(node.restart)
    await station.connect(node)
    ids.append(backend.send("CP-1", "last"))
    await backend.has_results(ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 1
    assert {len(results) for results in backend.results.values()} == {1}
    backend.check_results([station], ids)


async def test_a_crash_before_anything_was_committed_redelivers_everything_and_sends_nothing_again(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    mute, station = Obedient("MUTE", delay=None), Obedient("CP-1")
    await connect_all([mute, station], node)
    ids = [backend.send("MUTE", "held", timeoutMs=LONG)]
    ids += [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await backend.has_results(ids[1:])
    assert backend.lag() == 21
    node.kill9()
    await asyncio.to_thread(node.restart)
    await connect_all([mute, station], node)
    await backend.has_results(ids)
    await backend.has_committed()
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 21
    last = backend.send("CP-1", "last")
    await backend.has_results([last])
    assert mute.arrived == ["held"]
    assert backend.first("held").sent == "unknown"
    backend.check_results([mute, station], [*ids, last])


async def test_queued_commands_are_committed_and_survive(gateway, backends):
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
    await backend.has_results(ids)
    assert station.arrived == ids
    backend.check_results([station], ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 0
