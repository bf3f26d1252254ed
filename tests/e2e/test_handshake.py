"""Who gets in, under which identity, with which version of OCPP (OCPP-J 3.1, 3.2 and 6.2; RFC 6455 4.2; RFC 7617).

Proves: the identity is the last path segment, decoded once; without a common subprotocol the handshake completes without a protocol
header and the connection is closed; Basic credentials are checked before the upgrade, as bytes; the credentials file is reloaded
without a restart; a slow hash delays no other station; every refusal is an event.
"""

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from harness.contract import violations
from harness.credentials import hash_password, put_in_place, write_credentials
from harness.events import Event
from harness.gateway import Gateway
from harness.raw import ACCEPT, KEY, TEXT, RawStation, Response, frame, upgrade_request
from harness.station import SUBPROTOCOLS, basic
from harness.waiting import free_port, wait_for

V16, V201, V21 = (SUBPROTOCOLS[version] for version in ("1.6", "2.0.1", "2.1"))


def listener(**rules: object) -> dict[str, object]:
    return {"address": f"127.0.0.1:{free_port()}", **rules}


def port(node: Gateway, name: str) -> int:
    return int(node.config["listeners"][name]["address"].rpartition(":")[2])


def shown(node: Gateway, identity: str) -> dict[str, object]:
    """What the admin API says about a station; an unknown one is not `connected`."""
    response = node.get(f"/api/v1/stations/{quote(identity, safe='')}")
    return response.json() if response.status_code == 200 else {"connected": False}


def connected(node: Gateway, identity: str) -> dict[str, object]:
    return wait_for(lambda: (it := shown(node, identity))["connected"] and it, f"{identity} is connected")


def refusal(node: Gateway, subject: str) -> Event:
    """The one event about a refused station or remote address."""
    [event] = node.await_events(lambda events: events, f"an event about {subject}", station=subject)
    assert violations(event.json) == []
    assert event.type == "ocpp.station.rejected"
    return event


@pytest.fixture(scope="module")
def open_node(shared_gateway) -> Gateway:
    listeners = {"only16": listener(subprotocols=["ocpp1.6"]), "lenient": listener(lenient=True)}
    return shared_gateway({"listeners": listeners})


# -- the identity -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target", "identity"),
    [
        ("main", "/ocpp/RDAM%20123", "RDAM 123"),
        ("main", "/ocpp/RDAM%7C123", "RDAM|123"),
        ("main", "/ocpp/A+B", "A+B"),
        ("main", "/ocpp/once-%2541", "once-%41"),
        ("main", "/ocpp/caf%c3%A9", "caf\u00e9"),
        ("main", "/ocpp/*-_=:@.%7E", "*-_=:@.~"),
        ("main", "/ocpp/query?token=a/b", "query"),
        ("main", "http://elsewhere.test/ocpp/absolute", "absolute"),
        ("main", "/ocpp/" + "x" * 255, "x" * 255),
        ("lenient", "//ocpp//slashes/", "slashes"),
    ],
)
def test_the_identity_is_the_last_segment_decoded_once(open_node, name, target, identity):
    with RawStation(port(open_node, name)) as station:
        response = station.upgrade(target)
        assert response.status == 101
        assert response.header("Sec-WebSocket-Accept") == ACCEPT
        assert response.header("Sec-WebSocket-Protocol") == V16
        assert connected(open_node, identity)["id"] == identity
    [event] = open_node.await_events(
        lambda events: events, "its event", station=identity, type="ocpp.station.connected"
    )
    assert violations(event.json) == []


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        ("/ocpp/", 400, "badIdentity"),
        ("/ocpp/%2F", 400, "badIdentity"),
        ("/ocpp/a%2Fb", 400, "badIdentity"),
        ("/ocpp/a/b", 400, "badIdentity"),
        ("/ocpp/a/", 400, "badIdentity"),
        ("/ocpp//a", 400, "badIdentity"),
        ("/ocpp/%00", 400, "badIdentity"),
        ("/ocpp/a%0Ab", 400, "badIdentity"),
        ("/ocpp/a%7F", 400, "badIdentity"),
        ("/ocpp/%FF", 400, "badIdentity"),
        ("/ocpp/%ZZ", 400, "badIdentity"),
        ("/ocpp/a%2", 400, "badIdentity"),
        ("/ocpp/" + "x" * 256, 400, "badIdentity"),
        ("/ocpp?a", 404, "notFound"),
        ("/", 404, "notFound"),
        ("/ocppx/a", 404, "notFound"),
        ("/other/a", 404, "notFound"),
    ],
)
def test_an_invalid_identity_is_refused(open_node, target, status, reason):
    path = target.partition("?")[0]
    path = path if len(path) <= 256 else path[:256] + "..."
    with RawStation(open_node.port) as station:
        response = station.upgrade(target)
        assert response.status == status
        assert response.body.endswith(f" (requested path: {path})\n")
        event = refusal(open_node, station.address)
        assert event.data == {"reason": reason, "remoteAddress": station.address, "httpStatus": status, "path": path}


