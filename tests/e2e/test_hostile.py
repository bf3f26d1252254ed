"""A hostile or broken peer costs its own connection only (promises P6 and P7; RFC 6455 sections 5 and 7).

Each case is one attack on the raw socket, while a well-behaved station on the same gateway keeps sending CALLs; its slowest answer
decides. The attacker gets a close code if possible, an event says why it was disconnected, and the gateway's memory does not grow.
"""

import contextlib
import itertools
import json
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from harness import usage
from harness.contract import violations
from harness.gateway import Gateway
from harness.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawStation, frame, upgrade_request
from harness.waiting import wait_for
from websockets.sync.client import connect

MIB = 1 << 20
SLOWEST_ANSWER = 2.0
BOOT = b'[2,"boot","BootNotification",{"chargePointVendor":"V","chargePointModel":"M"}]'
CALL = b'[2,"x","Heartbeat",{}]'


class GoodStation(threading.Thread):
    """Boots, then sends one CALL after another and records the slowest answer."""

    def __init__(self, node: Gateway) -> None:
        super().__init__(daemon=True)
        self.url = node.ws_url("GOOD")
        self.answers = 0
        self.slowest = 0.0
        self.failure: BaseException | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        try:
            with connect(self.url, subprotocols=["ocpp1.6"], compression=None, proxy=None) as connection:
                connection.send(BOOT.decode())
                assert json.loads(connection.recv(10))[2]["status"] == "Accepted"
                for number in itertools.count():
                    if self._stop_asked.wait(0.02):
                        return
                    began = time.monotonic()
                    connection.send(f'[2,"{number}","Heartbeat",{{}}]')
                    answer = json.loads(connection.recv(20))
                    assert answer[:2] == [3, str(number)], answer
                    self.slowest = max(self.slowest, time.monotonic() - began)
                    self.answers += 1
        except BaseException as failure:  # noqa: BLE001 - whatever it is, the test must see it
            self.failure = failure

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """What happens inside must not delay this station."""
        self.slowest, before = 0.0, self.answers
        yield
        wait_for(lambda: self.answers > before + 3 or self.failure, "the good station is answered")
        assert self.failure is None, repr(self.failure)
        assert self.slowest < SLOWEST_ANSWER, f"an answer took {self.slowest:.2f} s"

    def leave(self) -> None:
        self._stop_asked.set()
        self.join(30)
        assert self.failure is None, repr(self.failure)


@pytest.fixture(scope="module")
def node(shared_gateway) -> Gateway:
    return shared_gateway(
        {
            "handshake": {"timeout": "2s", "max_arriving": 64, "yield_after": "300ms"},
            "session": {"write_timeout": "2s", "close_timeout": "2s"},
            "log": {"level": "info"},
        }
    )


@pytest.fixture(scope="module")
def good(node) -> Iterator[GoodStation]:
    station = GoodStation(node)
    station.start()
    wait_for(lambda: station.answers > 0 or station.failure, "the good station is served")
    yield station
    station.leave()


def memory(node: Gateway, field: str = "VmRSS") -> int:
    """Bytes of the process."""
    return usage.memory(node.process.pid, field)


def admitted(node: Gateway, identity: str) -> RawStation:
    station = RawStation(node.port)
    assert station.upgrade(f"/ocpp/{identity}").status == 101
    station.text(BOOT.decode())
    assert station.message().startswith('[3,"boot"')
    return station


def reason_of_end(node: Gateway, identity: str) -> str:
    """Why the station's only session ended."""
    [event] = node.await_events(
        lambda events: events, "the end", station=identity, type="ocpp.station.disconnected", timeout=20
    )
    assert violations(event.json) == []
    return event.data["reason"]


# -- frames that break a rule -------------------------------------------------------------------------------------

PROTOCOL, TOO_BIG, NOT_UTF8 = (1002, "protocolError"), (1009, "messageTooBig"), (1007, "invalidUtf8")

