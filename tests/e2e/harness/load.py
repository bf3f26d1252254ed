"""Simulated stations in processes of their own, for tests that break things meanwhile.

Owns starting, controlling and watching the processes (`load_worker.py`), and reading what they wrote. Judges nothing (`verdict.py`).
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .gateway import Gateway
from .waiting import wait_for

_HARNESS_PARENT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Target:
    """Where stations connect: what `Wire.connect` needs to know of a gateway."""

    port: int


@dataclass(frozen=True)
class Settings:
    """What one process does. Times are in seconds."""

    port: int
    history: str
    """The file for the stations' CALLs."""
    numbers: list[int]
    """The stations' numbers; a station's version and behaviour follow from its number."""
    pace: float = 1.0
    """Mean time between a station's CALLs while it is not waiting for an answer."""
    spread: float = 2.0
    """First connections are spread over this time."""
    window: int = 3
    """Open CALLs of a station that does not wait for answers."""
    window_every: int = 10
    """One station in this many does not wait."""
    resend_after: float = 8.0
    """One station in ten repeats a CALL that was not answered for this long, on the same connection."""
    large_every: int = 0
    """One station in this many sends large messages as well; 0: none."""
    large_bytes: int = 0

    @property
    def target(self) -> Target:
        return Target(self.port)

    @classmethod
    def parse(cls, text: str) -> "Settings":
        return cls(**json.loads(text))


@dataclass
class Status:
    """What the stations are doing at one moment."""

    connected: int = 0
    booted: int = 0
    sent: int = 0
    open: int = 0
    """CALLs without an answer."""
    waiting: float = 0.0
    """How long the oldest open CALL has waited."""
    refusals: int = 0
    """Refused connections."""
    closes: Counter[str] = field(default_factory=Counter)
    """How connections ended, by the gateway's close code."""

    @property
    def answered(self) -> int:
        return self.sent - self.open


@dataclass(frozen=True)
class CallHistory:
    """One CALL of one station with all its transmissions. Times are of the monotonic clock."""

    id: str
    action: str
    sent: float
    answered: float | None
    sends: int


@dataclass
class History:
    """What all stations sent and were answered."""

    calls: dict[str, list[CallHistory]] = field(default_factory=dict)
    """Station -> its CALLs in the order in which they were first sent."""
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    answers_again: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)

    def read(self, file: Path) -> None:
        """Adds what one process has written."""
        written = json.loads(file.read_text(encoding="utf-8"))
        for station in written["stations"]:
            self.calls[station["identity"]] = [CallHistory(*call) for call in station["calls"]]
            self.faults += station["faults"]
            self.connections += station["connections"]
            self.answers_again += station["answersAgain"]
        self.refusals.update(written["refusals"])
        self.closes.update(written["closes"])


class Load:
    """Stations in processes of their own, from `start` to `finish`."""

    def __init__(
        self, gateway: Gateway, directory: Path, stations: int, *, processes: int = 1, **settings: Any
    ) -> None:
        """`settings` are those of `Settings`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.stations = stations
        self._workers = [
            _Worker(
                Settings(
                    port=gateway.port,
                    history=str(directory / f"stations-{index}.json"),
                    numbers=list(range(index, stations, processes)),
                    **settings,
                )
            )
            for index in range(processes)
        ]

    def start(self) -> "Load":
        """Waits until every station is registered."""
        self.open()
        self.until(lambda status: status.booted == self.stations, "every station to be registered", 60)
        return self

    def open(self) -> "Load":
        """Starts the processes without waiting for anything."""
        for worker in self._workers:
            worker.start()
        return self

    @property
    def status(self) -> Status:
        """The sum of all processes."""
        total = Status()
        for worker in self._workers:
            assert worker.process.poll() in (None, 0), "a process of stations ended early"
            total.connected += worker.status.connected
            total.booted += worker.status.booted
            total.sent += worker.status.sent
            total.open += worker.status.open
            total.refusals += worker.status.refusals
            total.closes.update(worker.status.closes)
            total.waiting = max(total.waiting, worker.status.waiting)
        return total

    def until(self, done: Callable[[Status], bool], what: str, timeout: float) -> Status:
        """Waits until the stations' status satisfies `done`."""

        def look() -> Status | None:
            status = self.status
            return status if done(status) else None

        try:
            return wait_for(look, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the stations: {self.status}") from None

    def answers(self, more: int, timeout: float) -> Status:
        """Waits for this many more answers."""
        wanted = self.status.answered + more
        return self.until(lambda status: status.answered >= wanted, f"{more} more answers", timeout)

    def drain(self, timeout: float) -> bool:
        """Stops new CALLs; returns whether every station got its answers and disconnected in time."""
        for worker in self._workers:
            worker.send("drain")
        try:
            wait_for(lambda: not any(worker.is_running for worker in self._workers), "answers", timeout)
        except AssertionError:
            return False
        return True

    def finish(self) -> History:
        """Ends what is still running, and reads what the stations sent and were answered."""
        history = History()
        for worker in self._workers:
            worker.end()
            history.read(Path(worker.settings.history))
        return history

    def kill(self) -> None:
        """Kills the processes, at the end of a failed test."""
        for worker in self._workers:
            worker.kill()


class _Worker:
    """One process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.status = Status()
        self.process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.load_worker", json.dumps(asdict(self.settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_HARNESS_PARENT,
            env=os.environ | {"PYTHONPATH": str(_HARNESS_PARENT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.status = Status(**json.loads(line))

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, command: str) -> None:
        if self.is_running:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        self.send("end")
        assert self.process.wait(30) == 0, "a process of stations failed"
        self._reader.join()

    def kill(self) -> None:
        if self.is_running:
            self.process.kill()
            self.process.wait()
