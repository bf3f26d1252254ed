"""P1 and P3 across crashes: kill -9 under load from 200 stations loses nothing that was answered and reorders nothing.

Two hundred stations (1.6, 2.0.1 and 2.1 mixed) send CALLs as fast as they are answered; for each kind of bus, the gateway is killed
and restarted ten times. On the local bus every second crash is a power cut: what was not synced is gone. At the end, all events are
compared with what the stations sent and were answered. Registrations must survive as well (an accepted station continues without
booting), and so must 1.6 transaction ids (a repeated StartTransaction gets the same one).

The other tests look at single answers: none arrives before its event is durable, and the event can be read once it has arrived.
"""

import asyncio
import random
import time

import pytest
from confluent_kafka import TopicPartition
from harness.disk import COMPILER, Disk
from harness.fleet import Fleet
from harness.station import BOOT
from harness.waiting import wait_for
from harness.wire import Wire

STATIONS = 200
CRASHES = 10
# At least this many answers between crashes: enough that every station is in the middle of something.
ANSWERS_BETWEEN = 1500

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler for disk_shim.c")


async def crash_again_and_again(node, after_kill=lambda crash: None) -> Fleet:
    """Load, kill -9, restart, repeatedly; when it returns the node is running, and the fleet's ledger covers all of it."""
    fleet = Fleet(STATIONS)
    moment = random.Random(9)
    for crash in range(CRASHES):
        await fleet.connect(node)
        fleet.begin()
        await fleet.answers_reach(fleet.ledger.answers + ANSWERS_BETWEEN + moment.randrange(500))
        # So that a crash comes at any moment between two answers.
        await asyncio.sleep(moment.random() * 0.2)
        node.kill9()
        await fleet.ended()
        after_kill(crash)
        await asyncio.to_thread(node.restart)
    assert fleet.faults == []
    return fleet


def report(kind, fleet, events, began):
    figures = fleet.ledger.compare(events)
    print(f"\n{kind}: {CRASHES} crashes in {time.monotonic() - began:.0f} s: {figures}")
    assert figures.faults == {}
    assert figures.answered >= CRASHES * ANSWERS_BETWEEN


@needs_compiler
async def test_ten_crashes_and_power_cuts_on_the_local_log(gateway, tmp_path):
    began = time.monotonic()
    disk = Disk(tmp_path / "disk")
    node = gateway({"log": {"level": "info"}}, start=False)
    node.environment = disk.environment
    node.start()
    gone = []

    def cut_the_power(crash):
        if crash % 2:
            gone.append(disk.power_cut(node.data_dir))

    fleet = await crash_again_and_again(node, cut_the_power)
    print(f"\nbytes that the power cuts took: {gone}")
    report("local", fleet, node.events(type="ocpp.message.received"), began)