BREACHES: dict[str, tuple[list[bytes], tuple[int, str]]] = {
    "unmasked": ([frame(TEXT, CALL, masked=False)], PROTOCOL),
    "rsv1-without-compression": ([frame(TEXT, CALL, reserved=4)], PROTOCOL),
    "rsv2": ([frame(TEXT, CALL, reserved=2)], PROTOCOL),
    "rsv3-on-ping": ([frame(PING, b"", reserved=1)], PROTOCOL),
    "reserved-opcode": ([frame(3, CALL)], PROTOCOL),
    "reserved-control-opcode": ([frame(11, b"")], PROTOCOL),
    "continuation-of-nothing": ([frame(CONTINUATION, CALL)], PROTOCOL),
    "text-inside-a-fragmented-text": ([frame(TEXT, CALL[:5], fin=False), frame(TEXT, CALL)], PROTOCOL),
    "fragmented-ping": ([frame(PING, b"", fin=False)], PROTOCOL),
    "long-ping": ([frame(PING, b"x" * 126)], PROTOCOL),
    "close-with-half-a-code": ([frame(CLOSE, b"\x03")], PROTOCOL),
    "close-with-a-code-that-is-none": ([frame(CLOSE, struct.pack("!H", 1005))], (1002, "stationClosed")),
    "length-with-the-highest-bit": ([frame(TEXT, b"x", length=1 << 63)], TOO_BIG),
    "binary": ([frame(BINARY, CALL)], (1003, "binaryFrame")),
    "not-utf8": ([frame(TEXT, b'[2,"\xff\xfe","Heartbeat",{}]')], NOT_UTF8),
    "not-utf8-across-fragments": ([frame(TEXT, b"\xc3", fin=False), frame(CONTINUATION, b"\x28")], NOT_UTF8),
    "surrogate-in-utf8": ([frame(TEXT, b"\xed\xa0\x80")], NOT_UTF8),
    "cut-inside-a-character": ([frame(TEXT, b"\xe2\x82")], NOT_UTF8),
    "header-of-100-MB": ([frame(TEXT, b"x", length=100 * MIB)], TOO_BIG),
    "one-byte-too-many": ([frame(TEXT, b" " * (MIB + 1))], TOO_BIG),
    "too-many-fragments": (
        [frame(TEXT, b" " * 65536, fin=False), *[frame(CONTINUATION, b" " * 65536, fin=False)] * 16],
        TOO_BIG,
    ),
    "empty-fragments-without-end": (
        [frame(TEXT, fin=False), frame(CONTINUATION, fin=False) * (MIB + 1)],
        TOO_BIG,
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_rule_ends_the_connection_with_its_code(node, good, name):
    frames, (code, reason) = BREACHES[name]
    with good.watching(), admitted(node, name) as station:
        # Nothing after the violation may count.
        with contextlib.suppress(ConnectionError):
            for one in [*frames, frame(TEXT, b'[2,"after","Heartbeat",{}]')]:
                station.send(one)
        assert station.close_code() == code
        assert reason_of_end(node, name) == reason
    received = node.events(station=name, type="ocpp.message.received")
    assert [event.data.get("messageId") for event in received] == ["boot"]


def test_a_frame_of_100_mb(node, good):
    """Really sent, as fast as the gateway takes it."""
    before = memory(node)
    with good.watching(), admitted(node, "huge") as station:
        piece = b"x" * MIB
        with contextlib.suppress(ConnectionError):
            station.send(frame(TEXT, b"", length=100 * MIB))
            for _ in range(100):
                station.send(piece)
        assert station.close_code() in (1009, None), "the close frame may be lost in the reset"
        assert reason_of_end(node, "huge") == "messageTooBig"
    assert memory(node, "VmHWM") - before < 32 * MIB


def test_nothing_counts_after_a_close_frame(node, good):
    with good.watching(), admitted(node, "after-close") as station:
        station.send(frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, CALL) * 100)
        assert station.frame() == (CLOSE, struct.pack("!H", 1000))
        assert station.ended()
        assert reason_of_end(node, "after-close") == "stationClosed"
    assert len(node.events(station="after-close", type="ocpp.message.received")) == 1


@pytest.mark.parametrize("code", [1000, 1011, 1012, 1013, 1014, 3000, 4999])
def test_a_registered_close_code_is_echoed(node, code):
    with admitted(node, f"close-{code}") as station:
        station.send(frame(CLOSE, struct.pack("!H", code)))
        assert station.frame() == (CLOSE, struct.pack("!H", code))
        [event] = node.await_events(
            lambda events: events, "the end", station=f"close-{code}", type="ocpp.station.disconnected"
        )
    assert (event.data["reason"], event.data["closeCode"]) == ("stationClosed", code)


# -- frames that are valid but unkind ----------------------------------------------------------------------------


def test_fragments_of_one_byte_are_a_message(node, good):
    text = b'[2,"bytes","DataTransfer",{"vendorId":"v","data":"' + "\u00e9".encode() * 5000 + b'"}]'
    with good.watching(), admitted(node, "bytes") as station:
        frames = [frame(CONTINUATION, bytes([byte]), fin=False) for byte in text]
        frames[0] = frame(TEXT, text[:1], fin=False)
        # Control frames may come in between.
        frames.insert(len(frames) // 2, frame(PING, b"mid") + frame(PONG, b""))
        station.send(b"".join(frames) + frame(CONTINUATION, b""))
        assert station.frame() == (PONG, b"mid")
        assert station.message().startswith('[3,"bytes",')
    [event] = [event for event in node.events(station="bytes") if event.data.get("action") == "DataTransfer"][:1]
    assert event.payload_text.encode() == text[len(b'[2,"bytes","DataTransfer",') : -1]


def test_one_byte_at_a_time_on_the_wire(node, good):
    with good.watching(), admitted(node, "drip") as station:
        for byte in frame(TEXT, CALL):
            station.send(bytes([byte]))
            # So that each byte is a segment of its own.
            time.sleep(0.002)
        assert station.message().startswith('[3,"x",')


def test_endless_empty_fragments(node, good):
    before = memory(node)
    with good.watching(), admitted(node, "empty") as station:
        station.send(frame(TEXT, b"", fin=False))
        piece = frame(CONTINUATION, b"", fin=False) * 10_000
        for _ in range(30):
            station.send(piece)
        station.send(frame(CONTINUATION, CALL))
        assert station.message().startswith('[3,"x",')
    assert memory(node) - before < 16 * MIB


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("arrays", '[2,"deep","DataTransfer",{"vendorId":"v","data":' + "[" * 10_000 + "]" * 10_000 + "}]"),
        ("objects", '[2,"deep","DataTransfer",' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "]"),
        ("unclosed", '[2,"deep","DataTransfer",' + '{"a":[' * 10_000),
        ("a-megabyte", "[" * (MIB - 10)),
    ],
)
def test_deep_json_is_answered_with_an_error(node, good, name, text):
    with good.watching(), admitted(node, name) as station:
        station.text(text)
        answer = json.loads(station.message())
        assert (answer[0], answer[2]) == (4, "FormationViolation")
        assert answer[1] == ("-1" if name == "a-megabyte" else "deep")
        station.text(CALL.decode())
        assert station.message().startswith('[3,"x",'), "and the connection goes on"


