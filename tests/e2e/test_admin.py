"""The admin listener: health, statistics, metrics, the connected stations, and the event stream.

Proves: every resource tells the truth; no metric has a label taken from a station, whatever it calls itself or sends; paging and
filters neither lose nor repeat a station; a subscriber to events can disconnect and resume; invalid requests are refused as
`application/problem+json`; and none of this is reachable on the stations' port.
"""

import asyncio
import json
import time

import pytest
import requests
from harness.events import parse_stream
from harness.station import BOOT, Station
from harness.waiting import free_port, wait_for
from harness.wire import Wire
from prometheus_client.parser import text_string_to_metric_families

PREFIX = "ocpp_gateway_"

# Metrics of the contract, with the type and labels that they must have.
METRICS = {
    "queue depth": ("bus_queue_records", "gauge", {"bus"}),
    "queue depth in bytes": ("bus_queue_bytes", "gauge", {"bus"}),
    "queue capacity": ("bus_queue_capacity_records", "gauge", {"bus"}),
    "queue capacity in bytes": ("bus_queue_capacity_bytes", "gauge", {"bus"}),
    "waits": ("bus_wait_seconds", "histogram", {"bus"}),
    "sessions by version": ("sessions", "gauge", {"version"}),
    "messages by action": ("messages", "counter", {"direction", "type", "action"}),
    "messages by outcome": ("calls", "counter", {"action", "outcome"}),
    "answer latency": ("answer_latency_seconds", "histogram", set()),
    "bus latency": ("bus_latency_seconds", "histogram", {"bus"}),
    "close reasons": ("sessions_closed", "counter", {"reason"}),
    "replacements": ("replacements", "counter", set()),
    "ping round trip": ("ping_round_trip_seconds", "histogram", set()),
}


def families(node):
    """The metrics page as a Prometheus server reads it: name -> family."""
    response = node.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


async def booted(node, identity, version="1.6"):
    wire = await Wire.connect(node, identity, version)
    assert (await wire.call("boot", "BootNotification", BOOT[version]))[0] == 3
    return wire


async def a_pong(node):
    """Waits until some station has answered a ping."""
    pongs = lambda: node.metric("ocpp_gateway_ping_round_trip_seconds_count")  # noqa: E731
    await asyncio.to_thread(wait_for, pongs, "a pong")


def get(node, path, **query):
    return node.get(path, params=query)


def page(node, **query):
    response = get(node, "/api/v1/stations", **query)
    assert response.status_code == 200, response.text
    return response.json()


def names(node, **query):
    return [station["id"] for station in page(node, **query)["stations"]]


# -- health ---------------------------------------------------------------------------------------------------------


async def test_health_and_statistics(gateway):
    node = gateway({"node": {"id": "gw-7"}})
    assert (node.get("/livez").status_code, node.get("/readyz").status_code) == (200, 200)
    health = node.get("/health").json()
    assert health["status"] == "ok"
    assert health["reason"] is None
    assert health["bus"]["state"] == "direct"

    wires = [await booted(node, f"CP-{n}", version) for n, version in enumerate(("1.6", "1.6", "2.0.1", "2.1"))]
    # The event of an answer may not be durable yet when the answer arrives.
    wait_for(lambda: node.get("/stats").json()["bus"]["inFlightRecords"] == 0, "everything to be durable")
    stats = node.get("/stats").json()
    assert stats["sessions"] == 4
    assert stats["sessionsByVersion"] == {"1.6": 2, "2.0.1": 1, "2.1": 1}
    assert stats["stationsKnown"] == 4
    for wire in wires:
        await wire.leave()
    wait_for(lambda: node.get("/stats").json()["sessions"] == 0, "every session to end")
    assert node.get("/stats").json()["stationsKnown"] == 4


def test_without_kafka_it_is_live_but_not_ready(gateway):
    nobody = f"127.0.0.1:{free_port()}"
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": nobody}}}, until="/livez")
    wait_for(lambda: nobody in node.get("/readyz").text, "the reason to name the broker")
    assert node.get("/readyz").status_code == 503
    health = node.get("/health")
    assert health.status_code == 503
    assert health.json()["status"] != "ok"
    assert nobody in health.json()["reason"]
    assert node.metric("ocpp_gateway_ready") == 0


# -- metrics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", METRICS)
def test_the_metrics_of_the_contract_exist(shared_node, what):
    name, kind, labels = METRICS[what]
    family = families(shared_node).get(PREFIX + name)
    assert family is not None, f"there is no {PREFIX}{name}"
    assert family.type == kind
    assert family.documentation
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == labels