def test_two_spellings_are_one_station(open_node):
    """2.x identities are case-insensitive; and `%2D` is a hyphen."""
    for spelling in ("Spelling-1", "SPELLING-1", "spelling%2D1"):
        with RawStation(open_node.port) as station:
            assert station.upgrade(f"/ocpp/{spelling}").status == 101
            station.text('[2,"1","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]')
            station.message()
            assert shown(open_node, "spelling-1")["id"] == "Spelling-1", "the first spelling stays"
    everyone = open_node.get("/api/v1/stations", params={"prefix": "spelling"}).json()["stations"]
    assert [station["id"] for station in everyone] == ["Spelling-1"]


# -- the subprotocol ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "offered", "echoed", "version"),
    [
        ("main", ["ocpp2.1, ocpp1.6"], V21, "2.1"),
        ("main", ["ocpp1.6, ocpp2.1"], V16, "1.6"),
        ("main", ["ocpp2.0.1.1,ocpp9.9 ,  ocpp2.0.1"], V201, "2.0.1"),
        ("main", ["ocpp9.9", "ocpp2.0.1", "ocpp1.6"], V201, "2.0.1"),
        ("only16", ["ocpp2.1, ocpp1.6"], V16, "1.6"),
        ("lenient", ["OCPP2.0.1"], "OCPP2.0.1", "2.0.1"),
        ("lenient", [], None, "1.6"),
    ],
)
def test_the_stations_first_subprotocol_that_the_listener_allows_wins(open_node, name, offered, echoed, version):
    identity = f"{name} {'+'.join(offered)}"
    with RawStation(port(open_node, name)) as station:
        response = station.upgrade(f"/ocpp/{quote(identity)}", offered)
        assert response.status == 101
        assert response.header("Sec-WebSocket-Protocol") == echoed
        assert connected(open_node, identity)["ocppVersion"] == version


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("main", ["ocpp9.9"]),
        ("main", []),
        ("main", ["OCPP1.6"]),
        ("main", ["ocpp1.5, ocpp2.0"]),
        ("only16", ["ocpp2.1, ocpp2.0.1"]),
        ("lenient", ["ocpp9.9"]),
    ],
)
def test_without_a_common_subprotocol_the_handshake_completes_and_closes(open_node, name, offered):
    identity = f"none {name} {'+'.join(offered)}"
    with RawStation(port(open_node, name)) as station:
        response = station.upgrade(f"/ocpp/{quote(identity)}", offered)
        assert response.status == 101
        assert response.header("Sec-WebSocket-Accept") == ACCEPT
        assert response.header("Sec-WebSocket-Protocol") is None
        assert station.close_code() == 1002
    assert refusal(open_node, identity).data["reason"] == "noSubprotocol"


def test_a_probe_with_an_unknown_version_does_not_replace_the_station(open_node):
    with RawStation(open_node.port) as station, RawStation(open_node.port) as probe:
        station.upgrade("/ocpp/probed", [V21])
        session = connected(open_node, "probed")["sessionId"]
        assert probe.upgrade("/ocpp/probed", ["ocpp9.9"]).status == 101
        assert probe.close_code() == 1002
        assert shown(open_node, "probed")["sessionId"] == session
        station.text('[2,"1","BootNotification",{"chargingStation":{"vendorName":"V","model":"M"},"reason":"PowerUp"}]')
        assert station.message().startswith('[3,"1",{"status":"Accepted"')


