"""Traces: from a command through the CALL to the result, and what a collector sees of it.

Proves: a command's `traceparent` is on the events of its CALL, of the answer and of the result, with and without a collector; a
collector receives the command's span below the caller's and the CALL's below the command's, as OpenTelemetry defines it; stations'
CALLs are sampled as configured; an invalid traceparent is ignored and counted; a collector that is away, hangs or refuses disturbs
no station; and the spans are the same in every protocol, with TLS too.
"""

import asyncio
import json
import socket
import time
import uuid

import grpc
import pytest
import requests
from confluent_kafka import Producer
from harness.certificates import self_signed
from harness.collector import Collector, GrpcCollector
from harness.contract import violations
from harness.station import Station
from harness.waiting import free_port, wait_for

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-00"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"
RESET = {"action": "Reset", "payload": {"type": "Soft"}}
PATH = "/api/v1/stations/CP-1/commands"
SERVER, CLIENT = 2, 3


def exporting(collector, sampling=0.0, **more):
    telemetry = {"otlp_endpoint": collector.endpoint, "sampling": sampling, "export_interval": "50ms"}
    return {"node": {"id": "gw-7"}, "telemetry": telemetry | more}


async def reset(node, station, body=RESET, answer=None, **headers):
    """Sends a command and answers it; returns the outcome."""
    command = asyncio.create_task(asyncio.to_thread(node.post, PATH, body, headers=headers))
    call = await station.next_call()
    if answer is None:
        await station.answer(call, {"status": "Accepted"})
    else:
        await station.send(answer.replace("ID", call[1]))
    response = await command
    assert response.status_code == 200, response.text
    return response.json()


def traced(node):
    """(type, messageType, traceparent) of every event that has a trace."""
    found = []
    for event in node.events():
        assert violations(event.json) == [], str(event)
        if "traceparent" in event.json:
            found.append((event.type.rpartition(".")[2], event.data.get("messageType"), event.json["traceparent"]))
    return found


# -- events ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("traceparent", [SAMPLED, UNSAMPLED])
@pytest.mark.parametrize("place", ["header", "body"])
async def test_without_a_collector_a_trace_is_propagated(gateway, place, traceparent):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        if place == "header":
            outcome = await reset(node, station, traceparent=traceparent)
        else:
            outcome = await reset(node, station, RESET | {"traceparent": traceparent}, traceparent=OTHER)
        assert outcome["status"] == "answered"
        assert traced(node) == [
            ("sent", "CALL", traceparent),
            ("received", "CALLRESULT", traceparent),
            ("result", None, traceparent),
        ]


async def test_every_outcome_of_a_command_keeps_its_trace(gateway):
    node = gateway()
    assert node.post(PATH, RESET, headers={"traceparent": SAMPLED}).json()["status"] == "offline"
    assert traced(node) == [("result", None, SAMPLED)]
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        outcome = await reset(node, station, answer='[4,"ID","GenericError","",{}]', traceparent=OTHER)
        assert outcome["status"] == "error"
        assert traced(node)[1:] == [("sent", "CALL", OTHER), ("received", "CALLERROR", OTHER), ("result", None, OTHER)]


@pytest.mark.parametrize("text", ["", "nonsense", SAMPLED.upper(), SAMPLED + "-x", f"00-{'0' * 32}-{CALLER}-01"])
async def test_an_invalid_traceparent_is_ignored_and_counted(gateway, text):
    node = gateway()
    assert node.post(PATH, RESET | {"traceparent": text}).json()["status"] == "offline"
    assert traced(node) == []
    assert node.metric("ocpp_gateway_traceparents_invalid_total") == 1


# -- spans ----------------------------------------------------------------------------------------------------------


