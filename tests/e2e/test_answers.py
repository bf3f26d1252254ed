"""Answers given by a backend over HTTP: the first one reaches the station byte for byte, in order, once the CALL's event is durable;
without one, the fallback applies; a CALL that the station repeats meanwhile is still the same CALL.
"""

import asyncio
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from harness.contract import member_text, violations
from harness.station import BOOT, Station
from harness.waiting import wait_for

BY_BACKEND = {"answers": {"Authorize": {"by": "backend"}}}
TOKEN = {
    "1.6": {"idTag": "TAG"},
    "2.0.1": {"idToken": {"idToken": "TAG", "type": "Central"}},
}
TOKEN["2.1"] = TOKEN["2.0.1"]
START = {"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"}
STOP = '{"transactionId":1,"meterStop":0,"timestamp":"2026-01-01T00:00:00Z"}'
REFUSED = '{"idTagInfo":{"status":"Blocked"}}'


def allowed(number=0, version="1.6"):
    """A right answer to Authorize; in 1.6 it shows a number."""
    if version == "1.6":
        return {"idTagInfo": {"status": "Accepted", "parentIdTag": str(number)}}
    return {"idTokenInfo": {"status": "Accepted"}}


def by_backend(action, **keys):
    return {"answers": {action: {"by": "backend"} | keys}}


async def delegated(node, station="CP-1", action="Authorize", count=1):
    """Waits for this many CALLs that a backend is to answer; their events."""

    def of_backend(events):
        return [
            event for event in events if event.data.get("answeredBy") == "backend" and event.data["action"] == action
        ]

    events = await asyncio.to_thread(
        node.await_events,
        lambda events: len(of_backend(events)) >= count,
        f"{count} {action} to be answered by a backend",
        station=station,
        type="ocpp.message.received",
    )
    return of_backend(events)


def answer(node, station="CP-1", **body):
    return node.post(f"/api/v1/stations/{station}/answers", body)


def answer_text(node, message_id, payload, station="CP-1"):
    """An answer with exactly this payload text."""
    body = f'{{"messageId":{json.dumps(message_id)},"payload":{payload}}}'
    return node.post(f"/api/v1/stations/{station}/answers", None, data=body)


def received(node, action):
    events = node.events(type="ocpp.message.received")
    return [event for event in events if event.data.get("action") == action]


def published_answers(node, count):
    """Waits for this many answers to delegated CALLs; their events."""

    def answers(events):
        return [event for event in events if "answeredBy" in event.data]

    found = node.await_events(lambda events: len(answers(events)) == count, "the answers", type="ocpp.message.sent")
    return answers(found)


def awaited(node):
    return node.metric("ocpp_gateway_answers_awaited")


async def connected(node, identity="CP-1", version="1.6"):
    station = await Station.connect(node, identity, version)
    await station.boot()
    return station


# -- an answer in time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.6", "2.0.1", "2.1"])
async def test_the_payload_reaches_the_station_byte_for_byte(gateway, version):
    node = gateway(by_backend("Authorize", deadline="4s"))
    async with await connected(node, version=version) as station:
        call = asyncio.create_task(station.call("Authorize", TOKEN[version], id="é/1"))
        [event] = await delegated(node)
        assert violations(event.json) == []
        until = datetime.fromisoformat(event.data["answerUntil"])
        assert (until - datetime.fromisoformat(event.json["time"])).total_seconds() == pytest.approx(4, abs=0.002)
        assert awaited(node) == 1
        member = "idTagInfo" if version == "1.6" else "idTokenInfo"
        text = f'{{ "{member}" : {{"status":"\\u0041ccepted"\t}} }}'
        body = f'{{"messageId":"é/1","sessionId":"{event.data["sessionId"]}","payload":{text}}}'
        response = node.post("/api/v1/stations/cp-1/answers", None, data=body.encode())
        assert (response.status_code, response.json()) == (200, {"status": "accepted"})
        assert (await call)[0] == 3
        assert member_text(station.frames[-1][1], 2) == text
    [published] = published_answers(node, 1)
    assert (published.data["answeredBy"], published.payload_text) == ("backend", text)
    assert violations(published.json) == []
    assert awaited(node) == 0
    assert node.metric("ocpp_gateway_backend_answers_total", action="Authorize", outcome="answered") == 1