@pytest.fixture(scope="module")
def shared_node(shared_gateway):
    """A node that has done a bit of everything, so that no metric is without a sample."""
    node = shared_gateway({"session": {"ping_interval": "200ms"}})

    async def a_bit_of_everything():
        first = await booted(node, "CP-1")
        second = await booted(node, "cp-1")
        wait_for(lambda: node.metric("ocpp_gateway_replacements_total") == 1, "one to replace the other")
        await a_pong(node)
        await first.end()
        await second.leave()

    asyncio.run(a_bit_of_everything())
    return node


async def test_metrics_count_what_happened(gateway):
    node = gateway({"session": {"ping_interval": "200ms"}})
    first = await booted(node, "CP-1")
    for number in range(3):
        await first.call(f"{number}", "Heartbeat", {})
    assert (await first.call("x", "NoSuchAction", {}))[0] == 4
    second = await booted(node, "CP-1")
    await a_pong(node)
    await first.end()
    assert node.metric("ocpp_gateway_sessions", version="1.6") == 1
    assert node.metric("ocpp_gateway_messages_total", direction="in", type="CALL", action="Heartbeat") == 3
    assert node.metric("ocpp_gateway_messages_total", direction="out", type="CALLRESULT", action="Heartbeat") == 3
    assert node.metric("ocpp_gateway_calls_total", action="Heartbeat", outcome="answered") == 3
    assert node.metric("ocpp_gateway_calls_total", action="unknown", outcome="NotImplemented") == 1
    assert node.metric("ocpp_gateway_answer_latency_seconds_count") == 6
    assert node.metric("ocpp_gateway_replacements_total") == 1
    assert node.metric("ocpp_gateway_sessions_closed_total", reason="replaced") == 1
    await second.leave()
    wait_for(lambda: node.metric("ocpp_gateway_sessions_closed_total", reason="stationClosed") == 1, "its end")
    stored = len(node.events())
    assert node.metric("ocpp_gateway_bus_durable_total", bus="events") == stored
    assert node.metric("ocpp_gateway_bus_latency_seconds_count", bus="events") == stored
    assert node.metric("ocpp_gateway_bus_queue_records", bus="events") == 0


async def test_stations_cannot_create_labels(gateway):
    """Neither identities nor actions nor error codes of stations become labels: each would be a new series."""
    node = gateway({"session": {"ping_interval": "100ms"}, "validation": {"mode": "enforce"}})
    before = sum(len(family.samples) for family in families(node).values())
    marked = []
    for number in range(40):
        mark = f"MARK{number:03}"
        wire = await booted(node, f"CP-{mark}", ("1.6", "2.0.1", "2.1")[number % 3])
        wire.send(f'[2,"{mark}-1","{mark}",{{}}]')
        wire.send(f'[2,"{mark}-2","Heartbeat",{{"{mark}":1}}]')
        wire.send(f'[3,"{mark}-3",{{}}]')
        wire.send(f'[4,"{mark}-4","{mark}","{mark}",{{}}]')
        wire.send(f'[5,"{mark}-5","{mark}","{mark}",{{}}]')
        wire.send(f'[6,"{mark}-6","{mark}",{{}}]')
        wire.send(f'[7,"{mark}"]')
        wire.send(mark)
        marked.append(wire)
    wait_for(lambda: node.metric("ocpp_gateway_messages_total", direction="in") >= 40 * 9, "everything to be read")
    for wire in marked:
        await wire.leave()
    # Refused handshakes as well.
    for path in ("CP-MARK/", "%00MARK", "../MARK"):
        requests.get(f"http://127.0.0.1:{node.port}/ocpp/{path}", timeout=5)
    found = families(node)
    for family in found.values():
        for sample in family.samples:
            assert not any("MARK" in value.upper() for value in sample.labels.values()), sample
    after = sum(len(family.samples) for family in found.values())
    assert after - before < 150, "the number of series does not follow the number of stations"


# -- stations -------------------------------------------------------------------------------------------------------


