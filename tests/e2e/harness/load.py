"""Load on a gateway from processes of simulated stations, seen from the test that breaks things meanwhile.

Owns starting, steering and watching the processes (`load_worker.py`), and reading what they wrote. Does not judge (`verdict.py`).
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
class Door:
    """Where stations connect: what `Wire.connect` needs of a gateway."""

    port: int


@dataclass(frozen=True)
class Settings:
    """What one process of stations does. Times in seconds."""

    port: int
    account: str
    """The file for the accounts."""
    numbers: list[int]
    """The stations' numbers; the version and the habits of a station follow from its number."""
    pace: float = 1.0
    """Mean time from one CALL of a station to the next, when it is not waiting for an answer."""
    spread: float = 2.0
    """The first connections are spread over this long."""
    window: int = 3
    """CALLs that a station has open at once, if it is one that does not wait."""
    window_every: int = 10
    """One in so many does not wait."""
    resend_after: float = 8.0
    """One in ten sends a CALL again that was not answered for so long on a connection that still stands."""
    large_every: int = 0
    """One in so many sends large messages too; 0: none."""
    large_bytes: int = 0

    @property
    def door(self) -> Door:
        return Door(self.port)

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
    """How long the oldest of them has waited."""
    refusals: int = 0
    """Connections that were refused, by anyone."""
    closes: Counter[str] = field(default_factory=Counter)
    """How connections ended, by the gateway's close code."""

    @property
    def answered(self) -> int:
        return self.sent - self.open


@dataclass(frozen=True)
class Account:
    """One CALL of one station over all its transmissions. Times are of the monotonic clock."""

    id: str
    action: str
    sent: float
    answered: float | None
    sends: int


@dataclass
class Accounts:
    """The stations' side of the story."""

    calls: dict[str, list[Account]] = field(default_factory=dict)
    """Station -> its CALLs in the order in which they were first sent."""
    faults: list[str] = field(default_factory=list)
    connections: int = 0
    answers_again: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)

    def read(self, file: Path) -> None:
        """Adds what one process wrote."""
        written = json.loads(file.read_text(encoding="utf-8"))
        for station in written["stations"]:
            self.calls[station["identity"]] = [Account(*call) for call in station["calls"]]
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
                    account=str(directory / f"stations-{index}.json"),
                    numbers=list(range(index, stations, processes)),
                    **settings,
                )
            )
            for index in range(processes)
        ]

    def start(self) -> "Load":
        """Returns when every station is registered."""
        self.open()
        self.until(lambda status: status.booted == self.stations, "every station to be registered", 60)
        return self

    def open(self) -> "Load":
        """Starts the processes and waits for nothing."""
        for worker in self._workers:
            worker.start()
        return self

    @property
    def status(self) -> Status:
        """All processes together."""
        total = Status()
        for worker in self._workers:
            assert worker.process.poll() in (None, 0), "a process of stations ended before its time"
            total.connected += worker.status.connected
            total.booted += worker.status.booted
            total.sent += worker.status.sent
            total.open += worker.status.open
            total.refusals += worker.status.refusals
            total.closes.update(worker.status.closes)
            total.waiting = max(total.waiting, worker.status.waiting)
        return total

    def until(self, done: Callable[[Status], bool], what: str, timeout: float) -> Status:
        """Waits until the stations are so far."""

        def look() -> Status | None:
            status = self.status
            return status if done(status) else None

        try:
            return wait_for(look, what, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the stations: {self.status}") from None

    def answers(self, more: int, timeout: float) -> Status:
        """Waits for so many more answers."""
        wanted = self.status.answered + more
        return self.until(lambda status: status.answered >= wanted, f"{more} more answers", timeout)

    def rest(self, timeout: float) -> bool:
        """No new CALLs; says whether every station got all its answers in time and left."""
        for worker in self._workers:
            worker.tell("rest")
        try:
            wait_for(lambda: not any(worker.is_running for worker in self._workers), "answers", timeout)
        except AssertionError:
            return False
        return True

    def finish(self) -> Accounts:
        """Ends what still runs, and reads the accounts."""
        accounts = Accounts()
        for worker in self._workers:
            worker.end()
            accounts.read(Path(worker.settings.account))
        return accounts

    def kill(self) -> None:
        """The end of a test that failed."""
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

    def tell(self, command: str) -> None:
        if self.is_running:
            self.process.stdin.write(command.encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> None:
        self.tell("end")
        assert self.process.wait(30) == 0, "a process of stations failed"
        self._reader.join()

    def kill(self) -> None:
        if self.is_running:
            self.process.kill()
            self.process.wait()