async def test_a_collector_receives_the_command_and_its_call(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector))
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
            began = time.time_ns()
            await reset(node, station, RESET | {"commandId": "c-1"}, traceparent=SAMPLED)
            wait_for(lambda: len(collector.spans) == 2, "two spans")
        (command,), (call,) = collector.named("command Reset"), collector.named("CALL Reset")
        assert collector.complaints == []
        assert (command.trace_id, command.parent_id, command.kind) == (TRACE, CALLER, SERVER)
        assert (call.trace_id, call.parent_id, call.kind) == (TRACE, command.span_id, CLIENT)
        assert began <= command.start <= call.start <= call.end <= command.end <= time.time_ns()
        assert (command.failed, call.failed) == (False, False)
        assert command.attributes == {
            "ocpp.station.id": "CP-1",
            "ocpp.command.id": "c-1",
            "ocpp.action": "Reset",
            "ocpp.outcome": "answered",
        }
        sent, received, result = traced(node)
        assert sent == ("sent", "CALL", f"00-{TRACE}-{call.span_id}-01")
        assert received == ("received", "CALLRESULT", f"00-{TRACE}-{call.span_id}-01")
        assert result == ("result", None, f"00-{TRACE}-{command.span_id}-01")
        event = next(event for event in node.events() if event.json.get("traceparent") == sent[2])
        assert call.attributes == {
            "ocpp.station.id": "CP-1",
            "ocpp.action": "Reset",
            "ocpp.version": "1.6",
            "ocpp.session.id": event.data["sessionId"],
            "ocpp.message.id": event.data["messageId"],
            "ocpp.outcome": "answered",
        }
        assert call.resource["service.name"] == "ocpp-gateway"
        assert call.resource["service.instance.id"] == "gw-7"


async def test_a_command_that_fails_is_a_failed_span(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector))
        assert node.post(PATH, RESET, headers={"traceparent": SAMPLED}).json()["status"] == "offline"
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
            await reset(node, station, answer='[4,"ID","GenericError","no","{}"]', traceparent=SAMPLED)
        wait_for(lambda: len(collector.spans) == 3, "three spans")
        assert all(span.failed for span in collector.spans)
        (call,) = collector.named("CALL Reset")
        assert (call.attributes["ocpp.outcome"], call.attributes["ocpp.error"]) == ("error", "GenericError: no")
        (offline,) = (span for span in collector.named("command Reset") if span.attributes["ocpp.outcome"] == "offline")
        assert offline.parent_id == CALLER


async def test_what_the_caller_does_not_sample_is_not_sampled(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector, sampling=1.0))
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
            await reset(node, station, traceparent=UNSAMPLED)
        assert [event[:2] for event in traced(node) if event[2] == UNSAMPLED] == [
            ("sent", "CALL"),
            ("received", "CALLRESULT"),
            ("result", None),
        ]
        node.sigterm()
        assert [span.name for span in collector.spans] == ["CALL BootNotification"]


async def test_calls_of_stations_are_sampled(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector, sampling=1.0))
        async with await Station.connect(node, "CP-1", "2.0.1") as station:
            await station.boot()
            await station.call("Heartbeat", {}, id="h-1")
            await station.call("MARK", {})
        wait_for(lambda: len(collector.spans) == 3, "three spans")
        (beat,), (strange,) = collector.named("CALL Heartbeat"), collector.named("CALL unknown")
        assert (beat.kind, beat.parent_id, beat.failed) == (SERVER, None, False)
        assert beat.attributes["ocpp.message.id"] == "h-1"
        assert beat.attributes["ocpp.outcome"] == "answered"
        assert (strange.failed, strange.attributes["ocpp.outcome"]) == (True, "NotImplemented")
        assert len({span.trace_id for span in collector.spans}) == 3
        own = f"00-{beat.trace_id}-{beat.span_id}-01"
        assert [event[:2] for event in traced(node) if event[2] == own] == [
            ("received", "CALL"),
            ("sent", "CALLRESULT"),
        ]

    with Collector() as collector:
        node = gateway(exporting(collector, sampling=0.0))
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
        assert traced(node) == []
        node.sigterm()
        assert collector.requests == 0


async def test_a_delegated_call_is_one_span(gateway):
    with Collector() as collector:
        answers = {"Authorize": {"by": "backend", "deadline": "300ms"}}
        node = gateway(exporting(collector, sampling=1.0) | {"answers": answers})
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
            assert (await station.call("Authorize", {"idTag": "T"}))[0] in (3, 4)
            wait_for(lambda: collector.named("CALL Authorize"), "its span")
        (span,) = collector.named("CALL Authorize")
        assert span.end - span.start >= 300_000_000, "it lasts until the answer"
        own = f"00-{span.trace_id}-{span.span_id}-01"
        assert [event[0] for event in traced(node) if event[2] == own] == ["received", "sent"]


async def test_the_last_spans_are_exported_during_shutdown(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector, sampling=1.0, export_interval="1h"))
        station = await Station.connect(node, "CP-1")
        await station.boot()
        for number in range(600):
            await station.call("Heartbeat", {}, id=f"{number}")
        wait_for(lambda: len(collector.spans) == 512, "a full batch, which does not wait")
        assert await asyncio.to_thread(node.sigterm) == 0
        await station.closed()
        assert len(collector.spans) == 601
        assert collector.complaints == []