# -- the request --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "method", "status", "header"),
    [
        ({"Upgrade": None}, "GET", 426, ("Upgrade", "websocket")),
        ({"Upgrade": "h2c"}, "GET", 426, ("Upgrade", "websocket")),
        ({"Connection": "keep-alive"}, "GET", 400, None),
        ({"Sec-WebSocket-Version": "8"}, "GET", 426, ("Sec-WebSocket-Version", "13")),
        ({"Sec-WebSocket-Version": None}, "GET", 426, ("Sec-WebSocket-Version", "13")),
        ({"Sec-WebSocket-Key": None}, "GET", 400, None),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, "GET", 400, None),
        ({}, "POST", 400, None),
    ],
)
def test_an_invalid_websocket_handshake_is_refused(open_node, changes, method, status, header):
    identity = f"request {method} {changes}".replace("/", "")
    with RawStation(open_node.port) as station:
        response = station.upgrade(f"/ocpp/{quote(identity)}", changes=changes, method=method)
        assert response.status == status
        if header:
            assert response.header(header[0]) == header[1]
        assert station.ended()
    assert refusal(open_node, identity).data["reason"] == "notWebSocket"


@pytest.mark.parametrize(
    ("reason", "changes", "extra", "body"),
    [
        ("badHost", {"Host": None}, "", b""),
        ("badHost", {}, "Host: elsewhere.test\r\n", b""),
        ("repeatedHeader", {}, f"Sec-WebSocket-Key: {KEY}\r\n", b""),
        ("repeatedHeader", {}, "Sec-WebSocket-Version: 8\r\n", b""),
        ("requestBody", {"Content-Length": "5"}, "", b"hello"),
        # Bytes that would be a message, if they were taken for frames.
        ("requestBody", {"Content-Length": "28"}, "", frame(TEXT, b'[2,"1","Heartbeat",{}]')),
        ("requestBody", {"Transfer-Encoding": "chunked"}, "", b"5\r\nhello\r\n0\r\n\r\n"),
        ("requestBody", {"Transfer-Encoding": "chunked"}, "", b"0\r\n\r\n"),
    ],
)
def test_a_request_that_is_not_exactly_one_is_refused(open_node, reason, changes, extra, body):
    identity = f"exactly {reason} {changes} {extra[:16]}{len(body)}".replace("/", "")
    path = f"/ocpp/{quote(identity)}"

    def refused() -> float:
        return open_node.metric("ocpp_gateway_handshakes_total", listener="main", outcome=reason)

    before = refused()
    with RawStation(open_node.port) as station:
        request = upgrade_request(path, changes=changes)
        station.send(request.replace(b"\r\n\r\n", b"\r\n" + extra.encode() + b"\r\n", 1) + body)
        response = station.response()
        assert response.status == 400
        assert response.header("Sec-WebSocket-Accept") is None
        assert path in response.body
        assert station.ended()
    event = refusal(open_node, identity)
    assert (event.data["reason"], event.data["path"]) == (reason, path)
    assert refused() == before + 1


def test_an_announced_body_of_nothing_is_accepted(open_node):
    with RawStation(open_node.port) as station:
        assert station.upgrade("/ocpp/nothing", changes={"Content-Length": "0"}).status == 101
        station.text('[2,"1","Heartbeat",{}]')
        assert station.message().startswith('[4,"1"')


@pytest.mark.parametrize(
    ("kind", "target", "offered", "changes"),
    [
        ("missingSubprotocol", "/ocpp/{}", [], {}),
        ("subprotocolCase", "/ocpp/{}", ["OCPP1.6"], {}),
        ("emptyPathSegment", "//ocpp//{}", ["ocpp1.6"], {}),
        ("malformedExtensions", "/ocpp/{}", ["ocpp1.6"], {"Sec-WebSocket-Extensions": ";="}),
        (None, "/ocpp/{}", ["ocpp1.6"], {}),
    ],
)
def test_what_a_handshake_is_forgiven_is_counted_and_logged(gateway, kind, target, offered, changes):
    node = gateway({"listeners": {"main": {"lenient": True}}, "log": {"level": "debug"}})
    with RawStation(node.port) as station:
        assert station.upgrade(target.format("Forgiven-1"), offered, changes=changes).status == 101
        kinds = ["missingSubprotocol", "subprotocolCase", "emptyPathSegment", "malformedExtensions"]
        counted = {one: node.metric("ocpp_gateway_leniencies_total", kind=one) for one in kinds}
    assert {one for one, count in counted.items() if count} == ({kind} if kind else set())
    lines = [line for line in node.log_text().splitlines() if "handshake deviates" in line]
    assert [("Forgiven-1" in line, str(kind) in line) for line in lines] == ([(True, True)] if kind else [])