async def test_pages_lose_and_repeat_no_station(gateway):
    node = gateway({"log": {"level": "info"}})
    versions = ("1.6", "2.0.1", "2.1")
    everybody = [f"CP-{number:03}" for number in range(50)] + ["ab c", "Z*9", "cp-b", "é"]
    wires = {}
    for number, identity in enumerate(everybody):
        wires[identity] = await booted(node, requests.utils.quote(identity), versions[number % 3])

    for limit in (1, 7, 54, 1000):
        seen, after = [], None
        while True:
            query = {"limit": limit} | ({"after": after} if after is not None else {})
            part = page(node, **query)
            assert len(part["stations"]) <= limit
            seen += [station["id"] for station in part["stations"]]
            after = part["next"]
            if after is None:
                break
            assert len(part["stations"]) == limit, "only the last page may be short"
        assert sorted(seen) == sorted(everybody), f"pages of {limit}"
        assert seen == sorted(seen, key=str.lower), "in the order of identities, case aside"

    assert sorted(names(node, prefix="cp-0", limit=100)) == [f"CP-{number:03}" for number in range(50)]
    assert names(node, prefix="CP-04", limit=3, after="CP-045") == ["CP-046", "CP-047", "CP-048"]
    assert len(names(node, version="2.1", limit=1000)) == 18
    for gone in everybody[::2]:
        await wires[gone].leave()
    wait_for(lambda: len(names(node, connected="true", limit=100)) == 27, "half of them to disconnect")
    assert sorted(names(node, connected="true", limit=100)) == sorted(everybody[1::2])
    assert sorted(names(node, connected="false", limit=100)) == sorted(everybody[::2])
    assert {s["ocppVersion"] for s in page(node, connected="true", version="1.6")["stations"]} == {"1.6"}


async def test_one_station_in_full(gateway):
    node = gateway()
    assert node.get("/api/v1/stations/CP-1").status_code == 404
    wire = await booted(node, "CP-1", "2.0.1")
    shown = node.get("/api/v1/stations/cp-1").json()
    assert shown["id"] == "CP-1"
    assert shown["connected"] is True
    assert shown["ocppVersion"] == "2.0.1"
    assert shown["remoteAddress"] == wire.address
    assert shown["registration"] == "Accepted"
    assert (shown["messagesIn"], shown["messagesOut"]) == (1, 1)
    connected = node.events(type="ocpp.station.connected")[0]
    assert shown["sessionId"] == connected.data["sessionId"]
    await wire.leave()
    wait_for(lambda: not node.get("/api/v1/stations/CP-1").json()["connected"], "it to disconnect")
    left = node.get("/api/v1/stations/CP-1").json()
    assert left["registration"] == "Accepted"
    assert "sessionId" not in left


# -- events ---------------------------------------------------------------------------------------------------------


async def test_a_forgotten_station_stays_forgotten_and_may_come_again(gateway):
    node = gateway({"registration": {"max_stations": 1}})
    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        assert requests.delete(node.admin_url + "/api/v1/stations/CP-1", timeout=5).status_code == 409
    path = node.admin_url + "/api/v1/stations/cp-1"
    wait_for(lambda: requests.delete(path, timeout=5).status_code == 204, "the end of the session")
    node.kill9()
    node.start()
    assert names(node) == []
    async with await Station.connect(node, "CP-2") as other:
        await other.boot()
        assert names(node) == ["CP-2"], "there is room for another"
    node.restart()
    assert names(node) == ["CP-2"]


async def test_events_are_filtered_and_positions_are_consecutive(gateway):
    node = gateway()
    for identity in ("CP-1", "CP-2", "CP-3"):
        wire = await booted(node, identity)
        await wire.call("1", "Heartbeat", {})
        await wire.leave()
    wait_for(lambda: len(node.events(type="ocpp.station.disconnected")) == 3, "all of it to be stored")
    everything = node.events()
    positions = [int(event.position) for event in everything]
    assert positions == list(range(positions[0], positions[0] + 18))
    assert [event.station for event in node.events(station="cp-2")] == ["CP-2"] * 6
    assert {event.type for event in node.events(type="ocpp.message.sent")} == {"ocpp.message.sent"}
    both = node.events(station="CP-3", type="ocpp.message.received")
    assert [event.data["action"] for event in both] == ["BootNotification", "Heartbeat"]
    for index in (0, 5, 17):
        rest = node.events(start=everything[index].position)
        assert [event.text for event in rest] == [event.text for event in everything[index:]]
    assert node.events(start=str(positions[-1] + 1)) == []