@pytest.mark.parametrize(("version", "spelling"), [("1.6", "FormationViolation"), ("2.0.1", "FormatViolation")])
async def test_an_error_is_forwarded_whole(gateway, version, spelling):
    node = gateway(BY_BACKEND)
    async with await connected(node, version=version) as station:
        call = asyncio.create_task(station.call("Authorize", TOKEN[version], id="a"))
        await delegated(node)
        error = {"code": "FormatViolation", "description": 'no "such" tag', "details": {"tag": [1.5, None]}}
        assert answer(node, messageId="a", error=error).status_code == 200
        assert await call == [4, "a", spelling, 'no "such" tag', {"tag": [1.5, None]}]
        # After an error, the station's next attempt is delegated anew.
        again = asyncio.create_task(station.call("Authorize", TOKEN[version], id="a"))
        await delegated(node, count=2)
        right = allowed(version=version)
        assert answer(node, messageId="a", payload=right).status_code == 200
        assert await again == [3, "a", right]
    published, _ = published_answers(node, 2)
    assert violations(published.json) == []
    assert published.data["errorDetails"] == {"tag": [1.5, None]}


async def test_a_transaction_gets_the_backends_number(gateway):
    node = gateway(by_backend("StartTransaction"))
    async with await connected(node) as station:
        call = asyncio.create_task(station.call("StartTransaction", START, id="s"))
        await delegated(node, action="StartTransaction")
        payload = {"idTagInfo": {"status": "Accepted"}, "transactionId": 77}
        assert answer(node, messageId="s", payload=payload).status_code == 200
        assert await call == [3, "s", payload]
        assert await station.call("StartTransaction", START, id="s") == [3, "s", payload], "the same again"
    assert len(received(node, "StartTransaction")) == 1


async def test_the_first_of_racing_answers_wins(gateway):
    node = gateway(BY_BACKEND)
    async with await connected(node) as station:
        call = asyncio.create_task(station.call("Authorize", TOKEN["1.6"], id="a"))
        await delegated(node)
        with ThreadPoolExecutor(8) as pool:
            responses = list(pool.map(lambda number: answer(node, messageId="a", payload=allowed(number)), range(8)))
        winners = [number for number, response in enumerate(responses) if response.status_code == 200]
        assert sorted(response.status_code for response in responses) == [200] + [409] * 7
        assert await call == [3, "a", allowed(winners[0])]
    assert node.metric("ocpp_gateway_backend_deliveries_total", outcome="alreadyAnswered") == 7


async def test_answers_that_no_call_awaits_are_refused_with_a_reason(gateway):
    node = gateway(BY_BACKEND | {"session": {"max_message_size": "4KiB"}})
    async with await connected(node) as station:
        await station.call("Heartbeat", {}, id="h")
        call = asyncio.create_task(station.call("Authorize", TOKEN["1.6"], id="a"))
        [event] = await delegated(node)
        other_session = "0199e0c4-7e0b-7cc1-a1b2-000000000001"
        good = {"messageId": "a", "payload": allowed()}
        for station_id, body, status in [
            ("CP-2", good, 404),
            ("CP-1", good | {"messageId": "b"}, 404),
            ("CP-1", good | {"messageId": "h"}, 404),
            ("CP-1", good | {"sessionId": other_session}, 404),
            ("CP-1", good | {"sessionId": "no-session"}, 400),
            ("CP-1", good | {"stationId": "CP-2"}, 400),
            ("CP-1", good | {"payload": []}, 400),
            ("CP-1", good | {"payload": {"x": "x" * 4096}}, 422),
            ("CP-1", {"messageId": "a", "error": {"code": "GenericError", "details": {"x": "x" * 4096}}}, 422),
            ("CP-1", {"messageId": "a"}, 400),
            ("CP-1", {"messageId": "a", "error": {"code": "Odd"}}, 400),
            ("CP-1", {"payload": {}}, 400),
        ]:
            response = answer(node, station_id, **body)
            assert response.status_code == status, (body, response.text)
            assert response.headers["content-type"] == "application/problem+json"
        assert node.get("/api/v1/stations/CP-1/answers").status_code == 405
        assert not call.done()
        assert answer(node, **good, sessionId=event.data["sessionId"], stationId="CP-1").status_code == 200
        assert await call == [3, "a", allowed()]
    deliveries = {
        outcome: node.metric("ocpp_gateway_backend_deliveries_total", outcome=outcome)
        for outcome in ("accepted", "unknown", "malformed", "invalid")
    }
    assert deliveries == {"accepted": 1, "unknown": 4, "malformed": 6, "invalid": 2}


