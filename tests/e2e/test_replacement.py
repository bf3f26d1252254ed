"""The newest connection of a station serves it (promise P5; OCPP says nothing about two at once).

Proves: a second connection takes over at once, for events and for commands; whatever the old one does afterwards changes nothing;
the old one's outstanding command ends as `replaced`; however fast a station reconnects, its last connection stays, and each session
has one `connected` and one `disconnected` event.
"""

import asyncio

import pytest
from harness.contract import violations
from harness.events import Event
from harness.gateway import Gateway
from harness.raw import CLOSE, RawStation
from harness.station import Station
from harness.waiting import wait_for
from websockets import ConnectionClosed

BOOT = '[2,"boot","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]'


def station_of(node: Gateway, identity: str = "CP-1") -> dict[str, object]:
    return node.get(f"/api/v1/stations/{identity}").json()


def sessions(events: list[Event]) -> list[tuple[str, str | None, str | None]]:
    """(session, the session it replaced, reason of its end) in order; fails unless the events pair up."""
    ends = {}
    begun = []
    for event in events:
        assert violations(event.json) == [], str(event)
        session = event.data["sessionId"]
        if event.type == "ocpp.station.connected":
            begun.append((session, event.data.get("replaced")))
        elif event.type == "ocpp.station.disconnected":
            assert session not in ends, f"{session} ended twice"
            assert session in [session for session, _ in begun], f"{session} ended before it began"
            ends[session] = event.data["reason"]
    assert len({session for session, _ in begun}) == len(begun), "a session began twice"
    return [(session, replaced, ends.get(session)) for session, replaced in begun]


async def polite(old: Station) -> None:
    assert await old.closed() == (1008, "replaced by a newer connection")


async def aborts(old: Station) -> None:
    old.abort()


async def keeps_sending(old: Station) -> None:
    with pytest.raises(ConnectionClosed):
        while True:
            await old.call("Heartbeat", {})


async def does_not_read(old: Station) -> None:
    """It never reads, not even the close frame, like a half-open connection."""
    old.connection.transport.pause_reading()


@pytest.mark.parametrize("behaviour", [polite, aborts, keeps_sending, does_not_read])
async def test_the_new_connection_serves_whatever_the_old_one_does(gateway, behaviour):
    node = gateway({"session": {"close_timeout": "1s"}})
    old = await Station.connect(node, "CP-1")
    await old.boot()
    first = station_of(node)["sessionId"]
    # Another spelling of the same station.
    new = await Station.connect(node, "cp%2D1")
    second = await asyncio.to_thread(
        wait_for, lambda: (s := station_of(node)["sessionId"]) != first and s, "it took over"
    )
    assert second > first, "session numbers only grow"

    ending = asyncio.create_task(behaviour(old))
    assert (await new.call("Heartbeat", {}))[0] == 3
    await ending
    await asyncio.to_thread(
        node.await_events,
        lambda events: any(event.data.get("reason") == "replaced" for event in events),
        "the old session's end",
        station="CP-1",
    )
    # The old socket is closed by now, or will be within `close_timeout`: neither affects the new one.
    for _ in range(3):
        answer = asyncio.create_task(
            asyncio.to_thread(
                node.post, "/api/v1/stations/CP-1/commands", {"action": "GetConfiguration", "payload": {}}
            )
        )
        call = await new.next_call()
        await new.answer(call, {})
        assert (await answer).json()["status"] == "answered"
        assert (await new.call("Heartbeat", {}))[0] == 3
    if behaviour is does_not_read:
        old.abort()
    await old.connection.wait_closed()
    assert station_of(node)["sessionId"] == second
    await new.close()

    events = await asyncio.to_thread(
        node.await_events,
        lambda events: events[-1].type == "ocpp.station.disconnected" and events[-1].data["sessionId"] == second,
        "the new session's end",
        station="CP-1",
    )
    assert sessions(events) == [(first, None, "replaced"), (second, first, "stationClosed")]
    order = [event.data["sessionId"] for event in events if "sessionId" in event.data]
    assert order == sorted(order), "everything about the old session comes before everything about the new one"
    assert node.metric("ocpp_gateway_replacements_total") == 1
    assert node.metric("ocpp_gateway_sessions") == 0


async def test_the_outstanding_command_ends_as_replaced_and_the_waiting_ones_go_to_the_new_connection(gateway):
    """What was sent on the old connection is not sent again; what was not is sent once, on the new connection."""
    node = gateway()
    old = await Station.connect(node, "CP-1")
    await old.boot()
    outcomes = [
        asyncio.create_task(
            asyncio.to_thread(
                node.post, "/api/v1/stations/CP-1/commands", {"commandId": f"c-{n}", "action": "ClearCache"}
            )
        )
        for n in range(3)
    ]
    sent = await old.next_call()
    await asyncio.to_thread(wait_for, lambda: station_of(node)["commandsWaiting"] == 2, "two commands wait")
    async with await Station.connect(node, "CP-1") as new:
        for _ in range(2):
            await new.answer(await new.next_call(), {"status": "Accepted"})
        bodies = [(await outcome).json() for outcome in outcomes]
        assert sorted((body["status"], body["sent"]) for body in bodies) == [
            ("answered", "yes"),
            ("answered", "yes"),
            ("replaced", "yes"),
        ]
        # The answer to the old connection's CALL means nothing on the new one.
        await new.answer(sent, {"status": "Accepted"})
        assert (await new.call("Heartbeat", {}))[0] == 3
        await new.silence(0.3)
    results = node.events(type="ocpp.command.result", station="CP-1")
    assert sorted(event.data["commandId"] for event in results) == ["c-0", "c-1", "c-2"]
    assert sorted(event.data["status"] for event in results) == ["answered", "answered", "replaced"]
    assert [violations(event.json) for event in results] == [[], [], []]
    assert node.metric("ocpp_gateway_unmatched_answers_total", kind="unknown") == 1


def test_a_station_that_reconnects_at_once_keeps_its_last_connection(gateway):
    """The station has the 101 of the old connection before it opens the new one: there is no doubt which is newer."""
    node = gateway()
    rounds, lost = 300, []
    for number in range(rounds):
        with RawStation(node.port) as old, RawStation(node.port) as new:
            for connection in (old, new):
                assert connection.upgrade(f"/ocpp/CP-{number}").status == 101
            new.text(BOOT)
            if (received := new.frame()) is None or received[0] == CLOSE:
                lost.append(number)
            else:
                assert received[1].startswith(b'[3,"boot"')
                assert old.close_code() == 1008
    assert lost == [], f"in {len(lost)} of {rounds} rounds the old connection replaced the new one"
