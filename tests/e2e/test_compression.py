"""permessage-deflate (RFC 7692; OCPP-J 1.7): negotiation, messages, and violations.

The negotiation is checked with independent clients in every combination of parameters, and byte by byte on a raw socket.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import threading
import zlib
from pathlib import Path

import pytest
from harness.contract import violations
from harness.raw import CLOSE, CONTINUATION, PING, PONG, TEXT, RawStation, frame
from harness.station import BOOT, Station
from harness.usage import memory
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

MIB = 1 << 20
RSV1 = 4
BOOT_CALL = json.dumps([2, "boot", "BootNotification", BOOT["1.6"]]).encode()
TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

# Text that compresses well and is unlike any other message.
METER_VALUES = json.dumps(
    {
        "connectorId": 1,
        "meterValue": [{"timestamp": f"2026-11-20T10:{n // 60:02}:{n % 60:02}Z", "n": n} for n in range(900)],
    }
)


@pytest.fixture(scope="module")
def node(shared_gateway):
    return shared_gateway({"session": {"close_timeout": "2s"}, "log": {"level": "info"}})


def deflate(data: bytes, wbits: int = 15) -> bytes:
    """Compresses a whole message without context takeover (RFC 7692 7.2.1)."""
    codec = zlib.compressobj(wbits=-wbits)
    compressed = codec.compress(data) + codec.flush(zlib.Z_SYNC_FLUSH)
    assert compressed.endswith(b"\0\0\xff\xff")
    return compressed[:-4]


def inflate(data: bytes, wbits: int = 15) -> bytes:
    return zlib.decompressobj(wbits=-wbits).decompress(data + b"\0\0\xff\xff")


@contextlib.contextmanager
def admitted(node, identity: str, offer: str | None = "permessage-deflate"):
    with RawStation(node.port) as station:
        response = station.upgrade(f"/ocpp/{identity}", changes={"Sec-WebSocket-Extensions": offer})
        assert response.status == 101
        assert (response.header("Sec-WebSocket-Extensions") or "").startswith("permessage-deflate" if offer else "")
        station.send(frame(TEXT, BOOT_CALL))
        assert json.loads(station.message())[2]["status"] == "Accepted"
        yield station


def last_event(node, identity: str):
    [event] = node.await_events(
        lambda events: events, "the end", station=identity, type="ocpp.station.disconnected", timeout=20
    )
    return event


def end_of(node, identity: str) -> str:
    return last_event(node, identity).data["reason"]


# -- an independent client ----------------------------------------------------------------------------------------

CLIENTS = {
    "as-it-comes": ClientPerMessageDeflateFactory(),
    "no-window-bits": ClientPerMessageDeflateFactory(client_max_window_bits=None),
    "server-no-context": ClientPerMessageDeflateFactory(server_no_context_takeover=True),
    "client-no-context": ClientPerMessageDeflateFactory(client_no_context_takeover=True),
    "no-context": ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True),
    **{f"client-{bits}": ClientPerMessageDeflateFactory(client_max_window_bits=bits) for bits in (9, 12, 15)},
    **{f"server-{bits}": ClientPerMessageDeflateFactory(server_max_window_bits=bits) for bits in range(9, 16)},
    "all": ClientPerMessageDeflateFactory(True, True, 10, 11),
}


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_compressing_client_is_understood_and_answered_compressed(node, name):
    identity = f"WS-{name}"
    async with await Station.connect(node, identity, extensions=[CLIENTS[name]]) as station:
        agreed = station.connection.response.headers["Sec-WebSocket-Extensions"]
        assert agreed.startswith(TAKEOVER)
        bits = re.search(r"server_max_window_bits=(\d+)", agreed)
        assert (bits and int(bits[1])) == CLIENTS[name].server_max_window_bits
        await station.boot()
        # Twice: context that is not taken over must not be needed.
        for number in range(2):
            assert (await station.call("MeterValues", METER_VALUES, id=f"m{number}"))[0] == 3
        for number in range(2):
            data = f"{number}" + "0123456789abcdef" * 2000
            body = {"action": "DataTransfer", "payload": {"vendorId": "v", "data": data}}
            command = asyncio.create_task(asyncio.to_thread(node.post, f"/api/v1/stations/{identity}/commands", body))
            call = await station.next_call()
            assert call[3]["data"] == data
            await station.answer(call, {"status": "Accepted"})
            assert (await command).json()["status"] == "answered"
    meters = [event for event in node.events(station=identity) if event.data.get("action") == "MeterValues"]
    assert [event.payload_text for event in meters if event.data["messageType"] == "CALL"] == [METER_VALUES] * 2
    [connected] = node.events(station=identity, type="ocpp.station.connected")
    assert violations(connected.json) == []
    assert connected.data["compression"] is True


async def test_a_client_without_compression_gets_none(node):
    async with await Station.connect(node, "WS-plain") as station:
        assert "Sec-WebSocket-Extensions" not in station.connection.response.headers
        await station.boot()
        assert (await station.call("MeterValues", METER_VALUES))[0] == 3
    [connected] = node.events(station="WS-plain", type="ocpp.station.connected")
    assert "compression" not in connected.data


async def test_compression_can_be_switched_off(gateway):
    node = gateway({"session": {"compression": False}})
    async with await Station.connect(node, "CP-1", compression="deflate") as station:
        assert "Sec-WebSocket-Extensions" not in station.connection.response.headers
        await station.boot()


async def test_compressed_bytes_are_counted(gateway):
    node = gateway({})
    async with await Station.connect(node, "CP-1", compression="deflate") as station:
        await station.boot()
        assert node.metric("ocpp_gateway_sessions_compressed") == 1
        assert node.metric("ocpp_gateway_inflating_paused_total") == 0
        await station.call("MeterValues", METER_VALUES)
        plain = node.metric("ocpp_gateway_compression_bytes_total", direction="in", form="plain")
        compressed = node.metric("ocpp_gateway_compression_bytes_total", direction="in", form="compressed")
        assert plain >= len(METER_VALUES)
        assert 0 < compressed < plain / 5
        # Incompressible noise: more than the gateway inflates in one turn.
        noise = {"vendorId": "v", "data": random.Random(7692).randbytes(50_000).hex()}
        assert (await station.call("DataTransfer", json.dumps(noise), id="noise"))[0] == 3
        assert node.metric("ocpp_gateway_inflating_paused_total") >= 50_000 // 4096
    node.await_events(lambda events: events, "the end", type="ocpp.station.disconnected")
    assert node.metric("ocpp_gateway_sessions_compressed") == 0


# -- another independent client -----------------------------------------------------------------------------------

HERE = Path(__file__).parent
MODULES = os.environ.get("NODE_PATH") or str(HERE.parents[1] / ".tools/ws/node_modules")
NODE = shutil.which("node") if (Path(MODULES) / "ws").is_dir() else None
WS_OPTIONS = {
    "default": {},
    "everything": {"threshold": 0},
    "small-windows": {"threshold": 0, "serverMaxWindowBits": 9, "clientMaxWindowBits": 10},
    "no-context": {"threshold": 0, "serverNoContextTakeover": True, "clientNoContextTakeover": True},
    "none": False,
}


@pytest.mark.skipif(NODE is None, reason="there is no node, or tools/ws.sh has not fetched the npm package ws")
@pytest.mark.parametrize("name", WS_OPTIONS)
async def test_the_npm_client_ws(node, name):
    identity, options = f"npm-{name}", WS_OPTIONS[name]
    process = await asyncio.create_subprocess_exec(
        NODE,
        str(HERE / "ws/station.js"),
        node.ws_url(identity),
        json.dumps(options),
        METER_VALUES,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"NODE_PATH": MODULES},
    )
    assert json.loads(await process.stdout.readline()) == {"ready": True}
    data = "0123456789abcdef" * 2000
    body = {"action": "DataTransfer", "payload": {"vendorId": "v", "data": data}}
    outcome = await asyncio.to_thread(node.post, f"/api/v1/stations/{identity}/commands", body)
    assert outcome.json()["status"] == "answered"
    seen = json.loads(await process.stdout.readline())
    assert await process.wait() == 0
    if options is False:
        assert seen["extensions"] == ""
    else:
        assert seen["extensions"].startswith(TAKEOVER)
    assert seen["answers"] == [[3, "boot"], [3, "large"]]
    assert seen["call"] == {"vendorId": "v", "data": data}
    assert (seen["pongs"], seen["code"]) == (1, 1000)
    meters = [event for event in node.events(station=identity) if event.data.get("messageId") == "large"]
    assert meters[0].payload_text == METER_VALUES


# -- byte by byte -------------------------------------------------------------------------------------------------

OFFERS = {
    "permessage-deflate": TAKEOVER,
    "permessage-deflate; client_max_window_bits; server_max_window_bits=10": f"{TAKEOVER}; server_max_window_bits=10",
    'permessage-deflate; server_max_window_bits="12"': f"{TAKEOVER}; server_max_window_bits=12",
    # Offers in order of preference: an unacceptable one gives way to the next.
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": TAKEOVER,
    "x-deflate, permessage-deflate; nonsense, permessage-deflate; server_max_window_bits=9": (
        f"{TAKEOVER}; server_max_window_bits=9"
    ),
    "permessage-deflate; server_max_window_bits=8": None,
    "permessage-deflate; server_max_window_bits=16": None,
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover": None,
    "permessage-deflate; client_no_context_takeover=1": None,
    "permessage-bzip2": None,
    # Two lines of the header are one list.
    "permessage-bzip2\r\nSec-WebSocket-Extensions: permessage-deflate": TAKEOVER,
}


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_is_answered(node, offer):
    with RawStation(node.port) as station:
        response = station.upgrade("/ocpp/offer", changes={"Sec-WebSocket-Extensions": offer})
        assert response.status == 101
        assert response.header("Sec-WebSocket-Extensions") == OFFERS[offer]


def test_a_malformed_offer_fails_the_handshake(node):
    with RawStation(node.port) as station:
        response = station.upgrade("/ocpp/offer", changes={"Sec-WebSocket-Extensions": "permessage-deflate;"})
        assert response.status == 400


@pytest.mark.parametrize("bits", range(9, 16))
def test_the_negotiated_window_is_respected(node, bits):
    """A repetition farther back than the window must not be referenced: zlib with that window could not resolve it."""
    identity = f"window-{bits}"
    data = "".join(random.Random(bits).choices("0123456789abcdef", k=6000)) * 2
    with admitted(node, identity, f"permessage-deflate; server_max_window_bits={bits}") as station:
        body = {"action": "DataTransfer", "payload": {"vendorId": "v", "data": data}, "timeoutMs": 5000}
        poster = threading.Thread(target=node.post, args=(f"/api/v1/stations/{identity}/commands", body))
        poster.start()
        opcode, payload = station.frame(compressed=True)
        call = json.loads(inflate(payload, bits))
        assert (opcode, call[3]["data"]) == (TEXT, data)
        station.text(json.dumps([3, call[1], {"status": "Accepted"}]))
        poster.join()


def test_compressed_fragments_with_pings_between_them(node):
    text = f'[2,"frag","MeterValues",{METER_VALUES}]'.encode()
    compressed = deflate(text)
    with admitted(node, "fragments") as station:
        pieces = [compressed[at : at + 100] for at in range(0, len(compressed), 100)]
        station.send(frame(TEXT, pieces[0], fin=False, reserved=RSV1))
        for piece in pieces[1:]:
            station.send(frame(PING, b"between") + frame(CONTINUATION, piece, fin=False))
        station.send(frame(CONTINUATION, b""))
        pongs = 0
        while (received := station.frame()) == (PONG, b"between"):
            pongs += 1
        assert 1 <= pongs <= len(pieces) - 1, "a pong may stand for several pings"
        assert json.loads(received[1])[:2] == [3, "frag"]
        # An uncompressed message is accepted as well.
        station.send(frame(TEXT, b'[2,"plain","Heartbeat",{}]'))
        assert json.loads(station.message())[:2] == [3, "plain"]
    [event] = [event for event in node.events(station="fragments") if event.data.get("messageId") == "frag"][:1]
    assert event.payload_text == METER_VALUES


def test_an_empty_message_and_a_final_block(node):
    with admitted(node, "edges") as station:
        # An empty text is no OCPP message, and no reason to end either (it is answered or ignored, not closed).
        station.send(frame(TEXT, b"\0", reserved=RSV1))
        codec = zlib.compressobj(wbits=-15)
        final = codec.compress(b'[2,"final","Heartbeat",{}]') + codec.flush(zlib.Z_FINISH)
        station.send(frame(TEXT, final + b"\0", reserved=RSV1))
        while json.loads(station.message())[1] != "final":
            pass


PROTOCOL, TOO_BIG, NOT_UTF8 = (1002, "protocolError"), (1009, "messageTooBig"), (1007, "invalidUtf8")
CALL = b'[2,"x","Heartbeat",{}]'
TWICE = zlib.compressobj(wbits=-15)
FIRST, SECOND = [
    (TWICE.compress(f'[2,"x{n}","DataTransfer",{{"vendorId":"a rather long name"}}]'.encode()) + TWICE.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for n in range(2)
]  # fmt: skip

BREACHES = {
    "a-megabyte-and-a-byte": ([frame(TEXT, deflate(b" " * (MIB + 1)), reserved=RSV1)], TOO_BIG),
    "bomb": ([frame(TEXT, deflate(b" " * (256 * MIB)), reserved=RSV1)], TOO_BIG),
    "bomb-in-fragments": (
        [frame(TEXT, deflate(b" " * (64 * MIB)), fin=False, reserved=RSV1), frame(CONTINUATION, b"")],
        TOO_BIG,
    ),
    "endless-empty-blocks": (
        [frame(TEXT, b"\0\0\0\xff\xff" * 100_000, fin=False, reserved=RSV1)]
        + [frame(CONTINUATION, b"\0\0\0\xff\xff" * 100_000, fin=False)] * 3,
        TOO_BIG,
    ),
    "not-deflate": ([frame(TEXT, b"\xff" * 20, reserved=RSV1)], PROTOCOL),
    "context-taken-over": ([frame(TEXT, FIRST, reserved=RSV1), frame(TEXT, SECOND, reserved=RSV1)], PROTOCOL),
    "not-utf8": ([frame(TEXT, deflate(b'[2,"\xff","Heartbeat",{}]'), reserved=RSV1)], NOT_UTF8),
    "rsv1-on-a-continuation": (
        [frame(TEXT, deflate(CALL)[:5], fin=False, reserved=RSV1), frame(CONTINUATION, deflate(CALL)[5:], reserved=RSV1)],
        PROTOCOL,
    ),
    "rsv1-on-a-ping": ([frame(PING, b"", reserved=RSV1)], PROTOCOL),
    "rsv2": ([frame(TEXT, CALL, reserved=2)], PROTOCOL),
}  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_a_broken_rule_ends_the_connection_with_its_code(node, name):
    frames, (code, reason) = BREACHES[name]
    before = peak(node)
    with admitted(node, name) as station:
        with contextlib.suppress(ConnectionError):
            for one in frames:
                station.send(one)
        if name == "context-taken-over":
            assert station.message().startswith('[3,"x0"')
        assert station.close_code() == code
    assert end_of(node, name) == reason
    assert peak(node) - before < 16 * MIB, "bounded by the limit, not by the sender"


def peak(node) -> int:
    """The peak memory of the process."""
    return memory(node.process.pid, "VmHWM")


def test_compressed_frames_without_negotiation_are_named(gateway):
    """Real stations do this; whoever looks for the cause must find it."""
    node = gateway()
    with admitted(node, "CP-1", offer=None) as station:
        station.send(frame(TEXT, deflate(CALL), reserved=RSV1))
        assert station.close_code() == 1002
    event = last_event(node, "CP-1")
    rule = "RSV1 is set, but compression was not negotiated (RFC 6455 5.2)"
    assert (event.data["reason"], event.data["note"]) == ("protocolError", rule)
    assert violations(event.json) == []
    assert node.metric("ocpp_gateway_protocol_violations_total", rule="compressedWithoutNegotiation") == 1
    [line] = [line for line in node.log_text().splitlines() if "station disconnected" in line]
    assert rule in line


def test_a_close_frame_is_never_compressed(node):
    with admitted(node, "close") as station:
        station.send(frame(CLOSE, b"\x03\xe8"))
        assert station.frame() == (CLOSE, b"\x03\xe8")
        assert station.ended()