# -- HTTP Basic ---------------------------------------------------------------------------------------------------

KEY_AL1000 = bytes(range(8)) + b"\xff" * 12
KEY_CP001 = bytes.fromhex("0123456789abcdeffedcba98765432100f1e2d3c")
PASSWORD_2X = b"abcDEF123*-_=:+|@."
SECRETS = {
    "AL1000": KEY_AL1000,
    "CP001": KEY_CP001,
    "CS001": PASSWORD_2X,
    "DE:1:2": b"colons:in:both:parts",
    "SLOW1": KEY_CP001,
    "SLOW2": PASSWORD_2X,
}


def hashes() -> dict[str, str]:
    slow = {"SLOW1", "SLOW2"}
    options = {identity: ("--slow",) if identity in slow else () for identity in SECRETS}
    return {
        identity: hash_password(secret.hex().encode(), "--hex", *options[identity])
        for identity, secret in SECRETS.items()
    }


@pytest.fixture(scope="module")
def guarded_node(shared_gateway, tmp_path_factory) -> Gateway:
    file = write_credentials(tmp_path_factory.mktemp("credentials") / "stations", hashes())
    node = shared_gateway({"listeners": {"main": {"auth": "basic"}}, "credentials": {"file": file}})
    yield node
    log = node.log_text()
    for secret in SECRETS.values():
        for spelling in (secret.hex(), base64.b64encode(secret).decode(), secret.decode("latin-1")):
            assert spelling not in log, "a password is in the log"


def knock(node: Gateway, identity: str, authorization: str | None, subprotocol: str = V16) -> Response:
    """Attempts a handshake and drops the connection."""
    with RawStation(node.port) as station:
        target = f"/ocpp/{quote(identity, safe='')}"
        return station.upgrade(target, [subprotocol], changes={"Authorization": authorization})


@pytest.mark.parametrize(
    ("identity", "subprotocol", "authorization"),
    [
        # The example of OCPP-J 1.6, with bytes that are not UTF-8; and two made by other tools.
        ("AL1000", V16, "Basic QUwxMDAwOgABAgMEBQYH////////////////"),
        ("CP001", V16, "Basic Q1AwMDE6ASNFZ4mrze/+3LqYdlQyEA8eLTw="),
        ("CS001", V201, "Basic Q1MwMDE6YWJjREVGMTIzKi1fPTorfEAu"),
        ("CS001", V21, basic("CS001", PASSWORD_2X)),
        ("CS001", V21, basic("CS001", PASSWORD_2X).replace("Basic", "bAsIC")),
        ("DE:1:2", V16, basic("DE:1:2", SECRETS["DE:1:2"])),
        # What many 1.6 stations send: the key in hex, as it was configured.
        ("CP001", V16, basic("CP001", KEY_CP001.hex())),
        ("CP001", V16, basic("CP001", KEY_CP001.hex().upper())),
        ("SLOW1", V16, basic("SLOW1", KEY_CP001)),
        ("SLOW1", V16, basic("SLOW1", KEY_CP001.hex())),
        ("SLOW2", V201, basic("SLOW2", PASSWORD_2X)),
    ],
)
def test_valid_credentials_are_accepted(guarded_node, identity, subprotocol, authorization):
    with RawStation(guarded_node.port) as station:
        target = f"/ocpp/{quote(identity, safe='')}"
        response = station.upgrade(target, [subprotocol], changes={"Authorization": authorization})
        assert response.status == 101
        assert response.header("Sec-WebSocket-Protocol") == subprotocol
        assert connected(guarded_node, identity)["securityProfile"] == 1


