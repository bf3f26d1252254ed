"""An operator ends a station's session.

Proves: the station gets a close frame and may reconnect at once; the event names the operator's reason; commands in flight end as
`offline`; only the named session is closed; invalid requests are refused.
"""

import asyncio

import pytest
from harness.contract import violations
from harness.station import Station
from harness.waiting import wait_for

PATH = "/api/v1/stations/CP-1/disconnect"


def assert_problem(response, status, *parts):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    for part in parts:
        assert part in response.json()["detail"]


async def test_a_station_is_closed_and_may_reconnect(gateway):
    node = gateway()
    station = await Station.connect(node, "CP-1")
    await station.boot()
    session = node.get("/api/v1/stations/CP-1").json()["sessionId"]
    response = node.post("/api/v1/stations/cp-1/disconnect", {"reason": "a new key"})
    assert response.status_code == 202
    assert response.json() == {"stationId": "CP-1", "sessionId": session}
    assert await station.closed() == (1000, "closed by an operator")

    async with await Station.connect(node, "CP-1") as again:
        assert (await again.call("Heartbeat", {}))[0] == 3, "it is still registered"
        (ended,) = node.await_events(lambda events: events, "the end", type="ocpp.station.disconnected")
        assert violations(ended.json) == []
        assert ended.data["sessionId"] == session
        assert (ended.data["reason"], ended.data["closeCode"], ended.data["note"]) == ("operator", 1000, "a new key")
        assert node.metric("ocpp_gateway_sessions_closed_total", reason="operator") == 1


async def test_without_a_body_there_is_no_note(gateway):
    node = gateway()
    station = await Station.connect(node, "CP-1")
    assert node.post(PATH, None, data=b"").status_code == 202
    assert (await station.closed())[0] == 1000
    (ended,) = node.await_events(lambda events: events, "the end", type="ocpp.station.disconnected")
    assert violations(ended.json) == []
    assert "note" not in ended.data


async def test_commands_in_flight_end(gateway):
    node = gateway()
    station = await Station.connect(node, "CP-1")
    await station.boot()
    command = asyncio.create_task(
        asyncio.to_thread(node.post, "/api/v1/stations/CP-1/commands", {"action": "Reset", "payload": {"type": "Soft"}})
    )
    await station.next_call()
    assert node.post(PATH, {}).status_code == 202
    outcome = (await command).json()
    assert outcome["status"] == "offline"
    assert (await station.closed())[0] == 1000


async def test_only_the_named_session_ends(gateway):
    node = gateway()
    first = await Station.connect(node, "CP-1")
    await first.boot()
    old = node.get("/api/v1/stations/CP-1").json()["sessionId"]
    async with await Station.connect(node, "CP-1") as second:
        new = await asyncio.to_thread(
            wait_for, lambda: (s := node.get("/api/v1/stations/CP-1").json()["sessionId"]) != old and s, "it took over"
        )
        assert_problem(node.post(PATH, {"sessionId": old}), 409, new)
        assert (await second.call("Heartbeat", {}))[0] == 3
        assert node.post(PATH, {"sessionId": new}).status_code == 202
        assert (await second.closed())[0] == 1000


def test_a_disconnected_station_is_not_found(gateway):
    assert_problem(gateway().post(PATH, {}), 404, "CP-1")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"why":"?"}', b'{"reason":1}', b'{"reason":"' + b"x" * 257 + b'"}'])
async def test_an_invalid_request_closes_nothing(gateway, body):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        assert_problem(node.post(PATH, None, data=body), 400)
        assert (await station.call("Heartbeat", {}))[0] == 3
