"""Stations deliver at least once: a repeated CALL gets the same answer and no second event (P1, P2).

Actions that are configured as sheddable, and no others, may be dropped when the bus is too full.
"""

from harness.gateway import Gateway
from harness.hook import Hook, payload
from harness.station import Station

START = '{"connectorId": 1, "idTag": "T", "meterStart": 0, "timestamp": "2026-01-01T00:00:00Z"}'


def received(node: Gateway, action: str) -> list:
    return [
        event for event in node.events() if event.type == "ocpp.message.received" and event.data.get("action") == action
    ]


async def test_a_repeated_call_is_answered_again_without_a_second_event(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        first = await station.call("StartTransaction", START, id="a")
        again = await station.call("StartTransaction", START, id="a")
        assert again == first
        other = await station.call("StartTransaction", START.replace('"T"', '"U"'), id="a")
        assert other[2]["transactionId"] != first[2]["transactionId"], "the same id with other content is a new CALL"
        station.abort()
    async with await Station.connect(node, "CP-1") as station:
        other_again = await station.call("StartTransaction", START.replace('"T"', '"U"'), id="a")
        assert other_again == other, "on a new connection as well"
    assert len(received(node, "StartTransaction")) == 2
    assert 'ocpp_gateway_repeated_calls_total{kind="answered"} 2' in node.get("/metrics").text


async def test_a_station_that_counts_from_1_on_each_connection_is_heard(gateway):
    """Message ids are unique within one connection only (OCPP-J 1.6, 4.1.4)."""
    node = gateway()

    def status(status: str) -> str:
        return f'{{"connectorId": 1, "errorCode": "NoError", "status": "{status}"}}'

    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        assert await station.call("StatusNotification", status("Available"), id="1") == [3, "1", {}]
        assert await station.call("StatusNotification", status("Charging"), id="2") == [3, "2", {}]
        station.abort()
    async with await Station.connect(node, "CP-1") as station:
        assert await station.call("StatusNotification", status("Available"), id="1") == [3, "1", {}]
        assert await station.call("StatusNotification", status("Available"), id="1") == [3, "1", {}]
    found = [
        (event.data["messageId"], event.data["payload"]["status"]) for event in received(node, "StatusNotification")
    ]
    assert found == [("1", "Available"), ("2", "Charging"), ("1", "Available")], (
        "the last was sent again on one connection"
    )
    assert node.metric("ocpp_gateway_repeated_calls_total", kind="answered") == 1


async def test_an_authorize_on_each_connection_asks_the_hook_each_time(gateway):
    verdicts = iter(["Accepted", "Accepted", "Blocked", "Accepted"])
    with Hook(lambda _: payload(f'{{"idTagInfo":{{"status":"{next(verdicts)}"}}}}')) as hook:
        node = gateway({"answers": {"Authorize": {"url": hook.url}}})
        given = []
        for number in range(4):
            async with await Station.connect(node, "CP-1") as station:
                if number == 0:
                    await station.boot()
                given.append((await station.call("Authorize", '{"idTag": "T"}', id="1"))[2]["idTagInfo"]["status"])
                station.abort()
    assert given == ["Accepted", "Accepted", "Blocked", "Accepted"], "no verdict outlives its connection"
    assert len(hook.asked) == 4 == len(received(node, "Authorize"))


async def test_only_sheddable_actions_are_dropped_and_only_when_the_bus_is_full(gateway):
    config = {
        "registration": {"before_boot": "accept"},
        "bus": {
            "kind": "kafka",
            "queue_events": 16,
            "kafka": {"brokers": "127.0.0.1:9"},
            "expendable": {"actions": ["Heartbeat"], "above": 0.25},
        },
    }
    node = gateway(config, until="/livez")
    waiting = [await Station.connect(node, f"CP-{number}") for number in range(5)]
    async with await Station.connect(node, "CP-X") as station:
        assert (await station.call("Heartbeat", {}))[0] == 3, "answered at once: there is no event to wait for"
        await station.send('[2, "m", "MeterValues", {"connectorId": 1, "meterValue": []}]')
        await station.silence(1.0)
    metrics = node.get("/metrics").text
    assert 'ocpp_gateway_dropped_messages_total{action="Heartbeat",reason="busFull"} 1' in metrics
    assert 'action="MeterValues",reason' not in metrics
    for one in waiting:
        one.abort()
    node.kill9()
