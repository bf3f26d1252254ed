"""Commands from Kafka against a real broker: nobody waits for another station, nothing is lost, nothing is sent twice.

Proves: a slow station holds up its own commands only, though its partition is everybody's; after crashes of the gateway and of
Kafka, and while partitions move, every command has a result and none was on the wire twice; what is no command gets a
result too, and the consumer goes on; the group's offset stops at what has no outcome, and only there.

A result may be delivered more than once, always with the same event id: the tests count ids. Stations count what arrives.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator

import pytest
from harness.backend import Backend
from harness.broker import Broker
from harness.gateway import Gateway
from harness.obedient import ACTION, Obedient, body, connect_all, wire_counts
from harness.orders import post, show
from harness.waiting import wait_for

LONG = 60_000


@pytest.fixture
def backends() -> Iterator[Callable[..., Backend]]:
    """`backends(broker, **options)`."""
    with contextlib.ExitStack() as opened:

        def open(broker: Broker, **options: object) -> Backend:
            backend = Backend(broker, **options)
            opened.callback(backend.close)
            return backend

        yield open


async def results_of(backend: Backend, ids: list[str], timeout: float = 40.0) -> None:
    await asyncio.to_thread(backend.await_results, ids, timeout)


async def committed(backend: Backend, timeout: float = 20.0) -> None:
    """Waits until the group has committed everything."""
    await asyncio.to_thread(wait_for, lambda: backend.lag() == 0, "the group at the end of the topic", timeout, 0.2)


def check_account(backend: Backend, stations: list[Obedient], ids: list[str]) -> None:
    """Every command has one result, was on the wire once at most, and the result is true about that."""
    assert backend.told_twice() == {}
    assert set(backend.results) == set(ids)
    wire = wire_counts(stations)
    assert [id for id, count in wire.items() if count > 1] == [], "sent twice"
    for id in ids:
        result = backend.first(id)
        assert result.sent in (("yes", "unknown") if wire[id] else ("no", "unknown")), result.event.text
        if result.status == "answered":
            assert result.event.data["payload"]["data"] == id, "the answer to another command"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# -- nobody waits for another station -----------------------------------------------------------------------------


async def test_slow_stations_hold_up_nobody_on_their_partition(gateway, kafka, backends):
    backend = backends(kafka, command_partitions=1)
    node = gateway(backend.config())
    quick = [Obedient(f"QUICK-{number}") for number in range(100)]
    mute, slow = Obedient("MUTE", delay=None), Obedient("SLOW", delay=6.0)
    await connect_all([*quick, mute, slow], node)

    async def round_trips(name: str) -> list[float]:
        ids = []
        for round in range(8):
            ids += [backend.send(one.identity, f"{name}-{round}-{one.identity}") for one in quick]
            await results_of(backend, ids)
        assert {backend.first(id).status for id in ids} == {"answered"}
        return [backend.first(id).seen_at - backend.produced_at[id] for id in ids]

    alone = await round_trips("alone")
    await committed(backend)
    for one in (mute, slow):
        backend.send(one.identity, one.identity, timeoutMs=8000)
    beside = await round_trips("beside")
    assert not {"MUTE", "SLOW"} & set(backend.results), "they still wait, with 800 commands dealt with behind them"
    assert backend.lag() == 802, "the offset waits for them"
    print(
        f"\np99 of {len(beside)} quick commands: {percentile(beside, 0.99) * 1000:.0f} ms "
        f"beside slow stations, {percentile(alone, 0.99) * 1000:.0f} ms without"
    )
    assert percentile(beside, 0.99) < 1.0
    await results_of(backend, ["MUTE", "SLOW"])
    assert (backend.first("MUTE").status, backend.first("SLOW").status) == ("timeout", "answered")
    await committed(backend)


async def test_commands_of_a_station_arrive_in_their_order(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config())
    stations = [Obedient(f"CP-{number}", delay=0.002) for number in range(20)]
    await connect_all(stations, node)
    given = {one.identity: [f"{one.identity}-{number:02}" for number in range(30)] for one in stations}
    for number in range(30):
        for one in stations:
            backend.send(one.identity, given[one.identity][number])
    ids = [id for its in given.values() for id in its]
    await results_of(backend, ids)
    assert {one.identity: one.arrived for one in stations} == given
    check_account(backend, stations, ids)


async def test_commands_that_are_kept_arrive_in_their_order_although_the_station_comes_and_goes(
    gateway, kafka, backends
):
    backend = backends(kafka, command_partitions=1)
    node = gateway(backend.config())
    station = Obedient("CP-1", delay=0.005)
    ids = [backend.send("CP-1", f"c-{number:03}", ifOffline="queue") for number in range(90)]
    backend.flush()
    for round in range(8):
        await station.connect(node)
        ids += [backend.send("CP-1", f"c-{len(ids):03}", ifOffline="queue") for _ in range(5)]
        await asyncio.to_thread(wait_for, lambda least=8 * round: len(station.arrived) > least, "some", 20, 0.001)
        station.wire.reset()
        await station.wire.end()
    await station.connect(node)
    await results_of(backend, ids)
    assert station.arrived == sorted(station.arrived), "in the order in which they were given"
    check_account(backend, [station], ids)


async def test_no_more_than_configured_are_taken_in_at_once(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config(commands={"max_in_flight": 10}))
    mutes = [Obedient(f"MUTE-{number}", delay=None) for number in range(40)]
    quick = Obedient("QUICK")
    await connect_all([*mutes, quick], node)
    ids = [backend.send(one.identity, f"to-{one.identity}", timeoutMs=2500) for one in mutes]
    await asyncio.to_thread(wait_for, lambda: sum(len(one.arrived) for one in mutes) == 10, "ten commands on the wire")
    backend.read(0.5)
    assert sum(len(one.arrived) for one in mutes) == 10, "and no more"
    assert node.metric("ocpp_gateway_commands_consumer_pauses_total") >= 1
    ids.append(backend.send("QUICK", "behind", timeoutMs=LONG))
    await results_of(backend, ids)
    assert {backend.first(id).status for id in ids[:-1]} == {"timeout"}
    assert backend.first("behind").status == "answered"
    check_account(backend, [*mutes, quick], ids)
    await committed(backend)


# -- crashes ------------------------------------------------------------------------------------------------------


async def test_a_stop_with_commands_in_flight_ends_or_keeps_each(gateway, kafka, backends):
    backend = backends(kafka)
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
    await results_of(backend, ids)
    await committed(backend)
    check_account(backend, stations, ids)
    assert {backend.first(id).status for id in kept} == {"answered"}
    lost = [backend.first(id) for id in ids if id not in kept]
    # A stop is no crash: what was sent is known.
    assert {(result.status, result.sent) for result in lost} == {("offline", "yes"), ("offline", "no")}


@pytest.mark.parametrize("crashes", [1, 3])
async def test_a_thousand_in_flight_when_the_gateway_is_killed(gateway, kafka, backends, crashes):
    """250 stations that do not answer hold 1,000 commands, 50 others are busy; killed and started, once or again and again."""
    backend = backends(kafka)
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
    await results_of(backend, ids, 60)
    await committed(backend)
    backend.read(1.0)
    check_account(backend, stations, ids)
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


async def test_a_repeated_command_gets_the_same_event_and_nothing_on_the_wire(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)

    def told(times: int) -> bool:
        return len(backend.results["c-1"]) >= times

    backend.send("CP-1", "c-1")
    await results_of(backend, ["c-1"])
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
    await results_of(backend, [last])
    assert station.arrived == ["c-1", "last"]
    await committed(backend)
    # A record whose offset a crash lost is one delivery more.
    assert len(backend.results["c-1"]) >= 4
    assert backend.told_twice() == {}


async def test_an_id_belongs_to_one_command(gateway, kafka, backends):
    backend = backends(kafka, command_partitions=1)
    node = gateway(backend.config())
    stations = [await Obedient(f"CP-{number}").connect(node) for number in (1, 2)]
    backend.send("CP-1", "c-1")
    await results_of(backend, ["c-1"])
    backend.send("CP-2", "c-1")
    await asyncio.to_thread(backend.await_that, lambda: len(backend.results["c-1"]) == 2, 20, lambda: "the refusal")
    refusal = backend.results["c-1"][1].event
    assert (refusal.station, refusal.data["status"], refusal.data["sent"]) == ("CP-2", "invalid", "no")
    await committed(backend)
    assert [one.arrived for one in stations] == [["c-1"], []]


async def test_a_crash_after_everything_was_committed_brings_nothing_again(gateway, kafka, backends):
    backend = backends(kafka, command_partitions=1)
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    ids = [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await results_of(backend, ids)
    await committed(backend)
    node.kill9()
    await asyncio.to_thread(node.restart)
    await station.connect(node)
    ids.append(backend.send("CP-1", "last"))
    await results_of(backend, ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 1
    assert {len(results) for results in backend.results.values()} == {1}
    check_account(backend, [station], ids)


async def test_a_crash_before_anything_was_committed_brings_all_again_and_sends_nothing_again(gateway, kafka, backends):
    backend = backends(kafka, command_partitions=1)
    node = gateway(backend.config())
    mute, station = Obedient("MUTE", delay=None), Obedient("CP-1")
    await connect_all([mute, station], node)
    ids = [backend.send("MUTE", "held", timeoutMs=LONG)]
    ids += [backend.send("CP-1", f"c-{number}") for number in range(20)]
    await results_of(backend, ids[1:])
    assert backend.lag() == 21
    node.kill9()
    await asyncio.to_thread(node.restart)
    await connect_all([mute, station], node)
    await results_of(backend, ids)
    await committed(backend)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 21
    last = backend.send("CP-1", "last")
    await results_of(backend, [last])
    assert mute.arrived == ["held"]
    assert backend.first("held").sent == "unknown"
    check_account(backend, [mute, station], [*ids, last])


async def test_what_is_kept_is_committed_and_survives(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config())
    ids = [backend.send("CP-1", f"c-{number:02}", ifOffline="queue") for number in range(50)]
    backend.flush()
    await asyncio.to_thread(
        wait_for, lambda: show(node, ids[-1]).json().get("state") == "kept", "the last command kept"
    )
    await committed(backend)
    node.kill9()
    await asyncio.to_thread(node.restart)
    station = await Obedient("CP-1").connect(node)
    await results_of(backend, ids)
    assert station.arrived == ids
    check_account(backend, [station], ids)
    assert node.metric("ocpp_gateway_commands_consumer_records_total") == 0


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
    await asyncio.to_thread(wait_for, lambda: node.get("/readyz").status_code == 503, "the gateway to feel it", 30)
    await asyncio.to_thread(own_kafka.start)
    give(100)
    await results_of(backend, ids, 60)
    await asyncio.to_thread(backend.flush)
    await committed(backend, 30)
    assert {backend.first(id).status for id in ids} == {"answered"}
    check_account(backend, stations, ids)
    assert not any(one.wire.ended.done() for one in stations)


async def test_partitions_that_move_lose_no_command(gateway, kafka, backends):
    """A second node of the same group comes and goes. It has no stations, so what it reads ends as offline."""
    backend = backends(kafka)
    # What comes while nobody has a partition comes at once afterwards: more than the queue of a station is by default.
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
    # Without a word: the group waits for it, and then gives its partitions away.
    other.kill9()
    await shared(6)
    flowing = False
    await giving
    backend.flush()
    await results_of(backend, ids)
    await committed(backend)
    assert max(wire_counts(stations).values()) == 1
    statuses: dict[str, int] = {}
    for id in ids:
        statuses[backend.first(id).status] = statuses.get(backend.first(id).status, 0) + 1
    assert set(statuses) == {"answered", "offline"}, "each by the node that had its partition"
    print(f"\n{len(ids)} commands: {statuses}; results of both nodes: {len(backend.told_twice())}")


# -- what is no command -------------------------------------------------------------------------------------------

STATED = {"stationId": "CP-1", "action": "ClearCache"}
# Key, value, and what the result says: the command's id (None: one that the gateway gives), its station, its status.
NO_COMMANDS = [
    ("CP-1", b"", None, "CP-1", "invalid"),
    ("CP-1", None, None, "CP-1", "invalid"),
    (None, None, None, None, "invalid"),
    ("CP-1", b"{", None, "CP-1", "invalid"),
    ("CP-1", b'{"commandId":"broken","action":"Reset","payload":{"a":}}', None, "CP-1", "invalid"),
    ("CP-1", b"\xff\xfe", None, "CP-1", "invalid"),
    ("CP-1", b"[]", None, "CP-1", "invalid"),
    ("CP-1", b"null", None, "CP-1", "invalid"),
    ("CP-1", b'"Reset"', None, "CP-1", "invalid"),
    ("CP-1", b"{}", None, "CP-1", "invalid"),
    ("CP-1", b"[" * 100_000, None, "CP-1", "invalid"),
    ("CP-1", {"commandId": "no-action"}, "no-action", "CP-1", "invalid"),
    ("CP-1", {"commandId": "odd-action", "action": 1}, "odd-action", "CP-1", "invalid"),
    ("CP-1", {"commandId": "surplus", "action": "Reset", "surplus": 1}, "surplus", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "list", "payload": []}, "list", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "text", "payload": "{}"}, "text", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "soon", "expiresAt": "soon"}, "soon", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "wait", "ifOffline": "wait"}, "wait", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "timeout", "timeoutMs": "1"}, "timeout", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": 7}, None, "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "x" * 129}, None, "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "5 MB", "payload": {"a": "x" * 5_000_000}}, None, "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "1.5 MB", "payload": {"a": "x" * 1_500_000}}, None, "CP-1", "invalid"),
    (None, {"commandId": "nobody", "action": "Reset"}, "nobody", None, "invalid"),
    (b"\xff", {"commandId": "key", "action": "Reset"}, "key", None, "invalid"),
    ("CP-1", STATED | {"commandId": "blank", "stationId": ""}, "blank", None, "invalid"),
    ("x" * 300, {"commandId": "long", "action": "Reset"}, "long", None, "invalid"),
    ("CP-1", STATED | {"commandId": "unknown", "action": "NoSuchAction"}, "unknown", "CP-1", "invalid"),
    ("AWAY", STATED | {"commandId": "away", "stationId": "AWAY", "action": "No"}, "away", "AWAY", "invalid"),
    ("CP-1", STATED | {"commandId": "version", "action": "GetVariables"}, "version", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "direction", "action": "BootNotification"}, "direction", "CP-1", "invalid"),
    ("CP-1", STATED | {"commandId": "late", "expiresAt": "2020-01-01T00:00:00Z"}, "late", "CP-1", "expired"),
    ("AWAY", {"commandId": "offline", "action": "Reset"}, "offline", "AWAY", "offline"),
    # The body says more than the key.
    ("AWAY", STATED | {"commandId": "named", "action": "NoSuchAction"}, "named", "CP-1", "invalid"),
    # As good as any: whatever comes before it in its partition has not stopped the consumer.
    ("CP-1", body("good"), "good", "CP-1", "answered"),
]


async def test_what_is_no_command_gets_a_result_and_stops_nothing(gateway, kafka, backends):
    backend = backends(kafka, command_partitions=1, command_config={"max.message.bytes": str(8 << 20)})
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    expected = {}
    for offset, (key, value, id, identity, status) in enumerate(NO_COMMANDS):
        text = json.dumps(value) if isinstance(value, dict) else value
        backend.produce(key, text, partition=0)
        expected[id or f"kafka:{backend.topics['commands']}:0:{offset}"] = (identity, status)
    backend.flush()
    await results_of(backend, list(expected))
    await committed(backend)
    assert backend.lag() == 0
    found = {id: (results[0].event.station, results[0].status) for id, results in backend.results.items()}
    assert set(found) == set(expected)
    for id, (identity, status) in expected.items():
        assert found[id] == (identity or found[id][0], status), id
        assert status == "answered" or backend.first(id).sent == "no"
    assert {len(results) for results in backend.results.values()} == {1}
    assert station.arrived == ["good"]
    # The same names after a crash: nothing is told again under another id.
    node.kill9()
    await asyncio.to_thread(node.restart)
    again = body("kafka:no-such-topic:0:0")
    backend.produce("CP-1", json.dumps(again))
    await results_of(backend, [again["commandId"]])
    assert len(backend.results) == len(NO_COMMANDS) + 1
    assert backend.told_twice() == {}


async def test_a_command_that_waited_in_kafka_too_long_is_not_sent(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config(), start=False)
    for id, more in (("short", {"timeoutMs": 300}), ("long", {"timeoutMs": LONG}), ("kept", {"ifOffline": "queue"})):
        backend.send("CP-1", id, **more)
    backend.flush()
    until = time.time() + 0.5
    await asyncio.to_thread(wait_for, lambda: time.time() > until, "the time to be over")
    await asyncio.to_thread(node.start)
    await results_of(backend, ["short", "long"])
    assert (backend.first("short").status, backend.first("short").sent) == ("timeout", "no")
    assert (backend.first("long").status, backend.first("long").sent) == ("offline", "no")
    station = await Obedient("CP-1").connect(node)
    await results_of(backend, ["kept"])
    assert backend.first("kept").status == "answered"
    assert station.arrived == ["kept"]


async def test_the_payload_reaches_the_station_byte_for_byte(gateway, kafka, backends):
    backend = backends(kafka)
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    payload = '{ "vendorId" : "v",\t"data":"1.50 \\u00e9\\/" , "n": 1.50 }'
    frames: list[str] = []
    listener = station.wire.on_text
    station.wire.on_text = lambda text: (frames.append(text), listener(text))
    backend.produce("CP-1", f'{{"commandId":"c-1","action":"{ACTION}","payload":{payload}}}')
    await results_of(backend, ["c-1"])
    assert [frame.endswith(f',"{ACTION}",{payload}]') for frame in frames] == [True]
