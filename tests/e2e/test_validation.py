"""Payloads against the official schemas, in both directions, for every action of the three versions.

Proves: what `jsonschema` takes by the published schemas passes, and what it refuses is refused with an error that names the
member: commands, backends' answers, CALLs of stations and their answers to commands.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from harness.contract import violations
from harness.gateway import Gateway
from harness.schemas import Case, cases, example, from_stations, to_stations
from harness.station import Station
from harness.waiting import wait_for

VERSIONS = ["1.6", "2.0.1", "2.1"]
POOL = ThreadPoolExecutor(16)
ENFORCE = {"validation": {"mode": "enforce", "exempt": []}}


def command(node: Gateway, action: str, payload: Any, **more: Any) -> dict[str, Any]:
    """The outcome of a command."""
    body = {"action": action, "payload": payload, **more}
    response = node.post("/api/v1/stations/CP-1/commands", body)
    assert response.status_code == 200, response.text
    return response.json()


def ask(node: Gateway, action: str, payload: Any, **more: Any) -> asyncio.Future[dict[str, Any]]:
    return asyncio.wrap_future(POOL.submit(command, node, action, payload, **more))


async def connected(node: Gateway, version: str) -> Station:
    station = await Station.connect(node, "CP-1", version)
    await station.boot()
    return station


def names(text: str, wrong: Case) -> bool:
    return text.startswith("payload.") and wrong.wrong in text


def test_the_schemas_are_of_all_actions():
    assert [len(to_stations(version)) for version in VERSIONS] == [26, 40, 55]
    assert [len(from_stations(version)) for version in VERSIONS] == [14, 25, 36]


# -- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_command_of_every_action_is_checked_against_its_schema(gateway, version):
    node = gateway()
    async with await connected(node, version) as station:
        wrong = 0
        for action in to_stations(version):
            for case in cases(version, action, "Request"):
                outcome = ask(node, action, case.payload)
                if case.wrong is None:
                    call = await station.next_call()
                    assert call[2:] == [action, case.payload]
                    await station.answer(call, example(version, action, "Response"))
                    assert (await outcome)["status"] == "answered"
                    continue
                wrong += 1
                ended = await outcome
                assert (ended["status"], ended["sent"]) == ("invalid", "no"), (action, case.payload)
                assert names(ended["error"]["description"], case), (ended, case)
        await station.silence(0.1)
        assert wrong > 100
        assert node.metric("ocpp_gateway_command_violations_total") >= wrong
    [result] = [event for event in node.events(type="ocpp.command.result") if event.data["status"] == "invalid"][:1]
    assert violations(result.json) == []


async def test_what_is_done_about_commands_can_be_chosen(gateway):
    for mode, sent in [("off", 0), ("warn", 1)]:
        node = gateway({"validation": {"commands": mode}})
        async with await connected(node, "1.6") as station:
            outcome = ask(node, "Reset", {"type": "Foo", "more": 1})
            call = await station.next_call()
            assert call[2:] == ["Reset", {"type": "Foo", "more": 1}]
            await station.answer(call, {"status": "Rejected"})
            assert (await outcome)["status"] == "answered"
        assert node.metric("ocpp_gateway_command_violations_total", action="Reset") == sent


async def test_a_queued_command_is_checked_when_its_station_says_what_it_speaks(gateway):
    """Valid in 2.0.1 and not in 1.6."""
    node = gateway()
    queue = {"ifOffline": "queue"}
    assert (
        node.post("/api/v1/stations/CP-1/commands", {"action": "Reset", "commandId": "a", **queue}).status_code == 202
    )
    body = {"action": "Reset", "payload": {"type": "Immediate"}, "commandId": "b", **queue}
    assert node.post("/api/v1/stations/CP-1/commands", body).status_code == 202
    async with await connected(node, "2.0.1") as station:
        call = await station.next_call()
        assert call[2:] == ["Reset", {"type": "Immediate"}]
        await station.answer(call, {"status": "Accepted"})
        node.await_events(lambda events: len(events) == 2, "both results", type="ocpp.command.result")
    outcome = node.get("/api/v1/commands/a").json()
    assert (outcome["status"], outcome["error"]["description"]) == ("invalid", "payload.type: missing")
    assert node.get("/api/v1/commands/b").json()["status"] == "answered"


# -- answers of backends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_backends_answer_to_every_action_is_checked_against_its_schema(gateway, version):
    """Whatever `validation.mode` says."""
    by_backend = {action: {"by": "backend", "deadline": "60s"} for action in from_stations(version)}
    node = gateway({"answers": by_backend, "registration": {"before_boot": "accept"}})

    def answer(id: str, payload: Any) -> requests.Response:
        return node.post("/api/v1/stations/CP-1/answers", {"messageId": id, "payload": payload})

    wrong = 0
    async with await Station.connect(node, "CP-1", version) as station:
        for action in from_stations(version):
            asked = asyncio.create_task(station.call(action, example(version, action, "Request"), id=action))
            await asyncio.to_thread(wait_for, lambda: delegated(node) == 1, f"{action} waits")
            for case in cases(version, action, "Response"):
                if case.wrong is None:
                    continue
                wrong += 1
                refused = await asyncio.to_thread(answer, action, case.payload)
                assert refused.status_code == 422, (action, case.payload)
                assert names(refused.json()["detail"], case), (refused.json(), case)
            right = example(version, action, "Response", full=True)
            if action == "BootNotification":
                right["status"] = "Accepted"
            assert (await asyncio.to_thread(answer, action, right)).status_code == 200
            assert (await asked) == [3, action, right]
    assert node.metric("ocpp_gateway_payload_violations_total") == wrong > 50


def delegated(node: Gateway) -> float:
    return node.metric("ocpp_gateway_answers_awaited")


# -- messages of stations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stations_call_of_every_action_is_checked_against_its_schema(gateway, version):
    node = gateway(ENFORCE | {"registration": {"before_boot": "accept"}})
    right, wrong = [], []
    async with await Station.connect(node, "CP-1", version) as station:
        for action in from_stations(version):
            for number, case in enumerate(cases(version, action, "Request")):
                id = f"{action}-{number}"
                answer = await station.call(action, case.payload, id=id)
                (wrong if case.wrong else right).append(id)
                assert answer[0] == (4 if case.wrong else 3), (action, case, answer)
                assert not case.wrong or names(answer[3], case), (answer, case)
    events = {event.data["messageId"]: event for event in node.events(type="ocpp.message.received")}
    assert [id for id in right if "violation" in events[id].json] == []
    assert [id for id in wrong if "violation" not in events[id].json] == []
    for id in wrong[:20]:
        assert violations(events[id].json) == []
    assert node.metric("ocpp_gateway_payload_violations_total") == len(wrong) > 100


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stations_answer_to_every_command_is_checked_against_its_schema(gateway, version):
    """The backend has it all the same; a station of 2.1 is told."""
    node = gateway(ENFORCE)
    wrong = 0
    async with await connected(node, version) as station:
        for action in to_stations(version):
            for case in cases(version, action, "Response"):
                outcome = ask(node, action, example(version, action, "Request"))
                call = await station.next_call()
                await station.answer(call, case.payload)
                ended = await outcome
                assert (ended["status"], ended["payload"]) == ("answered", case.payload)
                if case.wrong is None:
                    assert "violation" not in ended, (action, case, ended)
                    continue
                wrong += 1
                assert names(ended["violation"], case), (ended, case)
                if version == "2.1":
                    refusal = await station.receive()
                    assert (refusal[:2], refusal[3]) == ([5, call[1]], ended["violation"])
        await station.silence(0.1)
    results = [event for event in node.events(type="ocpp.command.result") if "violation" in event.data]
    answers = [event for event in node.events(type="ocpp.message.received") if "violation" in event.json]
    assert len(results) == len(answers) == wrong > 100
    assert violations(results[0].json) == violations(answers[0].json) == []
    assert results[0].data["violation"] == answers[0].json["violation"]


# -- deviations of the field ----------------------------------------------------------------------------------------

STATUS = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
DEVIATIONS = {
    "longStrings": ("info", STATUS | {"info": "x" * 51}),
    "unknownValues": ("errorCode", STATUS | {"errorCode": "Error"}),
    "numbersAsStrings": ("connectorId", STATUS | {"connectorId": "1"}),
    "stringsAsNumbers": ("info", STATUS | {"info": 0.0}),
    "nulls": ("info", STATUS | {"info": None}),
    "times": ("timestamp", STATUS | {"timestamp": "2026-11-20T10:30:00"}),
    "additional": ("extra", STATUS | {"extra": [1]}),
}
METER = {"connectorId": 1, "meterValue": {"timestamp": "2026-11-20T10:30:00Z", "sampledValue": [{"value": "1"}]}}
# The word in the configuration covers both.
WORDS = {"stringsAsNumbers": "numbersAsStrings"}


def deviations(node: Gateway, **filters: str) -> list[dict[str, Any]]:
    response = node.get("/api/v1/deviations", params=filters)
    assert response.status_code == 200, response.text
    return response.json()["deviations"]


@pytest.mark.parametrize("kind", DEVIATIONS)
async def test_each_deviation_can_be_let_through_and_is_counted(gateway, kind):
    member, payload = DEVIATIONS[kind]
    for tolerate, type in [([], 4), ([WORDS.get(kind, kind)], 3)]:
        node = gateway({"validation": {"mode": "enforce", "tolerate": tolerate}})
        async with await connected(node, "1.6") as station:
            assert (await station.call("StatusNotification", payload, id="a"))[0] == type
            # What is not a deviation of the field is refused all the same.
            assert (await station.call("StatusNotification", payload | {"status": 7}))[0] == 4
        event = next(e for e in node.events(type="ocpp.message.received") if e.data["messageId"] == "a")
        assert event.data["payload"] == payload
        assert event.json["violation"].startswith(f"payload.{member}: ")
        assert violations(event.json) == []
        [row] = deviations(node, kind=kind)
        assert (row["action"], row["member"], row["messageType"]) == ("StatusNotification", member, "CALL")
        assert (row["vendor"], row["model"], row["ocppVersion"]) == ("Vendor", "Model", "1.6")
        assert (row["count"], row["refused"], row["stations"]) == (2, 0 if tolerate else 2, 1)
        assert node.metric("ocpp_gateway_leniencies_total", kind=kind) == (2 if tolerate else 0)


async def test_messages_about_transactions_are_never_refused(gateway):
    node = gateway({"validation": {"mode": "enforce"}})
    async with await connected(node, "1.6") as station:
        assert (await station.call("MeterValues", METER))[0] == 3
        assert (await station.call("StartTransaction", {"connectorId": 1}))[0] == 3
        assert (await station.call("StatusNotification", {}))[0] == 4
    [row] = deviations(node, action="MeterValues")
    assert (row["member"], row["kind"], row["refused"]) == ("meterValue", "singleForList", 0)
    assert node.metric("ocpp_gateway_payload_violations_total", action="MeterValues") == 1


async def test_before_enforcing_one_sees_which_models_deviate_how(gateway):
    """The report, the log and the events say who, what and where; a restart forgets the counts but not the models."""
    node = gateway({"validation": {"mode": "warn"}, "log": {"level": "info"}})
    for number in range(3):
        async with await Station.connect(node, f"CP-{number}") as station:
            await station.call("BootNotification", {"chargePointVendor": "ACME", "chargePointModel": f"M{number // 2}"})
            for _ in range(number + 2):
                assert (await station.call("StatusNotification", STATUS | {"errorCode": "Error"}))[0] == 3
    first, second = deviations(node)
    assert (first["model"], first["count"], first["stations"], first["examples"]) == ("M0", 5, 2, ["CP-0", "CP-1"])
    assert (second["model"], second["count"], second["stations"], second["examples"]) == ("M1", 4, 1, ["CP-2"])
    assert first["example"] == 'payload.errorCode: "Error" is not one of the allowed values'
    assert (first["kind"], first["refused"]) == ("unknownValues", 0)
    [one] = deviations(node, station="cp-1")
    assert (one["byStation"], one["count"]) == (3, 5)
    assert deviations(node, station="CP-9") == []
    lines = [line for line in node.log_text().splitlines() if "deviates" in line]
    assert len(lines) == 2
    assert all(word in lines[0] for word in ("CP-0", "ACME M0", "StatusNotification", "errorCode", "unknownValues"))
    assert node.metric("ocpp_gateway_deviations_listed") == 2
    shown = node.get("/api/v1/stations/CP-0").json()
    assert (shown["vendor"], shown["model"]) == ("ACME", "M0")

    node.kill9()
    await asyncio.to_thread(node.restart)
    assert deviations(node) == []
    async with await Station.connect(node, "CP-0") as station:
        await station.call("StatusNotification", STATUS | {"errorCode": "Error"})
    assert [(row["model"], row["count"]) for row in deviations(node)] == [("M0", 1)]


@pytest.mark.parametrize("version", VERSIONS)
async def test_odd_message_ids_are_read_where_that_is_configured(gateway, version):
    long = "x" * 200
    strict, lenient = gateway(), gateway({"validation": {"message_ids": ["long", "numeric"]}})
    for node, type in [(strict, 4), (lenient, 3)]:
        async with await connected(node, version) as station:
            for literal in ("42", f'"{long}"'):
                await station.send(f'[2,{literal},"Heartbeat",{{}}]')
                answer = await station.receive()
                assert answer[0] == type
                assert type == 4 or answer[1] == (42 if literal == "42" else long)
            await station.send(f'[2,"{"x" * 256}","Heartbeat",{{}}]')
            assert (await station.receive())[0] == 4, "there is a limit all the same"
    ids = [
        e.data["messageId"] for e in lenient.events(type="ocpp.message.received") if e.data.get("action") == "Heartbeat"
    ]
    assert ids == ["42", long]
    assert all(violations(event.json) == [] for event in lenient.events())
    for kind in ("numericIds", "longIds"):
        assert lenient.metric("ocpp_gateway_leniencies_total", kind=kind) == 1
        assert [row["count"] for row in deviations(lenient, kind=kind)] == [1]
    assert strict.metric("ocpp_gateway_malformed_messages_total") == 3


async def test_a_backend_answers_a_call_with_an_odd_id(gateway):
    rules = {"validation": {"message_ids": ["long", "numeric"]}}
    node = gateway(rules | {"answers": {"Authorize": {"by": "backend", "deadline": "20s"}}})
    long = "x" * 200
    async with await connected(node, "1.6") as station:
        for literal, id in [("42", "42"), (f'"{long}"', long)]:
            await station.send(f'[2,{literal},"Authorize",{{"idTag":"T"}}]')
            await asyncio.to_thread(wait_for, lambda: delegated(node) == 1, "the wait")
            body = {"messageId": id, "payload": {"idTagInfo": {"status": "Blocked"}}}
            assert node.post("/api/v1/stations/CP-1/answers", body).status_code == 200
            assert (await station.receive())[2] == body["payload"]


async def test_what_is_tolerated_may_differ_by_station(gateway):
    node = gateway({"validation": {"mode": "enforce"}})
    response = node.put("/api/v1/stations/CP-1/settings", {"tolerate": ["unknownValues"], "message_ids": ["numeric"]})
    assert response.status_code == 200, response.text
    assert response.json()["effective"]["tolerate"] == {"value": ["unknownValues"], "source": "station"}
    odd = STATUS | {"errorCode": "Error"}
    for identity, type in [("CP-1", 3), ("CP-2", 4)]:
        async with await Station.connect(node, identity) as station:
            await station.boot()
            assert (await station.call("StatusNotification", odd))[0] == type
            await station.send('[2,7,"Heartbeat",{}]')
            assert (await station.receive())[0] == type
    async with await connected(node, "1.6") as station:
        # Settings are taken over while the station is connected.
        assert (
            node.put("/api/v1/stations/CP-1/settings", {"exempt": ["StatusNotification", "Reset"]}).status_code == 200
        )
        answer = await station.call("StatusNotification", STATUS | {"connectorId": "x"})
        assert answer[0] == 3
        outcome = ask(node, "Reset", {})
        await station.answer(await station.next_call(), {"status": "Rejected"})
        assert (await outcome)["status"] == "answered"