async def test_a_payload_that_violates_its_schema_is_refused(gateway):
    node = gateway(BY_BACKEND)
    async with await connected(node) as station:
        call = asyncio.create_task(station.call("Authorize", TOKEN["1.6"], id="a"))
        await delegated(node)
        response = answer(node, messageId="a", payload={"idTagInfo": {"status": "Perhaps"}})
        assert response.status_code == 422
        assert "idTagInfo.status" in response.json()["detail"]
        assert answer_text(node, "a", REFUSED).status_code == 200
        assert await call == [3, "a", json.loads(REFUSED)]


# -- no answer in time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.6", "2.1"])
@pytest.mark.parametrize(("keys", "status"), [({}, "Invalid"), ({"fallback": "builtin"}, "Accepted")])
async def test_at_the_deadline_the_fallback_is_given(gateway, version, keys, status):
    node = gateway(by_backend("Authorize", deadline="300ms", **keys))
    async with await connected(node, version=version) as station:
        began = time.monotonic()
        given = await station.call("Authorize", TOKEN[version], id="a")
        assert 0.29 < time.monotonic() - began < 1.5
        assert given[0] == 3
        assert f'"{status}"' in station.frames[-1][1]
        late = answer(node, messageId="a", payload={})
        assert late.status_code == 409
        assert "deadline" in late.json()["detail"]
    assert node.metric("ocpp_gateway_backend_answers_total", action="Authorize", outcome="deadline") == 1
    assert node.metric("ocpp_gateway_backend_deliveries_total", outcome="late") == 1
    [published] = published_answers(node, 1)
    assert published.data["answeredBy"] == "gateway"
    assert violations(published.json) == []


# -- beside other messages ------------------------------------------------------------------------------------------


async def test_a_commands_outcome_does_not_wait_for_a_delegated_answer(gateway):
    """The backend may need the outcome for that very answer."""
    node = gateway(by_backend("Authorize", deadline="20s") | {"commands": {"grace": "0s"}})
    async with await connected(node) as station:
        await station.send('[2,"a","Authorize",{"idTag":"T"}]')
        await delegated(node)
        command = {"action": "GetConfiguration", "payload": {}}
        outcome = asyncio.create_task(asyncio.to_thread(node.post, "/api/v1/stations/CP-1/commands", command))
        await station.answer(await station.next_call(), {"configurationKey": []})
        assert (await asyncio.wait_for(outcome, 5)).json()["status"] == "answered"
        assert answer(node, messageId="a", payload=allowed()).status_code == 200
        assert (await station.receive())[:2] == [3, "a"]