@pytest.mark.parametrize(
    ("identity", "subprotocol", "authorization", "reason"),
    [
        ("CP001", V16, None, "missingCredentials"),
        ("CP001", V16, "Bearer " + base64.b64encode(b"CP001:" + KEY_CP001).decode(), "missingCredentials"),
        ("CP001", V16, "Basic", "missingCredentials"),
        ("CP001", V16, "Basic !!!!", "missingCredentials"),
        ("CP001", V16, basic("CP001", KEY_CP001[:-1]), "wrongCredentials"),
        ("CP001", V16, basic("CP001", KEY_CP001 + b"\0"), "wrongCredentials"),
        ("CP001", V16, basic("CP001", b""), "wrongCredentials"),
        ("CP001", V16, "Basic " + base64.b64encode(b"CP001").decode(), "wrongCredentials"),
        ("CP001", V16, basic("AL1000", KEY_AL1000), "wrongCredentials"),
        ("CP001", V16, basic("AL1000", KEY_CP001), "wrongCredentials"),
        ("CS001", V201, basic("CS001", PASSWORD_2X.lower()), "wrongCredentials"),
        ("CS001", V201, basic("CS001", PASSWORD_2X.hex()), "wrongCredentials"),
        ("CP001", V21, basic("CP001", KEY_CP001.hex()), "wrongCredentials"),
        ("SLOW1", V16, basic("SLOW1", KEY_AL1000), "wrongCredentials"),
        ("CP001", "ocpp9.9", basic("CP001", KEY_AL1000), "wrongCredentials"),
    ],
)
def test_wrong_credentials_are_challenged_and_not_upgraded(guarded_node, identity, subprotocol, authorization, reason):
    before = len(guarded_node.events(station=identity, type="ocpp.station.rejected"))
    with RawStation(guarded_node.port) as station:
        response = station.upgrade(f"/ocpp/{identity}", [subprotocol], changes={"Authorization": authorization})
        assert response.status == 401
        assert response.header("WWW-Authenticate").startswith("Basic realm=")
        assert response.header("Sec-WebSocket-Accept") is None
        assert station.ended(), "a refused connection is closed"
    events = guarded_node.await_events(
        lambda events: len(events) > before, "a refusal", station=identity, type="ocpp.station.rejected"
    )
    assert violations(events[-1].json) == []
    assert events[-1].data["reason"] == reason
    assert events[-1].data["httpStatus"] == 401


def test_a_wrong_password_does_not_disturb_the_station(guarded_node):
    with RawStation(guarded_node.port) as station:
        station.upgrade("/ocpp/AL1000", changes={"Authorization": basic("AL1000", KEY_AL1000)})
        session = connected(guarded_node, "AL1000")["sessionId"]
        assert knock(guarded_node, "AL1000", basic("AL1000", KEY_CP001)).status == 401
        assert shown(guarded_node, "AL1000")["sessionId"] == session
        station.text('[2,"1","Heartbeat",{}]')
        assert station.message().startswith('[4,"1","SecurityError"'), "it has not booted, and is still served"


def test_an_unknown_station_is_not_found(guarded_node):
    response = knock(guarded_node, "NOBODY", basic("NOBODY", KEY_CP001))
    assert response.status == 404
    assert response.header("WWW-Authenticate") is None
    assert refusal(guarded_node, "NOBODY").data["reason"] == "unknownStation"
    assert knock(guarded_node, "NOBODY-2", None).status == 404


def test_unknown_stations_can_be_hidden(gateway, tmp_path):
    file = write_credentials(tmp_path / "stations", {"CP001": hashes()["CP001"]})
    credentials = {"file": file, "hide_unknown_stations": True}
    node = gateway({"listeners": {"main": {"auth": "basic"}}, "credentials": credentials})

    def visible(identity: str, authorization: str | None) -> Response:
        response = knock(node, identity, authorization)
        headers = [header for header in response.headers if header[0].lower() != "date"]
        return replace(response, headers=headers, body=response.body.replace(identity, "..."))

    for password in (None, b"wrong"):
        known, unknown = (visible(identity, password and basic(identity, password)) for identity in ("CP001", "XX001"))
        assert known.status == 401
        assert known == unknown, "the response does not reveal whether the station exists"
    events = node.await_events(lambda events: len(events) == 2, "both refusals", station="XX001")
    assert {event.data["reason"] for event in events} == {"unknownStation"}