async def test_a_subscriber_resumes_after_the_last_event_it_received(gateway):
    node = gateway()
    wire = await booted(node, "CP-1")
    for number in range(20):
        await wire.call(f"{number}", "Heartbeat", {})
    everything = node.events()
    for index in (0, 10, len(everything) - 1):
        response = node.get(
            "/api/v1/events", params={"follow": "false"}, headers={"Last-Event-ID": everything[index].position}
        )
        rest = list(parse_stream([response.content]))
        expected = [event.text for event in everything[index + 1 :]]
        assert [event.text for event in rest][: len(expected)] == expected
    # A reconnecting browser sends both; `Last-Event-ID` wins.
    response = node.get(
        "/api/v1/events",
        params={"from": "earliest", "follow": "false"},
        headers={"Last-Event-ID": everything[-2].position},
    )
    assert next(parse_stream([response.content])).text == everything[-1].text
    await wire.leave()


async def test_a_subscriber_receives_what_happens_next_and_nothing_before(gateway):
    node = gateway()
    wire = await booted(node, "CP-1")
    other = await booted(node, "CP-2")
    wait_for(lambda: len(node.events()) == 6, "both boots to be stored")
    live = node.follow_events()
    filtered = node.follow_events(station="CP-1", type="ocpp.message.received")
    whole = node.follow_events(**{"from": "earliest"})
    for number in range(5):
        await other.call(f"{number}", "Heartbeat", {})
        await wire.call(f"{number}", "Heartbeat", {})
    events = [next(live) for _ in range(20)]
    assert {event.data["action"] for event in events} == {"Heartbeat"}
    assert [next(filtered).data["messageId"] for _ in range(5)] == ["0", "1", "2", "3", "4"]
    assert [next(whole).text for _ in range(26)] == [event.text for event in node.events()]
    await wire.leave()
    await other.leave()


async def test_a_subscriber_that_does_not_read_slows_no_station(gateway):
    node = gateway({"log": {"level": "info"}})
    wire = await booted(node, "CP-1")
    subscribers = [
        requests.get(f"{node.admin_url}/api/v1/events", params={"from": "earliest"}, stream=True, timeout=10)
        for _ in range(20)
    ]
    filler = "x" * 20_000
    slowest = 0.0
    for number in range(300):
        began = time.monotonic()
        await wire.call(f"{number}", "DataTransfer", {"vendorId": "V", "data": filler})
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 2, f"an answer took {slowest:.1f} s"
    for subscriber in subscribers:
        subscriber.close()
    await wire.leave()


async def test_with_kafka_the_stream_is_live_only(gateway, kafka, topics):
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    live = node.follow_events(station="CP-1")
    wire = await booted(node, "CP-1")
    assert [next(live).type for _ in range(3)] == [
        "ocpp.station.connected",
        "ocpp.message.received",
        "ocpp.message.sent",
    ]
    for query in ({"from": "earliest"}, {"follow": "false"}, {"from": "3"}):
        response = get(node, "/api/v1/events", **query)
        assert_problem(response, 409)
    await wire.leave()


# -- invalid requests -----------------------------------------------------------------------------------------------


async def test_waiting_commands_keep_nobody_from_asking_how_the_gateway_is(gateway):
    node = gateway({"admin": {"max_connections": 2}, "commands": {"grace": "10ms"}})

    def send(number: int) -> str:
        body = {"action": "ClearCache", "commandId": f"c{number}", "timeoutMs": 3000}
        return node.post("/api/v1/stations/CP-1/commands", body).json()["status"]

    async with await Station.connect(node, "CP-1") as station:
        await station.boot()
        async with asyncio.TaskGroup() as tasks:
            # These hold both connections.
            sent = [tasks.create_task(asyncio.to_thread(send, number)) for number in range(2)]
            # Two notes that one was taken in and leaves, and one that the other was taken in.
            notes = lambda: node.metric(PREFIX + "bus_accepted_total", bus="commands") >= 3  # noqa: E731
            await asyncio.to_thread(wait_for, notes, "both commands")
            # Of four more requests two wait for their turn, and two are refused.
            more = [tasks.create_task(asyncio.to_thread(node.get, "/api/v1/stations")) for _ in range(4)]
            await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
            for path in ["/livez", "/readyz", "/health", "/metrics"]:
                assert (await asyncio.to_thread(requests.get, node.admin_url + path, timeout=1)).status_code == 200
            assert not any(task.done() for task in sent)
        assert [task.result() for task in sent] == ["timeout", "timeout"]
        # The connection that asked for the metric may have been in the way of one.
        assert sorted(task.result().status_code for task in more) in ([200, 200, 503, 503], [200, 503, 503, 503])