def test_a_flood_of_pings(node, good):
    before = memory(node)
    with good.watching(), admitted(node, "pings") as station:
        piece = frame(PING, b"p" * 125) * 1000
        station.socket.settimeout(0.5)
        # It never reads the pongs.
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(200):
                station.send(piece)
    wait_for(lambda: node.metric("ocpp_gateway_pings_received_total") >= 1000, "the pings are counted")
    assert memory(node) - before < 16 * MIB


def test_a_flood_of_calls_from_a_station_that_never_reads(node, good):
    """The gateway stops reading, so that TCP stops the station; in the end the connection is closed."""
    before = memory(node)
    with good.watching(), admitted(node, "flood") as station:
        piece = frame(TEXT, CALL) * 1000
        station.socket.settimeout(1.0)
        sent = 0
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(2000):
                station.send(piece)
                sent += 1000
        assert sent < 2_000_000, "nothing slowed it down"
        assert reason_of_end(node, "flood") in ("slowReader", "connectionLost")
    assert memory(node) - before < 32 * MIB
    assert node.metric("ocpp_gateway_reads_paused_total") > 0


# -- before there is a session ------------------------------------------------------------------------------------


def half_a_handshake(station: RawStation) -> None:
    station.send(upgrade_request("/ocpp/half")[:-10])


def silence(station: RawStation) -> None:
    pass


def a_tls_hello(station: RawStation) -> None:
    station.send(bytes.fromhex("16030100c8010000c40303") + b"\0" * 100)


def garbage(station: RawStation) -> None:
    station.send(b"\0\xff" * 2000)


def endless_headers(station: RawStation) -> None:
    with contextlib.suppress(ConnectionError):
        station.send(b"GET /ocpp/endless HTTP/1.1\r\n")
        for number in range(20_000):
            station.send(f"X-{number}: {'x' * 50}\r\n".encode())


