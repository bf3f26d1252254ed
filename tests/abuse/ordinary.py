"""Ordinary stations beside the abusers: those that stay connected, and new ones that connect in between.

Owns the load test's process and its report, and the probes. Returns what they experienced in a span of time.
"""

import json
import os
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.gateway import REPOSITORY, Gateway, to_toml
from harness.raw import RawStation

from .frames import BOOT_CALL

STATIONS = 1000
CALLS_PER_SECOND = 200.0
CONNECT_SECONDS = 3.0
PROBE_EVERY_SECONDS = 0.5
PROBE_PATIENCE_SECONDS = 90.0


@dataclass(frozen=True)
class Felt:
    """Latency of the connected stations in milliseconds: the median second's p50 and p99, and the longest of all."""

    p50: float
    p99: float
    longest: float
    lag_p99: float
    """Send lag of the load test itself in the median second: latency below this is not the gateway's."""
    answered: float
    """CALLs per second."""


class Ordinary:
    """The stations that stay: `ocpp-loadtest` in open loop."""

    def __init__(self, node: Gateway, binary: Path, directory: Path) -> None:
        self._directory = directory
        scenario = {
            "about": "ordinary stations beside abusers",
            "stations": STATIONS,
            # It is stopped after the last abuse.
            "duration": "1h",
            "settle": "20s",
            "connect": {"over": f"{CONNECT_SECONDS:g}s"},
            "traffic": {"messages_per_second": CALLS_PER_SECOND},
            # Whether the load test kept up is reported for each abuse.
            "limits": {"send_lag_p99": "1h"},
        }
        file = directory / "ordinary.toml"
        file.write_text(to_toml(scenario))
        command = [binary, "run", file, "--target", node.ws_url("").rstrip("/"), "--admin", node.admin_url]
        command += ["--verify", "after", "--quiet", "--out", directory]
        self._log = directory / "loadtest.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def finish(self) -> "Account":
        """Ends the run and waits for the load test's report."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(120)
        report = self._directory / "ordinary.json"
        assert report.is_file(), f"the load test ended with code {code}:\n{self._log.read_text()}"
        return Account(json.loads(report.read_text()))

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Account:
    """The load test's report."""

    def __init__(self, report: dict[str, Any]) -> None:
        self._report = report
        self._began = datetime.fromisoformat(report["started"]).timestamp()

    def felt(self, begin: float, end: float) -> Felt:
        """Between two moments, by `time.time`. Seconds that are only partly inside do not count."""
        points = [
            point
            for point in self._report["timeline"]
            if begin <= self._began + point["at"] - 1.0 and self._began + point["at"] <= end
        ]
        assert points, "no whole second of the load test"
        latencies = [point["latency"] for point in points]
        return Felt(
            p50=statistics.median(one["p50"] for one in latencies),
            p99=statistics.median(one["p99"] for one in latencies),
            longest=max(one["max"] for one in latencies),
            lag_p99=statistics.median(point["lagP99"] for point in points),
            answered=statistics.fmean(point["answered"] for point in points),
        )

    def summary(self) -> dict[str, Any]:
        """Of the whole run."""
        counts = self._report["counts"]
        return {
            "judgement": self._report["outcome"],
            "sent": counts["sent"],
            "answered": counts["answered"],
            "connections": counts["connects"],
            "ends": self._report["ends"],
            "verdict": self._report["verification"]["verdict"],
        }

    def complaints(self) -> list[str]:
        """Damage that the figures of a single abuse do not show."""
        return [*self._report["outcome"]["faults"], *self._report["outcome"]["invalid"]]


class Probes:
    """New stations, one every half second: connect, upgrade, BootNotification answered."""

    def __init__(self, node: Gateway, name: str) -> None:
        self._node, self._name = node, name
        self.waits: list[float] = []
        """Seconds until the answer."""
        self.failures: list[str] = []
        self._stop_asked = threading.Event()
        self._threads: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._send_all, daemon=True)
        self._clock.start()

    def finish(self) -> None:
        """Starts no new ones, and waits for those in progress."""
        self._stop_asked.set()
        self._clock.join()
        for thread in self._threads:
            thread.join(PROBE_PATIENCE_SECONDS)

    def _send_all(self) -> None:
        while not self._stop_asked.wait(PROBE_EVERY_SECONDS):
            identity = f"NEW-{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._probe, args=(identity,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _probe(self, identity: str) -> None:
        began = time.monotonic()
        try:
            with RawStation(self._node.port, PROBE_PATIENCE_SECONDS) as station:
                status = station.upgrade(f"/ocpp/{identity}").status
                assert status == 101, f"HTTP {status}"
                station.send(BOOT_CALL)
                station.message()
                self.waits.append(time.monotonic() - began)
        except (OSError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")


def loadtest_binary() -> Path:
    """The load test's binary, beside the gateway's."""
    path = Path(os.environ.get("OCPP_LOADTEST_BIN", REPOSITORY / "target" / "release" / "ocpp-loadtest"))
    assert path.is_file(), f"{path} is not there: build it with `cargo build --release`, or set OCPP_LOADTEST_BIN"
    return path