async def test_a_queued_command_keeps_its_trace_across_a_restart(gateway):
    with Collector() as collector:
        node = gateway(exporting(collector))
        response = node.post(PATH, RESET | {"ifOffline": "queue"}, headers={"traceparent": SAMPLED})
        assert response.status_code == 202, response.text
        node.kill9()
        node.start()
        async with await Station.connect(node, "CP-1") as station:
            await station.boot()
            await station.answer(await station.next_call(), {"status": "Accepted"})
            wait_for(lambda: len(collector.spans) == 2, "two spans")
        (command,), (call,) = collector.named("command Reset"), collector.named("CALL Reset")
        assert (command.trace_id, command.parent_id, call.parent_id) == (TRACE, CALLER, command.span_id)
        assert command.start < call.start - 1_000_000, "it waited across the restart"
        result = node.events(type="ocpp.command.result")[0]
        assert result.json["traceparent"] == f"00-{TRACE}-{command.span_id}-01"


async def test_the_commands_of_a_batch_are_in_its_trace(gateway):
    node = gateway()
    batch = RESET | {"to": {"stations": ["CP-1", "CP-2"]}, "ratePerSecond": 100}
    assert node.post("/api/v1/commands", batch, headers={"traceparent": SAMPLED}).status_code == 202
    events = node.await_events(lambda events: len(events) == 2, "both results", type="ocpp.command.result")
    assert [event.json["traceparent"] for event in events] == [SAMPLED] * 2
    assert node.post("/api/v1/commands", batch | {"traceparent": "nonsense"}).status_code == 202
    node.await_events(lambda events: len(events) == 4, "two more", type="ocpp.command.result")
    assert node.metric("ocpp_gateway_traceparents_invalid_total") == 1, "counted once, not for each command"


async def test_a_record_has_its_traceparent_in_the_body_or_in_a_header(gateway, kafka):
    suffix = uuid.uuid4().hex[:8]
    names = ("events", "command_results", "commands")
    topics = kafka.fresh_topics(names={name: f"ocpp.{name.replace('_', '-')}.{suffix}" for name in names})
    commands = {"consumer_group": f"gateway-{suffix}"}
    gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics, "commands": commands})
    producer = Producer({"bootstrap.servers": kafka.address})
    for id, more in (("body", {"traceparent": SAMPLED}), ("header", {}), ("none", {})):
        value = json.dumps(RESET | {"stationId": "CP-1", "commandId": id} | more)
        headers = [] if id == "none" else [("traceparent", OTHER)]
        producer.produce(topics["commands"], value, "CP-1", headers=headers)
    producer.flush(10)
    records = await asyncio.to_thread(
        wait_for, lambda: len(found := kafka.records(topics["command_results"])) == 3 and found, "three results", 30
    )
    traces = {record.event.data["commandId"]: record.event.json.get("traceparent") for record in records}
    assert traces == {"body": SAMPLED, "header": OTHER, "none": None}


# -- collectors that fail -------------------------------------------------------------------------------------------


async def works(node):
    """Fails unless a station is served as usual."""
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        began = time.monotonic()
        for number in range(50):
            assert (await station.call("Heartbeat", {}, id=f"{number}"))[0] == 3
        assert time.monotonic() - began < 5


def spans(node, outcome):
    return node.metric("ocpp_gateway_spans_total", outcome=outcome)


async def test_a_collector_that_starts_late(gateway):
    port = free_port()
    telemetry = {"otlp_endpoint": f"http://127.0.0.1:{port}", "sampling": 1.0, "export_interval": "50ms"}
    node = gateway({"telemetry": telemetry})
    await works(node)
    wait_for(lambda: spans(node, "failed") == 51, "all of them to fail")
    assert node.metric("ocpp_gateway_spans_waiting") == 0
    warnings = [line for line in node.log_text().splitlines() if "WARN" in line and "spans are not taken" in line]
    assert len(warnings) == 1, "it is logged once a minute"
    assert f"127.0.0.1:{port}" in warnings[0]
    with Collector(port) as collector:
        await works(node)
        wait_for(lambda: spans(node, "exported") == 51, "the next to arrive")
        assert len(collector.spans) == 51


async def test_a_collector_that_refuses(gateway):
    with Collector() as collector:
        collector.answer = (429, b'{"message":"slow down"}')
        node = gateway(exporting(collector, sampling=1.0))
        await works(node)
        wait_for(lambda: spans(node, "failed") == 51, "all of them to fail")
        assert "429" in node.log_text()
        collector.answer = (200, b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"why not"}}')
        requests_before = collector.requests
        await works(node)
        wait_for(lambda: spans(node, "exported") + spans(node, "rejected") == 51, "the next to be taken")
        assert spans(node, "rejected") == collector.requests - requests_before


