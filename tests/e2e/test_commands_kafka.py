"""Commands from a real Kafka: what waits for what, in which order they arrive, and invalid records.

Proves: a slow station delays only its own commands although it shares a partition; commands of one station keep their order; no more
are consumed than configured; an invalid record gets a result as well and does not stop the consumer; the group's offset waits for
commands without an outcome, and for nothing else. `test_commands_crash.py` has the rest.
"""

import asyncio
import json
import time

import pytest
from harness.obedient import ACTION, Obedient, body, connect_all
from harness.orders import show
from harness.waiting import wait_for

LONG = 60_000


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# -- no station waits for another ---------------------------------------------------------------------------------


@pytest.mark.serial
async def test_slow_stations_delay_no_other_on_their_partition(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    quick = [Obedient(f"QUICK-{number}") for number in range(100)]
    mute, slow = Obedient("MUTE", delay=None), Obedient("SLOW", delay=6.0)
    await connect_all([*quick, mute, slow], node)

    async def round_trips(name: str) -> list[float]:
        ids = []
        for round in range(8):
            ids += [backend.send(one.identity, f"{name}-{round}-{one.identity}") for one in quick]
            await backend.has_results(ids)
        assert {backend.first(id).status for id in ids} == {"answered"}
        return [backend.first(id).seen_at - backend.produced_at[id] for id in ids]

    baseline = await round_trips("baseline")
    await backend.has_committed()
    for one in (mute, slow):
        backend.send(one.identity, one.identity, timeoutMs=8000)
    beside = await round_trips("beside")
    assert not {"MUTE", "SLOW"} & set(backend.results), "they still wait, with 800 commands acknowledged behind them"
    assert backend.lag() == 802, "the offset waits for them"
    print(
        f"\np99 of {len(beside)} quick commands: {percentile(beside, 0.99) * 1000:.0f} ms "
        f"beside slow stations, {percentile(baseline, 0.99) * 1000:.0f} ms without"
    )
    assert percentile(beside, 0.99) < 1.0
    await backend.has_results(["MUTE", "SLOW"])
    assert (backend.first("MUTE").status, backend.first("SLOW").status) == ("timeout", "answered")
    await backend.has_committed()


async def test_commands_of_a_station_arrive_in_their_order(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    stations = [Obedient(f"CP-{number}", delay=0.002) for number in range(20)]
    await connect_all(stations, node)
    given = {one.identity: [f"{one.identity}-{number:02}" for number in range(30)] for one in stations}
    for number in range(30):
        for one in stations:
            backend.send(one.identity, given[one.identity][number])
    ids = [id for its in given.values() for id in its]
    await backend.has_results(ids)
    assert {one.identity: one.arrived for one in stations} == given
    backend.check_results(stations, ids)


async def test_queued_commands_arrive_in_order_although_the_station_comes_and_goes(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    station = Obedient("CP-1", delay=0.005)
    ids = [backend.send("CP-1", f"c-{number:03}", ifOffline="queue") for number in range(60)]
    backend.flush()

    def queued() -> bool:
        return show(node, ids[-1]).json().get("state") == "kept"

    await asyncio.to_thread(wait_for, queued, "the last command to be queued")
    for round in range(8):
        await station.connect(node)
        ids += [backend.send("CP-1", f"c-{number:03}", ifOffline="queue") for number in range(len(ids), len(ids) + 5)]
        least = 5 * (round + 1)
        await asyncio.to_thread(
            wait_for, lambda least=least: len(station.arrived) >= least, f"{least} commands at the station", 20, 0.001
        )
        station.wire.reset()
        await station.wire.end()
    await station.connect(node)
    await backend.has_results(ids)
    assert station.arrived == sorted(station.arrived), "in the order in which they were given"
    backend.check_results([station], ids)
    assert {backend.first(id).status for id in ids} <= {"answered", "offline", "replaced"}


async def test_no_more_than_configured_are_in_flight(gateway, backends):
    backend = backends()
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
    await backend.has_results(ids)
    assert {backend.first(id).status for id in ids[:-1]} == {"timeout"}
    assert backend.first("behind").status == "answered"
    backend.check_results([*mutes, quick], ids)
    await backend.has_committed()


async def test_an_id_belongs_to_one_command(gateway, backends):
    backend = backends(command_partitions=1)
    node = gateway(backend.config())
    stations = [await Obedient(f"CP-{number}").connect(node) for number in (1, 2)]
    backend.send("CP-1", "c-1")
    await backend.has_results(["c-1"])
    backend.send("CP-2", "c-1")
    await asyncio.to_thread(backend.await_that, lambda: len(backend.results["c-1"]) == 2, 20, lambda: "the refusal")
    refusal = backend.results["c-1"][1].event
    assert (refusal.station, refusal.data["status"], refusal.data["sent"]) == ("CP-2", "invalid", "no")
    await backend.has_committed()
    assert [one.arrived for one in stations] == [["c-1"], []]


async def test_the_payload_reaches_the_station_byte_for_byte(gateway, backends):
    backend = backends()
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    payload = '{ "vendorId" : "v",\t"data":"1.50 \\u00e9\\/" , "messageId": "\\u006d" }'
    frames: list[str] = []
    listener = station.wire.on_text
    station.wire.on_text = lambda text: (frames.append(text), listener(text))
    backend.produce("CP-1", f'{{"commandId":"c-1","action":"{ACTION}","payload":{payload}}}')
    await backend.has_results(["c-1"])
    assert [frame.endswith(f',"{ACTION}",{payload}]') for frame in frames] == [True]


# -- invalid records ----------------------------------------------------------------------------------------------

STATED = {"stationId": "CP-1", "action": "ClearCache"}
# Key, value, and the result's command id (None: one that the gateway assigns), station and status.
INVALID_RECORDS = [
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
    ("CP-1", STATED | {"commandId": "words", "timeout": "soon"}, "words", "CP-1", "invalid"),
    ("CP-1", "", None, "CP-1", "invalid"),
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
    # The station in the body takes precedence over the key.
    ("AWAY", STATED | {"commandId": "named", "action": "NoSuchAction"}, "named", "CP-1", "invalid"),
    # A valid command: nothing before it in its partition has stopped the consumer.
    ("CP-1", body("good") | {"timeout": "10s"}, "good", "CP-1", "answered"),
]


async def test_an_invalid_record_gets_a_result_and_does_not_stop_the_consumer(gateway, backends):
    backend = backends(command_partitions=1, command_config={"max.message.bytes": str(8 << 20)})
    node = gateway(backend.config())
    station = await Obedient("CP-1").connect(node)
    expected = {}
    for offset, (key, value, id, identity, status) in enumerate(INVALID_RECORDS):
        text = json.dumps(value) if isinstance(value, dict) else value
        backend.produce(key, text, partition=0)
        expected[id or f"kafka:{backend.topics['commands']}:0:{offset}"] = (identity, status)
    backend.flush()
    await backend.has_results(list(expected))
    await backend.has_committed()
    assert backend.lag() == 0
    found = {id: (results[0].event.station, results[0].status) for id, results in backend.results.items()}
    assert set(found) == set(expected)
    for id, (identity, status) in expected.items():
        assert found[id] == (identity or found[id][0], status), id
        assert status == "answered" or backend.first(id).sent == "no"
    assert {len(results) for results in backend.results.values()} == {1}
    assert backend.first("offline").event.data["error"]["details"] == {"known": False}
    assert station.arrived == ["good"]
    # The same ids after a crash: nothing is published again under another one.
    node.kill9()
    await asyncio.to_thread(node.restart)
    again = body("kafka:no-such-topic:0:0")
    backend.produce("CP-1", json.dumps(again))
    await backend.has_results([again["commandId"]])
    assert len(backend.results) == len(INVALID_RECORDS) + 1
    assert backend.distinct_results() == {}


async def test_a_command_that_waited_in_kafka_too_long_is_not_sent(gateway, backends):
    backend = backends()
    node = gateway(backend.config(), start=False)
    for id, more in (("short", {"timeoutMs": 300}), ("long", {"timeoutMs": LONG}), ("kept", {"ifOffline": "queue"})):
        backend.send("CP-1", id, **more)
    backend.flush()
    until = time.time() + 0.5
    await asyncio.to_thread(wait_for, lambda: time.time() > until, "the timeout to pass")
    await asyncio.to_thread(node.start)
    await backend.has_results(["short", "long"])
    assert (backend.first("short").status, backend.first("short").sent) == ("timeout", "no")
    assert (backend.first("long").status, backend.first("long").sent) == ("offline", "no")
    station = await Obedient("CP-1").connect(node)
    await backend.has_results(["kept"])
    assert backend.first("kept").status == "answered"
    assert station.arrived == ["kept"]