async def test_no_answer_leaves_before_its_calls_event_is_durable(gateway, kafka, topics):
    """P1: a backend can know the CALL before Kafka has acknowledged it, as a hook does."""
    node = gateway(BY_BACKEND | {"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    async with await connected(node) as station:
        kafka.pause()
        try:
            await station.send('[2,"a","Authorize",{"idTag":"T"}]')
            wait_for(lambda: awaited(node) == 1, "the wait")
            assert answer(node, messageId="a", payload=allowed()).status_code == 200
            wait_for(lambda: awaited(node) == 0, "the answer to be accepted")
            await station.silence(1)
        finally:
            kafka.resume()
        assert await station.receive(30) == [3, "a", allowed()]


async def test_a_deadline_during_an_outage_is_answered_when_storage_is_back(gateway, kafka, topics):
    config = by_backend("StartTransaction", deadline="200ms")
    node = gateway(config | {"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    async with await connected(node) as station:
        kafka.pause()
        try:
            await station.send(f'[2,"s","StartTransaction",{json.dumps(START)}]')
            await station.silence(1)
        finally:
            kafka.resume()
        assert (await station.receive(30))[2]["transactionId"] > 0


# -- registration ---------------------------------------------------------------------------------------------------


async def decide(node, station, status, count):
    """The station boots, and the backend decides its registration."""
    boot = asyncio.create_task(station.call("BootNotification", BOOT[station.version]))
    event = (await delegated(node, action="BootNotification", count=count))[-1]
    payload = {"status": status, "currentTime": "2026-11-20T10:30:00Z", "interval": 33}
    response = answer(node, messageId=event.data["messageId"], payload=payload)
    assert response.status_code == 200, response.text
    assert (await boot)[2] == payload


@pytest.mark.parametrize("version", ["1.6", "2.0.1"])
async def test_the_backends_decision_on_a_boot_applies_and_persists(gateway, version):
    node = gateway(by_backend("BootNotification") | {"registration": {"trigger_boot": False}})

    async def heartbeat(station):
        given = await station.call("Heartbeat", {})
        return given[2] if given[0] == 4 else given[0]

    async with await Station.connect(node, "CP-1", version) as station:
        assert await heartbeat(station) == "SecurityError", "before any boot"
        await decide(node, station, "Pending", 1)
        assert await heartbeat(station) == "SecurityError"
        type = "Soft" if version == "1.6" else "OnIdle"
        command = {"action": "Reset", "payload": {"type": type}, "timeoutMs": 5000}
        sent = asyncio.create_task(asyncio.to_thread(node.post, "/api/v1/stations/CP-1/commands", command))
        await station.answer(await station.next_call(), {"status": "Accepted"})
        assert (await sent).json()["status"] == "answered", "a pending station may be configured"
        await decide(node, station, "Rejected", 2)
        assert await heartbeat(station) == "SecurityError"
        assert node.post("/api/v1/stations/CP-1/commands", command).json()["status"] == "invalid"
        await decide(node, station, "Accepted", 3)
        assert await heartbeat(station) == 3
    node.kill9()
    node.start()
    async with await Station.connect(node, "CP-1", version) as station:
        assert await heartbeat(station) == 3, "registered for good"
        await decide(node, station, "Rejected", 4)
    node.kill9()
    node.start()
    async with await Station.connect(node, "CP-1", version) as station:
        assert await heartbeat(station) == "SecurityError"


async def test_an_invalid_registration_status_is_refused(gateway):
    node = gateway(by_backend("BootNotification", deadline="500ms"))
    async with await Station.connect(node, "CP-1") as station:
        boot = asyncio.create_task(station.boot())
        [event] = await delegated(node, action="BootNotification")
        for payload in ({}, {"status": "accepted"}, {"status": 7}):
            assert answer(node, messageId=event.data["messageId"], payload=payload).status_code == 422
        assert (await boot)["status"] == "Pending", "the fallback"
        assert (await station.call("Heartbeat", {}))[2] == "SecurityError"
    assert node.metric("ocpp_gateway_backend_deliveries_total", outcome="invalid") == 3


# -- repetitions and ends -------------------------------------------------------------------------------------------


async def test_a_call_repeated_on_a_new_connection_is_delegated_once(gateway):
    node = gateway(by_backend("StopTransaction", deadline="20s"))
    async with await connected(node) as station:
        await station.send('[2,"a","StopTransaction",' + STOP + "]")
        [event] = await delegated(node, action="StopTransaction")
        station.abort()
    async with await Station.connect(node, "CP-1") as station:
        await station.send('[2,"a","StopTransaction",' + STOP + "]")
        wait_for(lambda: node.metric("ocpp_gateway_repeated_calls_total", kind="joined") == 1, "the repetition")
        assert awaited(node) == 1
        body = {"messageId": "a", "sessionId": event.data["sessionId"], "payload": allowed(1)}
        assert answer(node, **body).json() == {"status": "accepted"}
        assert await station.receive() == [3, "a", allowed(1)]
        assert answer(node, **body).status_code == 409
        assert await station.call("StopTransaction", STOP, id="a") == [3, "a", allowed(1)]
    assert len(received(node, "StopTransaction")) == 1


@pytest.mark.parametrize(
    ("reply", "given"),
    [
        ({"payload": allowed(1)}, [3, "a", allowed(1)]),
        ({"error": {"code": "GenericError", "details": {"n": 1}}}, [4, "a", "GenericError", "", {"n": 1}]),
    ],
    ids=["payload", "error"],
)
async def test_an_answer_for_a_disconnected_station_is_stored(gateway, reply, given):
    node = gateway(by_backend("StopTransaction", deadline="20s"))
    async with await connected(node) as station:
        await station.send('[2,"a","StopTransaction",' + STOP + "]")
        await delegated(node, action="StopTransaction")
        station.abort()
    await asyncio.to_thread(wait_for, lambda: awaited(node) == 0, "the session's end")
    assert node.metric("ocpp_gateway_backend_answers_total", action="StopTransaction", outcome="abandoned") == 1
    assert answer(node, messageId="a", **reply).json() == {"status": "kept"}
    assert answer(node, messageId="a", **reply).status_code == 409
    async with await Station.connect(node, "CP-1") as station:
        assert await station.call("StopTransaction", STOP, id="a") == given
    assert len(received(node, "StopTransaction")) == 1
    [published] = published_answers(node, 1)
    assert published.data["answeredBy"] == "backend"
    assert violations(published.json) == []


async def passed(event):
    """Waits until the deadline of the event's CALL has passed."""
    until = datetime.fromisoformat(event.data["answerUntil"]).timestamp()
    await asyncio.to_thread(wait_for, lambda: time.time() > until, "the deadline to pass")


async def test_a_station_that_leaves_leaves_nothing_behind(gateway):
    node = gateway(by_backend("StopTransaction", deadline="3s"))
    stations = [await connected(node, f"CP-{number}") for number in range(20)]
    for station in stations:
        await station.send('[2,"a","StopTransaction",' + STOP + "]")
    wait_for(lambda: awaited(node) == 20, "the waits")
    for station in stations:
        station.abort()
    await asyncio.to_thread(wait_for, lambda: awaited(node) == 0, "nothing to be awaited", 2)
    [event] = await delegated(node, "CP-0", "StopTransaction")
    await passed(event)
    assert answer(node, "CP-0", messageId="a", payload=allowed()).status_code == 409
    async with await Station.connect(node, "CP-0") as station:
        await station.send('[2,"a","StopTransaction",' + STOP + "]")
        await delegated(node, "CP-0", "StopTransaction", 2)
        assert answer(node, "CP-0", messageId="a", payload=allowed()).status_code == 200, "delegated anew"
        assert await station.receive() == [3, "a", allowed()]


async def test_nobody_waits_for_an_answer_that_a_station_cannot_ask_for_again(gateway):
    """On its next connection an Authorize is a new CALL, even with the same message id."""
    node = gateway(by_backend("Authorize", deadline="20s"))
    async with await connected(node) as station:
        await station.send('[2,"1","Authorize",{"idTag":"T"}]')
        [first] = await delegated(node)
        station.abort()
    await asyncio.to_thread(wait_for, lambda: awaited(node) == 0, "the session's end")
    late = {"messageId": "1", "sessionId": first.data["sessionId"], "payload": allowed(1)}
    assert answer(node, **late).status_code == 404, "nobody could be given it"
    async with await Station.connect(node, "CP-1") as station:
        await station.send('[2,"1","Authorize",{"idTag":"T"}]')
        _, second = await delegated(node, count=2)
        assert answer(node, **late).status_code == 404, "it answers another CALL"
        timely = late | {"sessionId": second.data["sessionId"], "payload": allowed(2)}
        assert answer(node, **timely).status_code == 200
        assert await station.receive() == [3, "1", allowed(2)]
    assert node.metric("ocpp_gateway_repeated_calls_total", kind="joined") == 0


async def test_delegated_calls_are_still_answered_while_the_gateway_drains(gateway):
    node = gateway(by_backend("Authorize", deadline="20s"))
    async with await connected(node) as station:
        await station.send('[2,"a","Authorize",{"idTag":"T"}]')
        await delegated(node)
        node.process.terminate()
        wait_for(lambda: node.get("/readyz").status_code == 503, "the drain")
        await station.silence(0.3)
        assert answer(node, messageId="a", payload=allowed()).json() == {"status": "accepted"}
        assert await station.receive() == [3, "a", allowed()]
        assert (await station.closed())[0] == 1001
    assert await asyncio.to_thread(node.process.wait, 20) == 0


# -- races ----------------------------------------------------------------------------------------------------------


async def test_every_call_has_one_answer_however_answers_and_connections_race(gateway):
    """Stations lose their connections while two backends answer each CALL: exactly one of them is accepted, and the station
    receives that one, on whichever connection."""
    node = gateway(by_backend("StopTransaction", deadline="30s"))
    chance = random.Random(5)
    stations, rounds = 16, 8
    won: dict[str, list[int]] = {}
    heard: dict[str, int] = {}

    def race(station, message_id, session):
        def one(number):
            # So that the races end differently; so do the two below.
            time.sleep(chance.uniform(0, 0.03))
            body = {"messageId": message_id, "payload": allowed(number)} | ({"sessionId": session} if number else {})
            return answer(node, station, **body).status_code

        with ThreadPoolExecutor(2) as pool:
            return [number for number, status in enumerate(pool.map(one, range(2))) if status == 200]

    async def talk(identity):
        connection = await connected(node, identity)
        for number in range(rounds):
            message_id = f"{identity}-{number}"
            call = f'[2,"{message_id}","StopTransaction",{STOP}]'
            await connection.send(call)
            event = (await delegated(node, identity, "StopTransaction", number + 1))[-1]
            backends = asyncio.create_task(asyncio.to_thread(race, identity, message_id, event.data["sessionId"]))
            await asyncio.sleep(chance.uniform(0, 0.03))
            for _ in range(chance.randrange(3)):
                connection.abort()
                connection = await Station.connect(node, identity)
                await connection.send(call)
                await asyncio.sleep(chance.uniform(0, 0.01))
            frame = await connection.receive()
            assert frame[:2] == [3, message_id]
            heard[message_id] = int(frame[2]["idTagInfo"]["parentIdTag"])
            won[message_id] = await backends
        await connection.close()

    await asyncio.gather(*(talk(f"CP-{number}") for number in range(stations)))
    assert {message_id: [number] for message_id, number in heard.items()} == won
    assert len(won) == stations * rounds == len(received(node, "StopTransaction"))
    assert awaited(node) == 0
    kept = node.metric("ocpp_gateway_backend_deliveries_total", outcome="kept")
    joined = node.metric("ocpp_gateway_repeated_calls_total", kind="joined")
    print(f"\n{len(won)} CALLs, {joined:.0f} waits joined, {kept:.0f} answers kept")
    assert joined > 0
