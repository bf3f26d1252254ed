"""CALLs in both directions, and the outcome of a command (OCPP-J 4.1.1 and 4.2; docs/asyncapi.yaml, CommandResult).

Proves: CALLs may cross; the gateway has one outstanding CALL per station, and sends urgent ones first; a timeout frees the slot, and
a late answer is dropped and counted; a station's answer is returned whole; every command ends with one outcome out of a closed
set, which is published as an event.
"""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from harness.contract import member_text, violations
from harness.gateway import Gateway
from harness.station import Station
from harness.waiting import wait_for

VERSIONS = ["1.6", "2.0.1", "2.1"]
# A command that each version has, and that is not urgent.
READ = {
    "1.6": ("GetConfiguration", {}),
    "2.0.1": ("GetLocalListVersion", {}),
    "2.1": ("GetLocalListVersion", {}),
}
# A request blocks until its outcome; asyncio's default pool is too small for many of them.
POOL = ThreadPoolExecutor(32)


def ask(
    node: Gateway, identity: str, action: str, payload: dict[str, Any] | None = None, **more: Any
) -> asyncio.Future[requests.Response]:
    """Sends a command over HTTP; returns a future of the response."""
    body = {"action": action, "payload": payload or {}, **more}
    return asyncio.wrap_future(POOL.submit(node.post, f"/api/v1/stations/{identity}/commands", body))


async def queued(node: Gateway, identity: str, count: int) -> None:
    """Waits until this many commands wait for the station."""

    def look() -> bool:
        return node.get(f"/api/v1/stations/{identity}").json()["commandsWaiting"] == count

    await asyncio.to_thread(wait_for, look, f"{count} commands wait for {identity}")


def check_result(node: Gateway, body: dict[str, Any]) -> None:
    """The outcome in the HTTP response equals the command's only result event."""
    events = [e for e in node.events(type="ocpp.command.result") if e.data["commandId"] == body["commandId"]]
    assert len(events) == 1, events
    assert violations(events[0].json) == []
    outcome = {key: value for key, value in body.items() if key not in ("commandId", "stationId")}
    assert {key: events[0].data[key] for key in outcome} == outcome