@pytest.mark.parametrize("protocol", ["http/json", "grpc"])
async def test_a_hanging_collector_costs_spans_and_nothing_else(gateway, protocol):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        telemetry = {
            "otlp_endpoint": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            "protocol": protocol,
            "sampling": 1.0,
            "queue_spans": 10,
            "export_interval": "10ms",
        }
        node = gateway({"telemetry": telemetry})
        await works(node)
        assert spans(node, "dropped") > 0
        assert node.metric("ocpp_gateway_spans_waiting") <= 10
        began = time.monotonic()
        assert node.sigterm() == 0
        assert time.monotonic() - began < 6


# -- protocols ------------------------------------------------------------------------------------------------------


async def command_is_recorded(node, collector):
    """A command's span and its CALL's arrive with everything that the collector should see of them."""
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        began = time.time_ns()
        await reset(node, station, RESET | {"commandId": "c-1"}, traceparent=SAMPLED)
        await asyncio.to_thread(wait_for, lambda: len(collector.spans) == 2, "two spans")
    (command,), (call,) = collector.named("command Reset"), collector.named("CALL Reset")
    assert collector.complaints == []
    assert (command.trace_id, command.parent_id, command.kind) == (TRACE, CALLER, SERVER)
    assert (call.trace_id, call.parent_id, call.kind) == (TRACE, command.span_id, CLIENT)
    assert began <= command.start <= call.start <= call.end <= command.end <= time.time_ns()
    assert command.attributes["ocpp.command.id"] == "c-1"
    assert command.resource["service.instance.id"] == "gw-7"


async def test_protobuf_over_http(gateway):
    with Collector() as collector:
        collector.content_type, collector.answer = "application/x-protobuf", (200, b"")
        node = gateway(exporting(collector, protocol="http/protobuf"))
        await command_is_recorded(node, collector)
        # Field 1 of the response, the partial success: its field 1, the rejected spans, is 1.
        collector.answer = (200, bytes([0x0A, 2, 0x08, 1]))
        node.post(PATH, RESET, headers={"traceparent": SAMPLED})
        wait_for(lambda: spans(node, "rejected") == 1, "the collector's rejection")
        assert spans(node, "exported") == 2


async def test_protobuf_over_tls_is_verified_against_the_systems_roots(gateway, tmp_path):
    certificate, context = self_signed(tmp_path)
    with Collector(tls=context) as collector:
        collector.content_type, collector.answer = "application/x-protobuf", (200, b"")
        trusting = gateway(exporting(collector, protocol="http/protobuf"), start=False)
        trusting.environment["SSL_CERT_FILE"] = str(certificate)
        await command_is_recorded(trusting.start(), collector)
        careful = gateway(exporting(collector, protocol="http/protobuf"))
        careful.post(PATH, RESET, headers={"traceparent": SAMPLED})
        wait_for(lambda: spans(careful, "failed") == 1, "the unknown certificate to be refused")


async def test_grpc(gateway):
    with GrpcCollector() as collector:
        node = gateway(exporting(collector, protocol="grpc"))
        await command_is_recorded(node, collector)
        collector.rejected_spans = 1
        node.post(PATH, RESET, headers={"traceparent": SAMPLED})
        wait_for(lambda: spans(node, "rejected") == 1, "the collector's rejection")
        collector.refusal = grpc.StatusCode.RESOURCE_EXHAUSTED
        node.post(PATH, RESET, headers={"traceparent": SAMPLED})
        wait_for(lambda: spans(node, "failed") == 1, "the refusal")
        assert "not today" in node.log_text()


def test_the_telemetry_options_are_checked_before_anything_starts(gateway):
    for telemetry, part in (
        ({"otlp_endpoint": "collector:4318"}, "telemetry.otlp_endpoint"),
        ({"otlp_endpoint": "https://collector"}, "telemetry.otlp_endpoint"),
        ({"sampling": 1.5}, "telemetry.sampling"),
        ({"queue_spans": 0}, "telemetry.queue_spans"),
        ({"export_interval": "0s"}, "telemetry.export_interval"),
        ({"protocol": "http/xml"}, "telemetry.protocol"),
    ):
        node = gateway({"telemetry": telemetry}, start=False)
        node.start(until=None)
        assert node.process.wait(10) == 2
        assert part in node.log_text()
        with pytest.raises(requests.ConnectionError):
            node.get("/livez")