async def test_ten_crashes_on_kafka(gateway, kafka, topics):
    began = time.monotonic()
    config = {"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics, "log": {"level": "info"}}
    fleet = await crash_again_and_again(gateway(config))
    report("kafka", fleet, [record.event for record in kafka.records(topics["events"])], began)


async def test_crashes_while_kafka_is_away_and_comes_back(gateway, own_kafka, tmp_path):
    """With a spool, answers continue without Kafka; the gateway is killed while it spools and while it drains."""
    own_kafka.start()
    topics = own_kafka.fresh_topics()
    node = gateway(
        {
            "bus": {
                "kind": "kafka",
                "kafka": {"brokers": own_kafka.address},
                "spool": {"dir": str(tmp_path / "spool"), "after": "500ms"},
            },
            "topics": topics,
            "log": {"level": "info"},
        }
    )
    fleet = Fleet(STATIONS)

    async def crash_after(answers):
        await fleet.answers_reach(fleet.ledger.answers + answers)
        node.kill9()
        await fleet.ended()

    async def go_on():
        await asyncio.to_thread(node.restart, until="/livez")
        await fleet.connect(node)
        fleet.begin()

    await fleet.connect(node)
    fleet.begin()
    for _ in range(3):
        await fleet.answers_reach(fleet.ledger.answers + 1000)
        own_kafka.pause()
        try:
            await fleet.answers_reach(fleet.ledger.answers + 1500)
            await crash_after(1500)
            await go_on()
            await fleet.answers_reach(fleet.ledger.answers + 1500)
        finally:
            own_kafka.resume()
        # Most likely in the middle of the drain, and with new events behind it.
        await crash_after(1000)
        await go_on()
    await fleet.answers_reach(fleet.ledger.answers + 1000)
    drained = lambda: node.get("/stats").json()["bus"]["state"] == "direct"  # noqa: E731
    await asyncio.to_thread(wait_for, drained, "the spool to be sent", 60)
    await asyncio.to_thread(node.sigterm)
    await fleet.ended()
    assert fleet.faults == []
    figures = fleet.ledger.compare(record.event for record in own_kafka.records(topics["events"]))
    print(f"\nkafka with a spool: 6 crashes: {figures}")
    assert figures.faults == {}


@needs_compiler
async def test_no_answer_leaves_before_the_sync(gateway, tmp_path):
    disk = Disk(tmp_path / "disk")
    node = gateway(start=False)
    node.environment = disk.environment
    node.start()
    stations = [await Wire.connect(node, f"CP-{number}", "2.1") for number in range(10)]
    for station in stations:
        await station.call("boot", "BootNotification", BOOT["2.1"])
    with disk.holding():
        for station in stations:
            station.send('[2,"1","Heartbeat",{}]')
        await asyncio.gather(*(station.silence(1.0) for station in stations))
    for station in stations:
        answer = await station.receive()
        assert answer[:2] == [3, "1"]
    for station in stations:
        await station.leave()


@needs_compiler
async def test_a_failing_disk_delays_answers_and_loses_nothing(gateway, tmp_path):
    disk = Disk(tmp_path / "disk")
    node = gateway(start=False)
    node.environment = disk.environment
    node.start()
    station = await Wire.connect(node, "CP-1")
    await station.call("boot", "BootNotification", BOOT["1.6"])
    with disk.failing():
        station.send('[2,"held","Heartbeat",{}]')
        await station.silence(1.5)
        ready = node.get("/readyz")
        assert ready.status_code == 503
        assert str(node.data_dir) in ready.text, "it names the folder"
        assert "error" in ready.text.lower(), f"it names the error: {ready.text}"
        assert node.get("/livez").status_code == 200
    assert (await station.receive())[:2] == [3, "held"]
    # The journal of the stations tries again a little later than the log of the events.
    ready = lambda: node.get("/readyz").status_code == 200  # noqa: E731
    await asyncio.to_thread(wait_for, ready, "the gateway to be ready again", 5)
    await station.leave()
    ids = [event.data["messageId"] for event in node.events(type="ocpp.message.received")]
    assert ids == ["boot", "held"], "once each, although the first attempts failed"


async def test_an_answered_call_is_already_in_the_local_log(gateway):
    node = gateway()
    station = await Wire.connect(node, "CP-1")
    await station.call("boot", "BootNotification", BOOT["1.6"])
    for number in range(100):
        await station.call(f"{number}", "Heartbeat", {})
        last = [event.data["messageId"] for event in node.events(type="ocpp.message.received", start=str(2 * number))]
        assert last[-1] == f"{number}", "read to the durable end, right after the answer, without waiting"
    await station.leave()


async def test_an_answered_call_is_already_in_kafka(gateway, kafka, topics):
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    station = await Wire.connect(node, "CP-1")
    await station.call("boot", "BootNotification", BOOT["1.6"])
    consumer = kafka.consumer()
    try:
        partition = next(record.partition for record in kafka.records(topics["events"]))
        place = TopicPartition(topics["events"], partition)
        for number in range(100):
            _, before = consumer.get_watermark_offsets(place, timeout=10)
            await station.call(f"{number}", "Heartbeat", {})
            _, after = consumer.get_watermark_offsets(place, timeout=10)
            assert after > before, "the high watermark has moved when the answer is here"
    finally:
        consumer.close()
    await station.leave()


async def test_a_hanging_kafka_delays_answers(gateway, kafka, topics):
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    station = await Wire.connect(node, "CP-1")
    await station.call("boot", "BootNotification", BOOT["1.6"])
    kafka.pause()
    try:
        station.send('[2,"held","Heartbeat",{}]')
        await station.silence(2.0)
    finally:
        kafka.resume()
    assert (await station.receive(30))[:2] == [3, "held"]
    await station.leave()
    node.sigterm()
    events = [record.event for record in kafka.records(topics["events"])]
    ids = [event.data["messageId"] for event in events if event.type == "ocpp.message.received"]
    assert ids == ["boot", "held"]
