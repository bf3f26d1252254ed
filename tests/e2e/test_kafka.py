"""The same as in test_tour.py with `kind = "kafka"`: what an independent client reads from a real broker."""

import asyncio
import json
import shutil
import subprocess

import pytest
import requests
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from harness.contract import event_types, violations
from harness.station import Station
from harness.tour import check_events, drive
from harness.waiting import wait_for

VERSIONS = ["1.6", "2.0.1", "2.1"]


def kafka_config(broker, topics):
    return {"bus": {"kind": "kafka", "kafka": {"brokers": broker.address}}, "topics": topics}


def read_until_left(broker, topic, identities):
    """The records, once every one of `identities` has an `ocpp.station.disconnected`."""

    def read():
        records = broker.records(topic)
        left = {record.key for record in records if record.event.type == "ocpp.station.disconnected"}
        return records if left >= set(identities) else None

    return wait_for(read, f"{identities} to be gone in {topic}", timeout=30)


@pytest.mark.parametrize("version", VERSIONS)
async def test_records_are_keyed_ordered_valid_and_byte_for_byte(gateway, kafka, topics, version):
    node = gateway(kafka_config(kafka, topics))
    frames = {identity: await drive(node, identity, version) for identity in ("CP-001", "CP-002", "CP-003")}
    records = read_until_left(kafka, topics["events"], frames)
    assert {record.key for record in records} == set(frames)
    for identity, its_frames in frames.items():
        own = [record for record in records if record.key == identity]
        assert len({record.partition for record in own}) == 1
        assert all(record.headers["content-type"] == "application/cloudevents+json" for record in own)
        check_events([record.event for record in own], its_frames, identity, version)


async def test_carriage_returns_in_a_payload_survive(gateway, kafka, topics):
    payload = '{\r\n  "vendorId" : "v"\r\n}'
    node = gateway(kafka_config(kafka, topics))
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        await station.call("DataTransfer", payload)
    records = read_until_left(kafka, topics["events"], ["CP-001"])
    calls = [record.event for record in records if record.event.data.get("action") == "DataTransfer"]
    assert calls[0].payload_text == payload


async def test_every_kind_of_event_is_valid(gateway, kafka, topics):
    """One of every event in the contract, so that every schema is checked against real records."""
    node = gateway(kafka_config(kafka, topics) | {"twins": {"replacements": 1}})

    def command(action, payload, **more):
        body = {"action": action, "payload": payload} | more
        return asyncio.to_thread(node.post, "/api/v1/stations/CP-001/commands", body)

    assert (await command("ClearCache", {})).json()["status"] == "offline"
    assert requests.get(f"http://127.0.0.1:{node.port}/ocpp/CP-001", timeout=10).status_code >= 400
    replaced = await Station.connect(node, "CP-001", "2.1")
    async with await Station.connect(node, "CP-001", "2.1") as station:
        await replaced.closed()
        await station.boot()
        assert (await station.call("NoSuchAction", {}))[0] == 4
        assert (await station.call("Heartbeat", "null"))[0] == 3
        await station.send("[2,")
        assert (await station.receive())[0] == 4
        await station.send(
            '[6,"s","NotifyPeriodicEventStream",{"id":1,"pending":0,"basetime":"2026-01-01T00:00:00Z","data":[]}]'
        )
        await station.send('[4,"nobody asked","Odd"]')
        await station.send('[5,"nobody asked","GenericError","",{}]')

        waiting = asyncio.create_task(command("ClearCache", {}))
        await station.answer(await station.next_call(), {"status": "Accepted"})
        assert (await waiting).json()["status"] == "answered"
        waiting = asyncio.create_task(command("ClearCache", {}))
        call = await station.next_call()
        await station.send(f'[4,"{call[1]}","NotSupported","no cache","odd"]')
        assert (await waiting).json()["status"] == "error"
        waiting = asyncio.create_task(command("ClearCache", {}))
        call = await station.next_call()
        await station.send(f'[3,"{call[1]}",[]]')
        assert (await station.receive())[0] == 5
        assert (await waiting).json()["status"] == "error"
        assert (await command("ClearCache", {}, timeoutMs=100)).json()["status"] == "timeout"

    batch = {"batchId": "b-1", "to": {"stations": ["CP-001"]}, "action": "ClearCache"}
    assert node.post("/api/v1/commands", batch).status_code == 202
    wait_for(lambda: node.get("/api/v1/batches/b-1").json()["state"] == "ended", "the batch to end")
    records = read_until_left(kafka, topics["events"], ["CP-001"])
    results = kafka.records(topics["command_results"])
    assert {(record.event.type, record.key) for record in results} == {
        ("ocpp.command.result", "CP-001"),
        ("ocpp.command.summary", "b-1"),
    }
    events = [record.event for record in records + results]
    for event in events:
        assert violations(event.json) == [], event.text
    assert {event.type for event in events} == set(event_types())
    messages = {
        (event.type.rpartition(".")[2], event.data["messageType"]) for event in events if ".message." in event.type
    }
    assert messages == {
        *(("received", kind) for kind in ("CALL", "CALLRESULT", "CALLERROR", "CALLRESULTERROR", "SEND", "MALFORMED")),
        *(("sent", kind) for kind in ("CALL", "CALLRESULT", "CALLERROR", "CALLRESULTERROR")),
    }
    assert [event.data["status"] for event in events if event.type == "ocpp.command.result"] == [
        "offline",
        "answered",
        "error",
        "error",
        "timeout",
        "offline",
    ]