def a_body_that_never_comes(station: RawStation) -> None:
    station.send(b"POST /ocpp/body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")


@pytest.mark.parametrize(
    "attack", [half_a_handshake, silence, a_tls_hello, garbage, endless_headers, a_body_that_never_comes]
)
def test_what_never_becomes_a_session_is_dropped(node, good, attack: Callable[[RawStation], None]):
    before = memory(node)
    with good.watching(), RawStation(node.port) as station:
        began = time.monotonic()
        attack(station)
        # Whatever it is sent, it is disconnected within the handshake timeout.
        with contextlib.suppress(ConnectionError):
            while station.socket.recv(65536):
                pass
        assert time.monotonic() - began < 4.0
    assert memory(node) - before < 8 * MIB


def test_dripping_headers_do_not_hold_a_permit(node, good):
    with good.watching(), RawStation(node.port) as station:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in itertools.cycle(b"X-Drip: x\r\n"):
                station.send(b"GET /ocpp/drip HTTP/1.1\r\n" if time.monotonic() - began < 0.01 else bytes([byte]))
                # The pace of the drip.
                time.sleep(0.05)
                assert time.monotonic() - began < 5.0, "still connected"


def test_half_open_handshakes_do_not_keep_stations_out(node, good):
    """Five times as many as there are permits, and stations still connect."""
    with good.watching(), contextlib.ExitStack() as held:
        for _ in range(320):
            half_a_handshake(held.enter_context(RawStation(node.port)))
        began = time.monotonic()
        with RawStation(node.port, timeout=20) as station:
            assert station.upgrade("/ocpp/squeezed-in").status == 101
        assert time.monotonic() - began < 10.0
    wait_for(lambda: node.metric("ocpp_gateway_handshakes_in_progress") <= 1, "the permits are free again")


def test_incomplete_requests_delay_no_handshake(gateway):
    """One request is answered at a time, and nobody is dropped to make room: stations do not notice connections that stall."""
    node = gateway({"handshake": {"timeout": "60s", "max_concurrent": 1, "yield_after": "60s"}})
    with contextlib.ExitStack() as held:
        for attack in [a_tls_hello, garbage, endless_headers, a_body_that_never_comes]:
            with contextlib.suppress(ConnectionError):
                attack(held.enter_context(RawStation(node.port)))
        for _ in range(100):
            half_a_handshake(held.enter_context(RawStation(node.port)))
            held.enter_context(RawStation(node.port))
        wait_for(lambda: node.metric("ocpp_gateway_handshakes_in_progress") >= 200, "all are accepted")
        began = time.monotonic()
        for number in range(10):
            with RawStation(node.port, timeout=20) as station:
                assert station.upgrade(f"/ocpp/in-between-{number}").status == 101
        assert time.monotonic() - began < 10.0, "less than `handshake.yield_after`"


def test_without_file_descriptors_idle_half_open_connections_are_dropped(gateway):
    node = gateway({"handshake": {"timeout": "60s", "yield_after": "300ms"}})
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (200, 200))
    with contextlib.ExitStack() as held:
        for _ in range(300):
            half_a_handshake(held.enter_context(RawStation(node.port)))
        with RawStation(node.port, timeout=20) as station:
            assert station.upgrade("/ocpp/squeezed-in").status == 101
    assert node.metric("ocpp_gateway_handshakes_total", listener="main", outcome="yielded") > 100


def test_a_reset_in_the_middle_of_a_frame(node, good):
    with good.watching():
        station = admitted(node, "reset")
        station.send(frame(TEXT, CALL[:10], length=len(CALL)))
        station.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        station.socket.close()
        assert reason_of_end(node, "reset") == "connectionLost"


def test_all_at_once(node, good):
    """200 connections break the rules at the same time."""
    attacks = [frames for frames, _ in BREACHES.values()]
    with good.watching(), contextlib.ExitStack() as held:
        for number in range(200):
            station = held.enter_context(RawStation(node.port))
            station.send(upgrade_request(f"/ocpp/crowd-{number}"))
            with contextlib.suppress(ConnectionError):
                for one in attacks[number % len(attacks)]:
                    station.send(one)
    ended = node.await_events(
        lambda events: sum(event.station.startswith("crowd-") for event in events) == 200,
        "200 ends",
        type="ocpp.station.disconnected",
        timeout=30,
    )
    assert all(violations(event.json) == [] for event in ended)