# -- the credentials file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--slow",)], ids=["fast", "slow"])
def test_a_changed_credentials_file_takes_effect_without_a_restart(gateway, tmp_path: Path, options):
    old, new = b"the-old-password-1", b"the-new-password-2"
    file = tmp_path / "stations"
    path = write_credentials(file, {"A": hash_password(old, *options)})
    node = gateway(
        {"listeners": {"main": {"auth": "basic"}}, "credentials": {"file": path, "reload_interval": "100ms"}}
    )

    def status(identity: str, password: bytes) -> int:
        return knock(node, identity, basic(identity, password), V201).status

    def reloads(outcome: str) -> float:
        return node.metric("ocpp_gateway_credential_reloads_total", outcome=outcome)

    assert (status("A", old), status("A", new), status("B", old)) == (101, 401, 404)

    write_credentials(file, {"A": hash_password(new, *options), "B": hash_password(old, *options)})
    wait_for(lambda: reloads("loaded") == 1, "the file is read again")
    assert (status("A", old), status("A", new), status("B", old)) == (401, 101, 101)

    with RawStation(node.port) as station:
        assert station.upgrade("/ocpp/B", [V201], changes={"Authorization": basic("B", old)}).status == 101
        put_in_place(file, file.read_text() + "C:not-a-hash\n")
        wait_for(lambda: reloads("failed") == 1, "the wrong file is noticed")
        assert (status("A", new), status("C", old)) == (101, 404), "the former credentials stay in force"
        assert "line 4" in node.log_text()
        assert "not-a-hash" not in node.log_text()
        file.unlink()
        wait_for(lambda: reloads("failed") == 2, "the missing file is noticed")
        assert status("A", new) == 101

        write_credentials(file, {"A": hash_password(new, *options)})
        wait_for(lambda: reloads("loaded") == 2, "the file is read again")
        assert (status("A", new), status("B", old)) == (101, 404)
        station.text('[2,"1","Heartbeat",{}]')
        assert station.message().startswith('[4,"1","SecurityError"'), "a reload does not cut connections"


@pytest.mark.serial
def test_slow_hashes_delay_no_other_station(gateway, tmp_path):
    """A flood of wrong passwords keeps the one slow-hash thread busy; known stations connect at once."""
    flood = [f"FLOOD{number}" for number in range(8)]
    slow = hash_password(KEY_CP001.hex().encode(), "--hex", "--slow")
    file = write_credentials(
        tmp_path / "stations", {"FAST": hashes()["CP001"], "PROVED": slow} | dict.fromkeys(flood, slow)
    )
    node = gateway({"listeners": {"main": {"auth": "basic"}}, "credentials": {"file": file}})
    proved, fast = basic("PROVED", KEY_CP001), basic("FAST", KEY_CP001)
    assert knock(node, "PROVED", proved).status == 101

    with ThreadPoolExecutor(40) as pool:
        attempts = [
            pool.submit(knock, node, flood[number % 8], basic(flood[number % 8], b"no")) for number in range(80)
        ]
        wait_for(lambda: any(attempt.done() for attempt in attempts), "the flood has begun", interval=0.005)
        waited = []
        for identity, authorization in [("FAST", fast), ("PROVED", proved)] * 5:
            began = time.monotonic()
            assert knock(node, identity, authorization).status == 101
            waited.append(time.monotonic() - began)
        left = sum(not attempt.done() for attempt in attempts)
        assert {attempt.result().status for attempt in attempts} == {401}
    assert left > 0, "the flood was over too soon to delay anyone"
    assert max(waited) < 1.0, f"seconds to connect: {waited}"


def test_after_a_refusal_nothing_is_read(guarded_node):
    """A frame sent along with a refused handshake must not become a message."""
    with RawStation(guarded_node.port) as station:
        station.send(upgrade_request("/ocpp/CP001") + frame(TEXT, b'[2,"1","Heartbeat",{}]'))
        assert station.response().status == 401
        assert station.ended()
    assert guarded_node.events(station="CP001", type="ocpp.message.received") == []


def test_the_connection_header_of_a_101_is_upgrade_alone(open_node):
    """Many clients compare the whole value of the Connection header."""
    with RawStation(port(open_node, "main")) as station:
        response = station.upgrade("/ocpp/CP-101")
        assert response.status == 101
        assert response.header("Connection") == "Upgrade"
        assert response.header("Upgrade") == "websocket"