# -- both directions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
async def test_calls_that_cross_are_both_answered(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        outcome = ask(node, "CP-1", *READ[version])
        call = await station.next_call()
        # The station owes an answer but is answered all the same; ids are unique per sender only.
        for id in (call[1], "a", "b"):
            assert (await station.call("Heartbeat", {}, id=id))[:2] == [3, id]
        assert not outcome.done()
        await station.answer(call, {"some": "answer"})
        body = (await outcome).json()
        assert (body["status"], body["payload"]) == ("answered", {"some": "answer"})
        check_result(node, body)


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_names_no_token_may_not_charge(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        info = "idTagInfo" if version == "1.6" else "idTokenInfo"
        assert (await station.call("Authorize", {}))[2] == {info: {"status": "Invalid"}}


async def test_a_storm_in_both_directions_never_has_two_calls_outstanding(gateway):
    """30 commands against 400 CALLs from the station, which answers each command only five frames later."""
    node = gateway({"session": {"command_queue": 64}})
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        outcomes = [ask(node, "CP-1", "GetConfiguration", {"key": [str(number)]}) for number in range(30)]
        answered, outstanding, frames_since = set(), None, 0

        async def talk() -> None:
            for number in range(400):
                await station.send(f'[2,"call-{number}","Heartbeat",{{}}]')

        talking = asyncio.create_task(talk())
        served = 0
        while len(answered) < 400 or served < len(outcomes):
            frame = await station.receive()
            frames_since += 1
            if frame[0] == 2:
                assert outstanding is None, "a second CALL before the first was answered"
                outstanding, frames_since = frame, 0
            else:
                assert frame[0] == 3, frame
                answered.add(frame[1])
            if outstanding and (frames_since >= 5 or len(answered) == 400):
                call, outstanding, served = outstanding, None, served + 1
                await station.answer(call, {"unknownKey": call[3]["key"]})
        await talking
        assert answered == {f"call-{number}" for number in range(400)}
        for number, outcome in enumerate(outcomes):
            assert (await outcome).json()["payload"] == {"unknownKey": [str(number)]}


async def test_a_station_that_does_not_answer_delays_no_other(gateway):
    node = gateway()
    async with await Station.connect(node, "MUTE") as mute, await Station.connect(node, "CP-1") as station:
        await mute.boot()
        await station.boot()
        waiting = [ask(node, "MUTE", "GetConfiguration", timeoutMs=3000) for _ in range(5)]
        await mute.next_call()
        for _ in range(20):
            began = time.monotonic()
            outcome = ask(node, "CP-1", "GetConfiguration")
            await station.answer(await station.next_call(), {})
            assert (await outcome).json()["status"] == "answered"
            assert time.monotonic() - began < 1.0
        assert not any(outcome.done() for outcome in waiting)
        assert {(await outcome).json()["status"] for outcome in waiting} == {"timeout"}


# -- time ---------------------------------------------------------------------------------------------------------


async def test_a_timeout_frees_the_slot_and_a_late_answer_is_dropped(gateway):
    node = gateway()

    def unmatched(kind: str) -> float:
        return node.metric("ocpp_gateway_unmatched_answers_total", kind=kind)

    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        first = ask(node, "CP-1", "GetConfiguration", commandId="c1", timeoutMs=400)
        late = await station.next_call()
        second = ask(node, "CP-1", "ClearCache", commandId="c2", timeoutMs=20_000)
        body = (await first).json()
        assert body["status"] == body["error"]["code"] == "timeout"
        check_result(node, body)

        call = await station.next_call()
        assert call[2] == "ClearCache"
        await station.answer(late, {"too": "late"})
        await station.answer([2, "never-asked"], {"status": "Accepted"})
        await station.send(f'[4,"{late[1]}","GenericError","late",{{}}]')
        # Answered after these were read: they got no answer, and the second command still waits.
        assert (await station.call("Heartbeat", {}))[0] == 3
        assert (unmatched("late"), unmatched("unknown")) == (2, 1)
        assert not second.done()
        await station.answer(call, {"status": "Accepted"})
        body = (await second).json()
        assert (body["status"], body["payload"]) == ("answered", {"status": "Accepted"})
        # The same answer again.
        await station.answer(call, {"status": "Rejected"})
        assert (await station.call("Heartbeat", {}))[0] == 3
        assert unmatched("late") == 3
    events = [e for e in node.events(type="ocpp.message.received") if e.data["messageType"] != "CALL"]
    assert [violations(event.json) for event in events] == [[]] * 5
    found = [(event.data.get("commandId"), event.data.get("action")) for event in events]
    late, nothing = ("c1", "GetConfiguration"), (None, None)
    assert found == [late, nothing, late, ("c2", "ClearCache"), nothing], "late answers name what they answer"
    sent = [e for e in node.events(type="ocpp.message.sent") if e.data["messageType"] == "CALL"]
    assert [(event.data["commandId"], violations(event.json)) for event in sent] == [("c1", []), ("c2", [])]


async def test_a_command_that_expires_before_it_is_sent(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        first = ask(node, "CP-1", "GetConfiguration", timeoutMs=20_000)
        call = await station.next_call()
        soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1.5))
        waiting = {
            "timeout": ask(node, "CP-1", "ClearCache", timeoutMs=300),
            "expired": ask(node, "CP-1", "ClearCache", expiresAt=soon),
        }
        over = await ask(node, "CP-1", "ClearCache", expiresAt="2020-01-01T00:00:00Z")
        assert over.json()["status"] == "expired"
        check_result(node, over.json())
        for status, outcome in waiting.items():
            body = (await outcome).json()
            assert body["status"] == status
            check_result(node, body)
        await station.answer(call, {})
        assert (await first).json()["status"] == "answered"
        await station.silence(0.3)


# -- answers of the station ---------------------------------------------------------------------------------------

ALL, NOT_21, ONLY_21 = VERSIONS, ["1.6", "2.0.1"], ["2.1"]
# What the station sends, with the command's id in place of $; the outcome; what is returned; in which versions;
# and the code of the CALLRESULTERROR that the gateway replies with (2.1 only).
REPLIES = [
    ('[3,"$",{}]', "answered", "{}", ALL, None),
    ('[ 3 , "$", { "x" : 1.50, "\\u0079":"\\/" } ]', "answered", '{ "x" : 1.50, "\\u0079":"\\/" }', ALL, None),
    ('[3,"$",null]', "answered", "null", ALL, None),
    ('[4,"$","NotSupported","n\\u00f6",{"why":1.50}]', "error", ["NotSupported", "n\u00f6", '{"why":1.50}'], ALL, None),
    ('[4,"$","OccurenceConstraintViolation","",{}]', "error", ["OccurenceConstraintViolation", "", "{}"], ALL, None),
    ('[4,"$","OwnCode","d",["no","object"]]', "error", ["OwnCode", "d", '["no","object"]'], ALL, None),
    ('[4,"$","OwnCode"]', "error", ["OwnCode", "", "{}"], ALL, None),
    ('[4,"$"]', "error", ["", "", "{}"], ALL, None),
    ('[4,"-1","RpcFrameworkError","who?",{}]', "error", ["RpcFrameworkError", "who?", "{}"], ALL, None),
    ('[3,"$"]', "error", None, NOT_21, None),
    ('[3,"$",[]]', "error", None, NOT_21, None),
    ('[3,"$","text"]', "error", None, NOT_21, None),
    ('[3,"$",{},{}]', "error", None, NOT_21, None),
    ('[3,"$"]', "error", None, ONLY_21, "RpcFrameworkError"),
    ('[3,"$",[]]', "error", None, ONLY_21, "RpcFrameworkError"),
    ('[3,"$",{},{}]', "error", None, ONLY_21, "RpcFrameworkError"),
    ('[3,"$",{"broken":]', "error", None, ALL, None),
    ('[4,"$","GenericError",', "error", None, ALL, None),
]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stations_answer_is_returned_whole(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for text, status, carried, versions, complaint in REPLIES:
            if version not in versions:
                continue
            outcome = ask(node, "CP-1", *READ[version])
            call = await station.next_call()
            await station.send(text.replace("$", call[1]))
            response = await outcome
            body = response.json()
            assert (response.status_code, body["status"]) == (200, status), (text, body)
            if status == "answered":
                assert member_text(response.text, "payload") == carried, text
            else:
                error = [body["error"]["code"], body["error"]["description"]]
                error.append(member_text(response.text, "error", "details"))
                assert carried is None or error == carried, text
                assert carried or "malformed" in error[1], text
            check_result(node, body)
            if complaint:
                assert (await station.receive())[:3] == [5, call[1], complaint], text
            assert (await station.call("Heartbeat", {}))[0] == 3, "there was no other reply to it"


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_error_without_a_call_is_ignored(gateway, version):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        for text in ('[4,"-1","RpcFrameworkError","",{}]', '[4,"x","GenericError","",{}]', '[3,"x",{}]'):
            await station.send(text)
        assert (await station.call("Heartbeat", {}))[0] == 3


# -- commands that are never sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort"])
async def test_a_station_that_disconnects_ends_its_commands(gateway, end):
    node = gateway()
    never = (await ask(node, "NEVER-SEEN", "GetConfiguration")).json()
    assert never["status"] == never["error"]["code"] == "offline"
    assert never["error"]["details"] == {"known": False}
    check_result(node, never)

    station = await Station.connect(node, "CP-1")
    await station.boot()
    outcomes = [ask(node, "CP-1", "GetConfiguration") for _ in range(3)]
    await station.next_call()
    await queued(node, "CP-1", 2)
    if end == "close":
        await station.close()
    else:
        station.abort()
    for outcome in [*outcomes, ask(node, "CP-1", "GetConfiguration")]:
        body = (await outcome).json()
        assert body["status"] == body["error"]["code"] == "offline"
        assert body["error"]["details"] == {}
        check_result(node, body)
    misspelt = (await ask(node, "CP-l", "GetConfiguration")).json()
    assert (misspelt["status"], misspelt["error"]["details"]) == ("offline", {"known": False, "nearest": "CP-1"})
    assert 'did you mean "CP-1"?' in misspelt["error"]["description"]
    check_result(node, misspelt)


@pytest.mark.parametrize(
    ("version", "action"),
    [
        ("1.6", "NoSuchAction"),
        ("1.6", "getConfiguration"),
        ("1.6", "BootNotification"),
        ("1.6", "GetVariables"),
        ("2.0.1", "GetConfiguration"),
        ("2.0.1", "TransactionEvent"),
        ("2.0.1", "GetTariffs"),
        ("2.1", "RemoteStartTransaction"),
        ("2.1", "NotifyPeriodicEventStream"),
    ],
)
async def test_an_action_that_may_not_be_sent_is_invalid(gateway, version, action):
    node = gateway()
    async with await Station.connect(node, "CP-1", version) as station:
        await station.boot()
        response = await ask(node, "CP-1", action)
        body = response.json()
        assert (response.status_code, body["status"], body["error"]["code"]) == (200, "invalid", "invalid")
        assert action in body["error"]["description"]
        check_result(node, body)
        await station.silence(0.2)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"action":1}',
        '{"action":"Reset","payload":[]}',
        '{"action":"Reset","payload":"{}"}',
        '{"action":"Reset","payload":{"type":}}',
        '{"action":"Reset","timeoutMs":-1}',
        '{"action":"Reset","timeoutMs":"soon"}',
        '{"action":"Reset","timeout":"soon"}',
        '{"action":"Reset","timeout":"1s","timeoutMs":1000}',
        '{"action":"Reset","expiresAt":"soon"}',
        '{"action":"Reset","commandId":""}',
        '{"action":"Reset","surplus":1}',
    ],
)
def test_a_body_that_is_not_a_command_is_a_bad_request(shared_node, body):
    response = requests.post(shared_node.admin_url + "/api/v1/stations/CP-1/commands", data=body, timeout=10)
    assert response.status_code == 400, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert json.loads(response.text)["status"] == 400
    assert shared_node.events() == [], "no command, no result"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/stations/CP-1/commands"),
        ("POST", "/api/v1/stations/CP-1/answers"),
        ("POST", "/api/v1/commands"),
        ("PUT", "/api/v1/stations/CP-1/registration"),
        ("PUT", "/api/v1/stations/CP-1/tags"),
        ("PUT", "/api/v1/stations/CP-1/settings"),
    ],
)
def test_an_empty_body_is_told_what_it_must_be(shared_node, method, path):
    response = requests.request(method, shared_node.admin_url + path, timeout=10)
    assert response.status_code == 400
    said, example = response.json()["detail"].split(" like ")
    assert said == "the body is empty; it must be a JSON object"
    assert isinstance(json.loads(example), dict)


@pytest.fixture(scope="module")
def shared_node(shared_gateway) -> Gateway:
    return shared_gateway()