async def test_the_cloudevents_sdk_reads_every_record(gateway, kafka, topics):
    node = gateway(kafka_config(kafka, topics))
    await drive(node, "CP-001", "2.0.1")
    for record in read_until_left(kafka, topics["events"], ["CP-001"]):
        message = KafkaMessage(
            headers={name: value.encode() for name, value in record.headers.items()},
            key=record.key.encode(),
            value=record.value,
        )
        event = from_kafka_event(message)
        assert event.get_specversion() == "1.0"
        assert event.get_type() == record.event.type
        assert event.get_source() == "/ocpp-gateway/gw-1"
        assert event.get_subject() == "CP-001"
        assert event.get_time().utcoffset().total_seconds() == 0
        assert event.get_data() == record.event.data


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
async def test_kcat_reads_the_records(gateway, kafka, topics):
    node = gateway(kafka_config(kafka, topics))
    await drive(node, "CP-001", "1.6")
    records = read_until_left(kafka, topics["events"], ["CP-001"])
    done = subprocess.run(
        ["kcat", "-C", "-b", kafka.address, "-t", topics["events"], "-o", "beginning", "-e", "-q", "-J"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["key"], line["payload"]) for line in lines] == [
        (record.key, record.value.decode()) for record in records
    ]
    assert all(line["headers"] == ["content-type", "application/cloudevents+json"] for line in lines)


async def test_kafka_starts_after_the_gateway(gateway, own_kafka):
    topics = {"events": "ocpp.events"}
    node = gateway(kafka_config(own_kafka, topics), until="/livez")
    assert node.get("/readyz").status_code == 503
    assert node.get("/livez").status_code == 200

    # A station can connect all the same: its message waits, and is answered once its event is durable.
    async with await Station.connect(node, "CP-001") as station:
        await station.send('[2,"1","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
        await station.silence(1.0)
        own_kafka.start()
        answer = await station.receive(timeout=30)
        assert answer[:2] == [3, "1"]
        wait_for(lambda: node.get("/readyz").status_code == 200, "the gateway to be ready")

    records = read_until_left(own_kafka, topics["events"], ["CP-001"])
    assert [record.event.type for record in records] == [
        "ocpp.station.connected",
        "ocpp.message.received",
        "ocpp.message.sent",
        "ocpp.station.disconnected",
    ]
