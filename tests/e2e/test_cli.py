"""The binary as a client for people: `stations`, `send`, `tail`, `disconnect`.

Proves: they print what the gateway knows, aligned or as JSON; a script can tell from the exit code how a command ended; `tail` shows
both directions, survives a restart of the gateway without losing a line, and escapes control characters; an error is one line with
the gateway's own reason; a closed standard output is a clean end.
"""

import asyncio
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import requests
from harness.cli import Running, ask
from harness.contract import violations
from harness.gateway import binary
from harness.station import Station
from harness.waiting import free_port, wait_for

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


async def in_thread(*arguments, **options):
    """Runs a client while the station's event loop goes on."""
    return await asyncio.to_thread(ask, *arguments, **options)


# -- stations -------------------------------------------------------------------------------------------------------


async def test_stations_are_a_table(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-001") as first, await Station.connect(node, "Z-2", "2.0.1") as second:
        await first.boot()
        await second.boot()
        gone = await Station.connect(node, "CP-003")
        await gone.boot()
        await gone.close()
        wait_for(lambda: not node.get("/api/v1/stations/CP-003").json()["connected"], "it to disconnect")

        result = ask(node, "stations")
        assert (result.returncode, result.stderr) == (0, "")
        heading, *rows = result.stdout.splitlines()
        assert re.fullmatch(r"ID      CONNECTED  VERSION  SINCE {21}LAST SEEN +REGISTRATION  MESSAGES", heading)
        seen = r"(now|\ds ago) +Accepted      1 in, 1 out"
        assert re.fullmatch(rf"CP-001  yes        1\.6      {TIME}  {seen}", rows[0])
        assert re.fullmatch(r"CP-003  no         -        - {25}- +Accepted      -", rows[1])
        assert re.fullmatch(rf"Z-2     yes        2\.0\.1    {TIME}  {seen}", rows[2])

        def shown(*options):
            lines = ask(node, "stations", "--json", *options).stdout.splitlines()
            return [json.loads(line)["id"] for line in lines]

        assert shown() == ["CP-001", "CP-003", "Z-2"]
        assert shown("--connected") == ["CP-001", "Z-2"]
        assert shown("--version", "2.0.1") == ["Z-2"]
        assert shown("--prefix", "cp-") == ["CP-001", "CP-003"]
        line = ask(node, "stations", "--json", "--prefix", "Z").stdout
        shown_by_api = node.get("/api/v1/stations/Z-2").json()
        assert json.loads(line) | {"silentMs": 0} == shown_by_api | {"silentMs": 0}


async def test_more_stations_than_a_page_holds(gateway):
    node = gateway({"log": {"level": "info"}})
    for number in range(1100):
        assert node.put(f"/api/v1/stations/CP-{number:04}/registration", {"status": "Accepted"}).status_code == 200
    lines = ask(node, "stations", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"CP-{number:04}" for number in range(1100)]
    assert len(ask(node, "stations").stdout.splitlines()) == 1101


# -- send -----------------------------------------------------------------------------------------------------------


async def test_a_command_and_its_answer(gateway, tmp_path):
    node = gateway()
    (tmp_path / "payload.json").write_text('{ "type" : "Hard" }\n')
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        cases = [
            (('{ "type" : "Soft" }',), "", '{ "type" : "Soft" }'),
            (("-",), '{"type":"Soft"}\n', '{"type":"Soft"}'),
            ((f"@{tmp_path}/payload.json",), "", '{ "type" : "Hard" }'),
        ]
        for arguments, stdin, expected in cases:
            sending = asyncio.create_task(in_thread(node, "send", "cp-001", "Reset", *arguments, stdin=stdin))
            call = await station.next_call()
            assert station.frames[-1][1].endswith(f',"Reset",{expected}]'), "byte for byte as given"
            await station.answer(call, '{ "status": "Accepted" }')
            result = await sending
            assert (result.returncode, result.stdout, result.stderr) == (0, 'answered {"status":"Accepted"}\n', "")

        sending = asyncio.create_task(in_thread(node, "send", "CP-001", "ClearCache", "--id", "c-1", "--json"))
        call = await station.next_call()
        assert call[2:] == ["ClearCache", {}]
        await station.answer(call, {"status": "Accepted"})
        result = await sending
        assert result.returncode == 0
        assert json.loads(result.stdout) == {
            "commandId": "c-1",
            "stationId": "CP-001",
            "status": "answered",
            "sent": "yes",
            "payload": {"status": "Accepted"},
        }


async def test_a_script_can_tell_how_a_command_ended(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        sending = asyncio.create_task(in_thread(node, "send", "CP-001", "Reset", '{"type":"Soft"}'))
        call = await station.next_call()
        await station.send(json.dumps([4, call[1], "NotSupported", "no \x1b[31m", {"a": 1}]))
        result = await sending
        assert (result.returncode, result.stderr) == (3, "")
        assert result.stdout == 'error NotSupported: no \\u001b[31m {"a":1}\n'

        sending = asyncio.create_task(
            in_thread(node, "send", "CP-001", "Reset", '{"type":"Soft"}', "--timeout", "300ms")
        )
        await station.next_call()
        result = await sending
        assert result.returncode == 4
        assert result.stdout.startswith("timeout: ")
        sending = asyncio.create_task(in_thread(node, "send", "CP-001", "ClearCache", "--timeout-ms", "300"))
        await station.next_call()
        assert (await sending).stdout.startswith("timeout: ")
        result = ask(node, "send", "CP-001", "reset")
        told = 'invalid: "reset" is not an action that a backend may send on OCPP 1.6; did you mean "Reset"?\n'
        assert (result.returncode, result.stdout) == (4, told)
    result = ask(node, "send", "CP-001", "Reset", "--if-offline", "fail")
    assert (result.returncode, result.stdout) == (4, "offline: the station is not connected\n")
    result = ask(node, "send", "CP-O01", "Reset")
    told = 'offline: no station of this identity is known; did you mean "CP-001"?\n'
    assert (result.returncode, result.stdout) == (4, told)
    result = ask(node, "send", "CP-001", "NoSuchAction")
    assert result.returncode == 4
    assert result.stdout.startswith("invalid: ")


def test_invalid_input_is_refused_in_one_line(gateway, tmp_path):
    node = gateway()
    cases = [
        (("send", "CP-001", "Reset", "{type:Soft}"), "the payload is not JSON"),
        (("send", "CP-001", "Reset", ""), 'the payload is empty; it must be a JSON object like {"type":"Soft"}'),
        (("stations", "--version", "1.7"), "version must be one of 1.6, 2.0.1, 2.1 (400 Bad Request)"),
        (("send", "CP-001", "Reset", "[]"), "payload must be an object (400 Bad Request)"),
        (("send", "CP-001", "Reset", f"@{tmp_path}/none"), "cannot read the payload from"),
        (("send", "CP-001", "Reset", "--id", "x" * 200), "commandId"),
        (("disconnect", "CP-001"), 'station "CP-001" is not connected (404 Not Found)'),
        (("tail", "CP-001", "--from", "yesterday"), 'from must be "earliest" or a position'),
    ]
    for arguments, reason in cases:
        result = ask(node, *arguments)
        assert (result.returncode, result.stdout) == (2, ""), arguments
        assert re.fullmatch(rf"ocpp-gateway: .*{re.escape(reason)}.*\n", result.stderr), result.stderr
    for arguments in (("tail",), ("tail", "CP-1", "--all"), ("send", "CP-1"), ("stations", "--admin", "ftp://x")):
        assert ask(node, *arguments).returncode == 2, arguments


def test_an_unreachable_gateway_is_named(gateway):
    nobody = f"127.0.0.1:{free_port()}"
    for arguments in (("stations",), ("send", "CP-1", "Reset"), ("tail", "CP-1"), ("disconnect", "CP-1")):
        result = ask(None, *arguments, "--admin", f"http://{nobody}")
        assert result.returncode == 1
        assert re.fullmatch(rf"ocpp-gateway: cannot connect to {nobody}: .*refused.*\n", result.stderr), result.stderr
    # The flag takes precedence over the environment.
    node = gateway()
    result = ask(None, "stations", "--admin", node.admin_url, OCPP_GATEWAY_ADMIN=f"http://{nobody}")
    assert result.returncode == 0
    result = ask(None, "stations", OCPP_GATEWAY_ADMIN="nonsense")
    assert (result.returncode, result.stderr[:34]) == (2, "ocpp-gateway: OCPP_GATEWAY_ADMIN: ")
    # Something else listens on that port.
    result = ask(None, "stations", "--admin", f"http://127.0.0.1:{node.port}")
    assert result.returncode == 2
    assert "does not answer as a gateway's admin listener does" in result.stderr


# -- tail -----------------------------------------------------------------------------------------------------------


async def test_the_messages_of_one_station(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-002") as other, await Station.connect(node, "CP-001") as station:
        await other.boot()
        await station.boot()
        with Running(node, "tail", "cp-001", "--from", "earliest") as tail:
            port = r"127\.0\.0\.1:\d+"
            assert re.fullmatch(rf"{TIME} connected OCPP 1\.6 from {port}", tail.line())
            assert re.fullmatch(
                rf'{TIME} ← CALL       BootNotification 1 {{"chargePointVendor":"Vendor","chargePointModel":"Model"}}',
                tail.line(),
            )
            assert re.fullmatch(
                rf'{TIME} → CALLRESULT BootNotification 1 {{"status":"Accepted","currentTime":"{TIME}","interval":\d+}}',
                tail.line(),
            )
            await other.call("Heartbeat", {})
            sending = asyncio.create_task(in_thread(node, "send", "CP-001", "Reset", '{"type":"Soft"}', "--id", "c-1"))
            await station.answer(await station.next_call(), {"status": "Accepted"})
            await sending
            line = await asyncio.to_thread(tail.line)
            assert re.fullmatch(rf'{TIME} → CALL       Reset {ID} {{"type":"Soft"}}', line)
            assert re.fullmatch(rf'{TIME} ← CALLRESULT Reset {ID} {{"status":"Accepted"}}', tail.line())
            assert re.fullmatch(rf'{TIME} command answered Reset c-1 {{"status":"Accepted"}}', tail.line())
            await station.send('[2,"x","Heartbeat", {"n" : "\\u001b[2J\u009b"} ]')
            assert re.fullmatch(rf'{TIME} ← CALL       Heartbeat x {{"n":"\\u001b\[2J\\u009b"}}', tail.line())
            tail.line()
            assert ask(node, "disconnect", "CP-001", "--reason", "a test").returncode == 0
            assert re.fullmatch(rf"{TIME} disconnected operator 1000 after \d+\.\d{{3}}s a test", tail.line())


@pytest.mark.parametrize(("variables", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
async def test_colours_are_only_for_terminals(gateway, variables, has_colours):
    node = gateway()
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
    screen, terminal = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | variables
    arguments = [binary(), "tail", "CP-001", "--from", "earliest", "--admin", node.admin_url]
    tail = subprocess.Popen(arguments, stdout=terminal, env=environment)
    os.close(terminal)
    try:
        shown = b""
        while b"disconnected" not in shown:
            shown += await asyncio.wait_for(asyncio.to_thread(os.read, screen, 4096), 15)
    finally:
        tail.kill()
        tail.wait()
        os.close(screen)
    assert (b"\x1b[36m\xe2\x86\x90\x1b[0m CALL" in shown) == has_colours
    assert (b"\x1b" in shown) == has_colours


async def test_all_stations_as_json(gateway):
    node = gateway()
    with (
        Running(node, "tail", "--all", "--json", "--from", "0") as tail,
        Running(node, "tail", "--all", "--from", "0") as lines,
    ):
        async with await Station.connect(node, "CP-001") as station:
            await station.boot()
            events = [json.loads(tail.line()) for _ in range(3)]
            assert [violations(event) for event in events] == [[], [], []]
            assert [event["subject"] for event in events] == ["CP-001"] * 3
            assert re.match(rf"{TIME} CP-001 connected ", lines.line())


async def test_a_tail_resumes_after_a_restart_and_misses_nothing(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-000") as station:
        await station.boot()
    node.await_events(lambda events: len(events) == 4, "a first session")
    arguments = ("tail", "CP-001", "--json", "--from", "earliest")
    with Running(node, *arguments) as tail, Running(node, *arguments) as late:
        async with await Station.connect(node, "CP-001") as station:
            await station.boot()
            seen = [json.loads(tail.line())["id"] for _ in range(3)]
            for _ in range(3):
                late.line()
        seen.append(json.loads(tail.line())["id"])
        late.line()
        node.kill9()
        assert "trying again" in tail.note()
        # One tail is stopped, so that it reconnects only after this session.
        late.process.send_signal(signal.SIGSTOP)
        node.start()
        async with await Station.connect(node, "CP-001") as station:
            for number in range(5):
                await station.call("Heartbeat", {}, id=f"{number}")
        late.process.send_signal(signal.SIGCONT)
        expected = [e.json["id"] for e in node.await_events(lambda e: len(e) == 4 + 12, "all of it", station="CP-001")]
        seen += [json.loads(tail.line())["id"] for _ in range(12)]
        assert seen == expected
        assert [json.loads(late.line())["id"] for _ in range(12)] == expected[4:]


class BreakingStream(BaseHTTPRequestHandler):
    """Sends its position and breaks off; `asked` records the requests."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self):
        self.asked.append((self.path, self.headers["Last-Event-ID"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"id: 41\n\n" if len(self.asked) == 1 else b'id: 42\nevent: t.x\ndata: {"a":\ndata: 1}\n\n')

    def log_message(self, *_):
        pass


def test_a_tail_without_events_resumes_at_its_position():
    with ThreadingHTTPServer(("127.0.0.1", 0), BreakingStream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Running(
            None, "tail", "CP-001", "--from", "7", "--json", "--admin", f"http://127.0.0.1:{server.server_port}"
        ) as tail:
            assert tail.line() == '{"a": 1}'
            assert tail.note() == "ocpp-gateway: the gateway has ended the stream; trying again"
        server.shutdown()
    assert BreakingStream.asked[:2] == [
        ("/api/v1/events?station=CP-001&from=7", None),
        ("/api/v1/events?station=CP-001", "41"),
    ]


async def test_a_stream_begins_with_its_position(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-000") as station:
        await station.boot()
    node.await_events(lambda events: len(events) == 4, "a session")
    with requests.get(f"{node.admin_url}/api/v1/events", stream=True, timeout=10) as stream:
        assert next(stream.iter_lines()) == b"id: 3"


async def test_with_kafka_a_tail_is_live_only_and_says_so(gateway, kafka, topics):
    node = gateway({"bus": {"kind": "kafka", "kafka": {"brokers": kafka.address}}, "topics": topics})
    result = ask(node, "tail", "CP-001", "--from", "earliest")
    assert (result.returncode, "no local log" in result.stderr) == (2, True)

    def until(tail, mark):
        while mark not in (line := tail.line()):
            pass
        return line

    async def seen(tail, station, mark):
        """Nothing announces that a live stream has begun, so the station keeps sending until it is seen."""
        line = asyncio.create_task(asyncio.to_thread(until, tail, mark))
        for number in itertools.count():
            if line.done():
                break
            await station.call("Heartbeat", {}, id=f"{mark}-{number}")
            # The pace of the station.
            await asyncio.sleep(0.05)
        assert re.match(rf"{TIME} [←→] CALL(RESULT|      ) Heartbeat {mark}-", await line)

    with Running(node, "tail", "CP-001") as tail:
        async with await Station.connect(node, "CP-001") as station:
            await station.boot()
            await seen(tail, station, "first")
        node.restart()
        assert tail.note().endswith("; trying again; what happens meanwhile is not shown")
        async with await Station.connect(node, "CP-001") as station:
            await seen(tail, station, "second")


async def test_a_closed_standard_output_is_a_clean_end(gateway):
    node = gateway()
    async with await Station.connect(node, "CP-001") as station:
        await station.boot()
        tail = subprocess.Popen(
            [binary(), "tail", "CP-001", "--from", "earliest", "--admin", node.admin_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert tail.stdout.readline()
        tail.stdout.close()
        await station.call("Heartbeat", {})
        assert await asyncio.to_thread(tail.wait, 15) == 0
        assert tail.stderr.read() == b""
        tail.stderr.close()


# -- disconnect -----------------------------------------------------------------------------------------------------


async def test_a_station_is_disconnected(gateway):
    node = gateway()
    station = await Station.connect(node, "CP-001")
    session = node.get("/api/v1/stations/CP-001").json()["sessionId"]
    other = session[:-4] + "0000"
    result = ask(node, "disconnect", "CP-001", "--session", other)
    assert result.returncode == 2
    assert session in result.stderr
    result = ask(node, "disconnect", "cp-001", "--session", session)
    assert (result.returncode, result.stdout) == (0, f"CP-001: session {session} is asked to end\n")
    assert (await station.closed())[0] == 1000


@pytest.mark.parametrize("command", ["stations", "send", "tail", "disconnect"])
def test_each_has_a_help_text(command):
    result = ask(None, command, "--help")
    assert result.returncode == 0
    assert "--admin <URL>" in result.stdout
