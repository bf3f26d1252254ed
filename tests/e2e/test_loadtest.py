"""The load test against the real gateway: it passes when nothing is wrong, and reports what is.

`OCPP_LOADTEST_BIN` names its binary; otherwise it is beside the gateway's.
"""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from harness.gateway import Gateway, binary, to_toml
from harness.waiting import wait_for

# Some CALLs of every kind in a few seconds, on a machine that may be slow.
SMALL: dict[str, Any] = {
    "stations": 60,
    "duration": "4s",
    "settle": "20s",
    "workers": 2,
    "connect": {"over": "1s"},
    "reconnect": {"first": "200ms", "longest": "1s"},
    "traffic": {"messages_per_second": 150.0, "meter_values_per_session": 3},
    "limits": {"send_lag_p99": "2s"},
}
PASSED, FAILED, USAGE, INVALID = 0, 1, 2, 3


@dataclass
class Result:
    code: int
    output: str
    report: dict[str, Any]
    page: str

    @property
    def verdict(self) -> dict[str, Any]:
        return self.report["verification"]["verdict"]

    @property
    def counts(self) -> dict[str, int]:
        return self.report["counts"]


class Loadtest:
    """One run of the binary."""

    def __init__(self, node: Gateway, folder: Path, scenario: str | dict[str, Any], *arguments: str) -> None:
        self.folder = folder
        name = scenario
        if isinstance(scenario, dict):
            file = folder / "small.toml"
            file.write_text(to_toml(scenario), encoding="utf-8")
            name = str(file)
        program = os.environ.get("OCPP_LOADTEST_BIN", binary().parent / "ocpp-loadtest")
        given = [] if "--admin" in arguments else ["--admin", node.admin_url]
        self.process = subprocess.Popen(
            [
                program,
                "run",
                name,
                "--target",
                f"ws://127.0.0.1:{node.port}/ocpp",
                "--out",
                folder / "out",
                "--watch",
                f"gateway={node.process.pid}",
                *given,
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def result(self, timeout: float = 90) -> Result:
        try:
            output, _ = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        written = list((self.folder / "out").glob("*.json"))
        report = json.loads(written[0].read_text(encoding="utf-8")) if written else {}
        page = written[0].with_suffix(".html").read_text(encoding="utf-8") if written else ""
        return Result(self.process.returncode, output, report, page)


def run(node: Gateway, folder: Path, scenario: str | dict[str, Any], *arguments: str) -> Result:
    return Loadtest(node, folder, scenario, *arguments).result()


def kafka_config(broker, topics):
    return {"bus": {"kind": "kafka", "kafka": {"brokers": broker.address}}, "topics": topics}


# -- nothing is wrong -------------------------------------------------------------------------------------------


def check_passed(result: Result) -> None:
    assert result.code == PASSED, result.output
    assert result.report["schema"] == "ocpp-loadtest/1"
    assert result.report["outcome"] == {"judgement": "passed", "faults": [], "invalid": []}
    assert result.counts["registered"] == result.report["scenario"]["stations"]
    assert result.verdict["lost"] == result.verdict["duplicated"] == result.verdict["reordered"] == 0
    # It has really looked.
    answered = result.counts["answered"] + result.counts["misbehavedAnswered"]
    assert result.verdict["answered"] == answered > 1000
    assert result.verdict["calls"] >= answered
    assert result.report["latency"]["count"] == result.counts["answered"]
    assert result.page.count("<figure") == 7
    assert "http://" not in result.page.replace(result.report["verification"]["source"], "")


def test_quick_passes_on_the_local_log(gateway, tmp_path):
    node = gateway()
    result = run(node, tmp_path, "quick")
    check_passed(result)
    counted = node.metric("ocpp_gateway_calls_total")
    assert counted >= result.counts["sent"], "the gateway counts at least the CALLs that were sent"
    assert result.report["commands"]["outcomes"]["answered"] > 20
    assert result.counts["cut"] == 200
    assert len(result.report["timeline"]) > 10
    assert max(point["connected"] for point in result.report["timeline"]) == 200
    assert result.report["watched"][0]["cpuSeconds"] > 0


def test_quick_passes_on_kafka(gateway, kafka, topics, tmp_path):
    node = gateway(kafka_config(kafka, topics))
    result = run(node, tmp_path, "quick", "--bus", "kafka", "--kafka", kafka.address, "--topic", topics["events"])
    check_passed(result)
    assert result.report["timeline"][5]["gateway"]["busStates"] == ["direct"]


@pytest.mark.parametrize("when", ["during", "after"])
def test_events_of_an_earlier_run_are_ignored(gateway, tmp_path, when):
    node = gateway()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        result = run(node, tmp_path / place, SMALL, "--verify", when)
        assert result.code == PASSED, result.output


def test_a_gateway_that_is_killed_loses_nothing_that_was_answered(gateway, tmp_path):
    node = gateway()
    limits = {"connections": 0.1, "disconnects": 1000, "send_lag_p99": "2s"}
    small = SMALL | {"duration": "8s", "limits": limits}
    loadtest = Loadtest(node, tmp_path, small, "--gateway-restarts")
    wait_for(lambda: node.metric("ocpp_gateway_calls_total") > 400, "traffic", timeout=30)
    node.kill9()
    node.start()
    result = loadtest.result()
    assert result.code == PASSED, result.output
    assert result.counts["disconnects"] >= 60
    assert result.counts["answered"] == result.counts["sent"] == result.verdict["answered"] > 800
    assert result.verdict["lost"] == 0


# -- something is wrong -----------------------------------------------------------------------------------------


@contextmanager
def tampering(node: Gateway, change: Callable[[list[str]], list[str]]) -> Iterator[str]:
    """An admin listener that forwards everything, with the log's events altered by `change`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            answer = requests.get(node.admin_url + self.path, timeout=30)
            body = answer.content
            if self.path.startswith("/api/v1/events"):
                messages = body.decode("utf-8").split("\n\n")
                body = "\n\n".join(change(messages)).encode("utf-8")
            self.send_response(answer.status_code)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def calls(messages: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """Place and event of every CALL in the middle of the log."""
    found = []
    for place, message in enumerate(messages):
        data = [line.removeprefix("data: ") for line in message.split("\n") if line.startswith("data: ")]
        event = json.loads("\n".join(data)) if data else {}
        if event.get("data", {}).get("messageType") == "CALL":
            found.append((place, event))
    return found[len(found) // 2 :]


def without_one(messages: list[str]) -> list[str]:
    for place, _ in calls(messages)[:1]:
        del messages[place]
    return messages


def with_a_copy(messages: list[str]) -> list[str]:
    for place, event in calls(messages)[:1]:
        other = event["id"][:-12] + "0123456789ab"
        messages.insert(place + 1, messages[place].replace(event["id"], other))
    return messages


def with_two_swapped(messages: list[str]) -> list[str]:
    places: dict[str, int] = {}
    for place, event in calls(messages):
        before = places.setdefault(event["subject"], place)
        if before != place:
            messages[before], messages[place] = messages[place], messages[before]
            break
    return messages


@pytest.mark.parametrize(
    ("change", "fault"),
    [(without_one, "lost"), (with_a_copy, "duplicated"), (with_two_swapped, "reordered")],
)
def test_a_single_wrong_event_fails_the_run(gateway, tmp_path, change, fault):
    node = gateway()
    with tampering(node, change) as admin:
        result = run(node, tmp_path, SMALL, "--verify", "after", "--admin", admin)
    assert result.code == FAILED, result.output
    assert result.verdict[fault] == 1, result.output
    assert result.report["outcome"]["faults"] == [f"{fault}: 1"]
    assert any(example.startswith(fault) for example in result.verdict["examples"])


def test_a_topic_without_the_events_fails_the_run(gateway, kafka, topics, tmp_path):
    node = gateway(kafka_config(kafka, topics))
    elsewhere = topics["command_results"]
    result = run(node, tmp_path, SMALL, "--bus", "kafka", "--kafka", kafka.address, "--topic", elsewhere)
    assert result.code == FAILED, result.output
    assert result.verdict["lost"] == result.counts["answered"] > 400


def test_a_missed_limit_fails_the_run(gateway, tmp_path):
    limits = {"p99": "1us", "send_lag_p99": "2s"}
    result = run(gateway(), tmp_path, SMALL | {"limits": limits})
    assert result.code == FAILED, result.output
    assert len(result.report["outcome"]["faults"]) == 1
    assert "p99 latency" in result.report["outcome"]["faults"][0]


def test_a_load_test_that_sends_late_is_invalid(gateway, tmp_path):
    result = run(gateway(), tmp_path, SMALL, "--send-lag-limit", "1ns")
    assert result.code == INVALID, result.output
    assert "INVALID" in result.output
    assert "sent late" in result.report["outcome"]["invalid"][0]


def test_a_worker_that_dies_makes_the_run_invalid(gateway, tmp_path):
    node = gateway()
    loadtest = Loadtest(node, tmp_path, SMALL)
    wait_for(lambda: node.metric("ocpp_gateway_calls_total") > 100, "traffic", timeout=30)
    pid = loadtest.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    names = {child: Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    os.kill(int(next(child for child, name in names.items() if b"worker" in name)), signal.SIGKILL)
    result = loadtest.result()
    assert result.code == INVALID, result.output
    assert any("ended before its time" in reason for reason in result.report["outcome"]["invalid"])


def test_an_interrupted_run_reports_what_it_has(gateway, tmp_path):
    node = gateway()
    loadtest = Loadtest(node, tmp_path, SMALL | {"duration": "10m"})
    wait_for(lambda: node.metric("ocpp_gateway_calls_total") > 500, "traffic", timeout=30)
    loadtest.process.send_signal(signal.SIGINT)
    result = loadtest.result(timeout=30)
    assert result.code == PASSED, result.output
    assert result.report["interrupted"]
    assert result.counts["answered"] == result.counts["sent"] == result.verdict["answered"] >= 300


def test_usage(gateway, tmp_path):
    node = gateway()
    result = run(node, tmp_path, "no-such-scenario")
    assert result.code == USAGE
    assert "reference-12k" in result.output, "it lists the built-in ones"
    wrong = run(node, tmp_path, SMALL | {"statoins": 5})
    assert wrong.code == USAGE
    assert "statoins" in wrong.output