def assert_problem(response, status, *parts):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"]
    for part in parts:
        assert part in problem["detail"], problem


@pytest.fixture(scope="module")
def quiet_node(shared_gateway):
    """A node that no station ever connects to."""
    return shared_gateway()


BAD_REQUESTS = [
    ("GET", "/api/v1/stations?limit=0", 400, "limit"),
    ("GET", "/api/v1/stations?limit=1001", 400, "limit"),
    ("GET", "/api/v1/stations?limit=-1", 400, "limit"),
    ("GET", "/api/v1/stations?limit=ten", 400, "limit"),
    ("GET", "/api/v1/stations?connected=yes", 400, "connected"),
    ("GET", "/api/v1/stations?conected=true", 400, "conected"),
    ("GET", "/api/v1/stations?prefix=%ff", 400, "UTF-8"),
    ("GET", "/api/v1/stations/%ff", 400, "UTF-8"),
    ("GET", "/api/v1/events?from=latest", 400, "from"),
    ("GET", "/api/v1/events?from=-1", 400, "from"),
    ("GET", "/api/v1/events?from=1.5", 400, "from"),
    ("GET", "/api/v1/events?follow=no", 400, "follow"),
    ("GET", "/api/v1/events?staton=CP-1", 400, "staton"),
    ("GET", "/api/v1/stations/CP-1", 404, "CP-1"),
    ("GET", "/api/v1", 404, "/api/v1"),
    ("GET", "/api/v2/stations", 404, "/api/v2/stations"),
    ("GET", "/metrics/", 404, "/metrics/"),
    ("GET", "/api/v1/stations/", 404, ""),
    ("DELETE", "/api/v1/stations", 405, "DELETE"),
    ("POST", "/readyz", 405, "POST"),
    ("GET", "/api/v1/stations/CP-1/commands", 405, "GET"),
    ("PUT", "/api/v1/stations/CP-1/registration", 400, ""),
    ("POST", "/api/v1/stations/CP-1/commands", 400, ""),
]


@pytest.mark.parametrize(("method", "path", "status", "part"), BAD_REQUESTS)
def test_an_invalid_request_is_a_problem(quiet_node, method, path, status, part):
    assert_problem(requests.request(method, quiet_node.admin_url + path, timeout=5), status, part)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"status":"accepted"}', b'{"status":1}', b'{"status":"Accepted","more":1}', b"\xff"],
)
def test_an_invalid_registration_is_a_problem(quiet_node, body):
    assert_problem(requests.put(f"{quiet_node.admin_url}/api/v1/stations/CP-1/registration", data=body, timeout=5), 400)


def test_a_huge_body_is_refused(quiet_node):
    body = json.dumps({"action": "DataTransfer", "payload": {"data": "x" * (2 << 20)}})
    response = requests.post(f"{quiet_node.admin_url}/api/v1/stations/CP-1/commands", data=body, timeout=5)
    assert_problem(response, 413)


def test_a_refused_method_names_the_allowed_ones(quiet_node):
    response = requests.delete(f"{quiet_node.admin_url}/api/v1/stations", timeout=5)
    assert response.headers.get("allow") == "GET", "RFC 9110, 15.5.6"


# -- the stations' port ---------------------------------------------------------------------------------------------

ADMIN_PATHS = [
    "/",
    "/livez",
    "/readyz",
    "/health",
    "/stats",
    "/metrics",
    "/api/v1/stations",
    "/api/v1/stations/CP-1",
    "/api/v1/events",
    "/ocpp/../metrics",
    "/ocpp/metrics",
]


@pytest.fixture(scope="module", params=["/ocpp", ""])
def stations_port(shared_gateway, request):
    return shared_gateway({"listeners": {"main": {"path_prefix": request.param}}}).port


@pytest.mark.parametrize("path", ADMIN_PATHS)
def test_the_admin_api_is_not_on_the_stations_port(stations_port, path):
    # Prepared by hand: requests would remove the dots from the path.
    with requests.Session() as http:
        prepared = http.prepare_request(requests.Request("GET", f"http://127.0.0.1:{stations_port}/"))
        prepared.url = f"http://127.0.0.1:{stations_port}{path}"
        response = http.send(prepared, timeout=5)
    assert response.status_code in (400, 404, 426)
    assert "ocpp_gateway" not in response.text
    assert not response.headers["content-type"].startswith("application/json")
