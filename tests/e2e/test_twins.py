"""Two devices under one identity, and stations that no longer listen.

Proves that twins are noticed, told of once, shown and damped, that the newest connection wins all the same when its time has come,
and that a station which answers no command is given up where the operator wants that.
"""

import asyncio

from harness.contract import violations
from harness.gateway import Gateway
from harness.station import Station
from websockets import InvalidStatus


async def enter(node: Gateway, address: str) -> Station | None:
    """Connects as CP-1 from this address. None when it is told to come later."""
    try:
        return await Station.connect(node, "CP-1", local_addr=(address, 0))
    except InvalidStatus as error:
        response = error.response
    assert (response.status_code, response.headers["Retry-After"]) == (503, "10")
    assert b"two devices use this identity" in response.body
    return None


async def test_twins_are_noticed_told_and_damped(gateway):
    node = gateway({"twins": {"replacements": 3, "pause": "2s"}})
    sessions = [await enter(node, f"127.0.0.{1 + turn % 2}") for turn in range(12)]
    assert [session is not None for session in sessions] == [True] * 4 + [False] * 8
    twins = node.get("/api/v1/stations/CP-1").json()["twins"]
    assert (sorted(twins["addresses"]), twins["damped"]) == (["127.0.0.1", "127.0.0.2"], True)
    assert node.metric("ocpp_gateway_twins") == 1
    assert node.metric("ocpp_gateway_handshakes_total", outcome="twins") == 8
    (told,) = node.await_events(lambda events: events, "the event", type="ocpp.station.twins")
    assert violations(told.json) == []
    async with asyncio.timeout(10):
        while not await enter(node, "127.0.0.1"):
            await asyncio.sleep(0.1)
    assert await sessions[3].closed() == (1008, "replaced by a newer connection")


async def test_one_address_is_noticed_and_not_damped(gateway):
    node = gateway({"twins": {"replacements": 3}})
    for _ in range(8):
        await Station.connect(node, "CP-1")
    assert node.get("/api/v1/stations/CP-1").json()["twins"]["damped"] is False


async def test_a_station_that_answers_no_command_is_given_up(gateway):
    node = gateway({"commands": {"close_after_timeouts": 2, "grace": "10ms"}})
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        for _ in range(2):
            answer = node.post("/api/v1/stations/CP-1/commands", {"action": "ClearCache", "timeoutMs": 200})
            assert answer.json()["status"] == "timeout", answer.text
        assert await station.closed() == (1008, "commands are not answered")
    (ended,) = node.await_events(lambda events: events, "the end", type="ocpp.station.disconnected")
    assert ended.data["reason"] == "unresponsive"
    assert violations(ended.json) == []


async def test_it_is_kept_by_default(gateway):
    node = gateway({"commands": {"grace": "10ms"}})
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        for _ in range(4):
            node.post("/api/v1/stations/CP-1/commands", {"action": "ClearCache", "timeoutMs": 50})
        assert (await station.call("Heartbeat", {}))[0] == 3
