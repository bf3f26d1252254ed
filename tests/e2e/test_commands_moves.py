"""Commands while Kafka restarts and while partitions move between nodes: none is lost, none is sent twice."""

import asyncio

import pytest
from harness.gateway import Gateway
from harness.obedient import Obedient, body, connect_all, wire_counts
from harness.orders import ASYNC, in_state, post
from harness.usage import cpu_seconds
from harness.waiting import wait_for

LONG = 60_000


async def test_commands_flow_on_after_kafka_was_killed(own_kafka, gateway, backends):
    own_kafka.start()
    backend = backends(own_kafka)
    node = gateway(backend.config(bus={"kafka": {"unready_after": "2s"}}))
    stations = [Obedient(f"CP-{number}", delay=0.02) for number in range(30)]
    await connect_all(stations, node)
    ids: list[str] = []

    def give(count: int) -> None:
        for number in range(count):
            one = stations[number % len(stations)]
            ids.append(backend.send(one.identity, f"{one.identity}-{len(ids)}", timeoutMs=LONG))

    give(300)
    await asyncio.to_thread(wait_for, lambda: sum(len(one.arrived) for one in stations) >= 60, "some work", 20, 0.001)
    own_kafka.kill9()
    give(100)
    await asyncio.to_thread(wait_for, lambda: node.get("/readyz").status_code == 503, "the gateway to notice", 30)
    await asyncio.to_thread(own_kafka.start)
    give(100)
    await backend.has_results(ids, 60)
    await asyncio.to_thread(backend.flush)
    await backend.has_committed(30)
    assert {backend.first(id).status for id in ids} == {"answered"}
    backend.check_results(stations, ids)
    assert not any(one.wire.ended.done() for one in stations)


async def test_partitions_that_move_lose_no_command(gateway, backends):
    """A second node of the same group comes and goes. It has no stations, so the commands that it consumes end as offline."""
    backend = backends()
    # Commands sent while a partition is unassigned arrive all at once: more than a station's queue holds by default.
    node = gateway(backend.config(session={"command_queue": 1000}))
    stations = [Obedient(f"CP-{number}") for number in range(60)]
    await connect_all(stations, node)
    other = gateway(backend.config(node={"id": "gw-2"}), start=False)
    flowing = True
    ids: list[str] = []

    async def give() -> None:
        while flowing:
            one = stations[len(ids) % len(stations)]
            ids.append(backend.send(one.identity, f"c-{len(ids)}", timeoutMs=LONG))
            # The pace of the backend.
            await asyncio.sleep(0.005)

    def partitions(of: Gateway) -> float:
        return of.metric("ocpp_gateway_commands_consumer_partitions")

    def reads(of: Gateway) -> float:
        return of.metric("ocpp_gateway_commands_consumer_records_total")

    async def shared(own: int) -> None:
        await asyncio.to_thread(wait_for, lambda: partitions(node) == own, f"{own} partitions at the first node", 40)
        if own == 3:
            await asyncio.to_thread(wait_for, lambda: reads(other) > 50, "the second node to read", 40)

    giving = asyncio.create_task(give())
    await shared(6)
    await asyncio.to_thread(other.start)
    await shared(3)
    assert await asyncio.to_thread(other.sigterm) == 0
    await shared(6)
    await asyncio.to_thread(other.start)
    await shared(3)
    # It leaves without a word: the group waits for it, and then reassigns its partitions.
    other.kill9()
    await shared(6)
    flowing = False
    await giving
    backend.flush()
    await backend.has_results(ids)
    await backend.has_committed()
    assert max(wire_counts(stations).values()) == 1
    statuses: dict[str, int] = {}
    for id in ids:
        statuses[backend.first(id).status] = statuses.get(backend.first(id).status, 0) + 1
    assert set(statuses) == {"answered", "offline"}, "each by the node that had its partition"
    print(f"\n{len(ids)} commands: {statuses}; results of both nodes: {len(backend.distinct_results())}")


@pytest.mark.serial
async def test_commands_that_wait_use_no_processor_while_kafka_hangs(own_kafka, gateway, backends):
    """The station's connection breaks while no event can be published: its session lasts until one can."""
    own_kafka.start()
    backend = backends(own_kafka)
    node = gateway(backend.config(bus={"queue_events": 16, "hold_limit": "0s"}))
    station = await Obedient("CP-1", delay=None).connect(node)
    fillers = [await Obedient(f"FILL-{number}").connect(node) for number in range(4)]
    assert (await post(node, "CP-1", body("out", timeoutMs=LONG), ASYNC)).status_code == 202
    await asyncio.to_thread(wait_for, lambda: station.arrived == ["out"], "the first command at the station")
    ids = [f"c-{number}" for number in range(3)]
    for id in ids:
        assert (await post(node, "CP-1", body(id, ifOffline="queue"), ASYNC)).status_code == 202
        await in_state(node, id, "waiting")
    own_kafka.pause()
    try:
        calls = [
            asyncio.create_task(one.call("DataTransfer", {"vendorId": f"{number}"}, timeout=60))
            for one in fillers
            for number in range(8)
        ]
        await asyncio.to_thread(
            wait_for, lambda: node.get("/stats").json()["bus"]["inFlightRecords"] == 16, "the bus to be full"
        )
        station.wire.reset()
        await in_state(node, ids[-1], "kept")
        before = cpu_seconds(node.process.pid)
        # What is measured is what happens while nothing should.
        await asyncio.sleep(2)
        used = cpu_seconds(node.process.pid) - before
    finally:
        own_kafka.resume()
    assert {(await call)[0] for call in calls} == {3}
    print(f"\n{used:.2f} s of processor time in 2 s")
    assert used < 0.4
    station.delay = 0
    await station.connect(node)
    await backend.has_results(["out", *ids])
    assert station.arrived == ["out", *ids]
    backend.check_results([station], ["out", *ids])
