"""Where a scenario runs: one Kafka, one gateway, many stations, and the comparison at the end.

Owns starting the parts, waiting for states, and turning the outcome into a row of the table. Knows no faults
(`scenarios.py`, `undeliverable.py`, `corruption.py`).
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.broker import Broker
from harness.gateway import Gateway, merged
from harness.load import Load
from harness.verdict import Verdict, compare
from harness.waiting import wait_for

STATIONS = 600
PROCESSES = 2
SPOOL_AFTER = 5.0
# With a spool, a station whose answer takes longer than this was stopped by the outage.
LONGEST_WITH_SPOOL = SPOOL_AFTER + 10.0


class WatchedGateway(Gateway):
    """A gateway that records the peak memory of all its processes."""

    peak_rss = 0
    """Bytes."""

    def note_memory(self) -> None:
        if not self.running:
            return
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        if found:
            self.peak_rss = max(self.peak_rss, int(found[1]) * 1024)

    def kill9(self) -> None:
        self.note_memory()
        super().kill9()

    def sigterm(self, timeout: float = 30.0) -> int:
        self.note_memory()
        return super().sigterm(timeout)

    @property
    def bus(self) -> dict[str, Any]:
        """The bus's part of `/health`."""
        return self.get("/health").json()["bus"]

    def until_state(self, *states: str, timeout: float = 60.0) -> str:
        """Waits until the bus is in one of these states."""
        return wait_for(
            lambda: next((state for state in states if self.bus["state"] == state), None),
            f"the bus to be {' or '.join(states)}",
            timeout,
            0.02,
        )

    def is_settled(self) -> bool:
        """Kafka has everything."""
        bus = self.bus
        return bus["state"] == "direct" and bus["inFlightRecords"] == 0 and not (bus["spool"] or {}).get("records")


@dataclass
class Row:
    """One line of the table."""

    scenario: str
    verdict: Verdict | None = None
    peak_rss: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_passed(self) -> bool:
        return not self.failures


class Stage:
    """The parts of one scenario. Use it with `with`, which ends everything that it started."""

    def __init__(self, name: str, directory: Path, *, quick: bool) -> None:
        self.row = Row(name)
        self.directory = directory
        self.quick = quick
        self.broker: Broker | None = None
        self.gateway: WatchedGateway | None = None
        self.load: Load | None = None
        self.topics: dict[str, str] = {}
        self.closing = ExitStack()
        self.was_killed = False
        self.longest_wait: float | None = None
        """Seconds that a station may wait at most; None: no limit."""
        self._began = time.monotonic()
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()
        self.row.seconds = time.monotonic() - self._began

    # -- parts --------------------------------------------------------------------------------------------------

    def outage(self, full: float) -> float:
        """How long an outage lasts, in seconds."""
        return min(full, 8.0 + full / 10) if self.quick else full

    def repetitions(self, full: int) -> int:
        return max(2, full // 5) if self.quick else full

    def prepare_kafka(self) -> Broker:
        """The stage's Kafka, not started."""
        self.broker = Broker(self.directory / "kafka")
        self.closing.callback(self.broker.clean)
        return self.broker

    def start_kafka(self) -> Broker:
        return self.prepare_kafka().start()

    def prepare_gateway(self, config: dict[str, Any] | None = None, *, spool: bool) -> WatchedGateway:
        """A gateway on the stage's Kafka, not started."""
        self.topics = self.topics or self.broker.fresh_topics()
        base: dict[str, Any] = {
            "bus": {"kind": "kafka", "kafka": {"brokers": self.broker.address}},
            "topics": self.topics,
            "log": {"level": "info"},
        }
        if spool:
            base["bus"]["spool"] = {"dir": str(self.directory / "spool"), "after": f"{SPOOL_AFTER:g}s"}
            self.longest_wait = LONGEST_WITH_SPOOL
        self.gateway = WatchedGateway(self.directory / "gateway", merged(base, config or {}))
        self.closing.callback(self.gateway.kill9)
        return self.gateway

    def start_gateway(self, config: dict[str, Any] | None = None, *, spool: bool) -> WatchedGateway:
        gateway = self.prepare_gateway(config, spool=spool)
        gateway.start(until="/livez")
        return gateway

    def prepare_load(self, stations: int = STATIONS, **settings: Any) -> Load:
        self.load = Load(self.gateway, self.directory / "stations", stations, processes=PROCESSES, **settings)
        self.closing.callback(self.load.kill)
        return self.load

    def start_load(self, stations: int = STATIONS, **settings: Any) -> Load:
        """Waits until every station is registered and the load is steady."""
        return self.prepare_load(stations, **settings).start()

    def play(self, *, spool: bool, config: dict[str, Any] | None = None) -> None:
        """Starts Kafka, the gateway and the stations, and waits until all is well."""
        (self.broker or self.prepare_kafka()).start()
        self.start_gateway(config, spool=spool)
        self.start_load()
        self.go_on()

    def go_on(self, answers_each: float = 2.0, timeout: float = 60.0) -> None:
        """Waits until every station has this many more answers, on average."""
        self.load.answers(int(answers_each * self.load.stations), timeout)

    def kill_gateway(self) -> None:
        self.was_killed = True
        self.gateway.kill9()

    def restart_gateway(self) -> None:
        self.gateway.start(until="/livez")

    # -- what is found ------------------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self.row.notes.append(text)

    def expect(self, condition: object, text: str) -> None:
        """Notes a failure if a condition of the scenario does not hold; the scenario continues."""
        if not condition:
            self.row.failures.append(text)

    def attempt(self, action: Callable[[], Any], text: str) -> bool:
        """Like `expect`, for something that is waited for."""
        try:
            action()
        except AssertionError as error:
            self.row.failures.append(f"{text}: {error}")
            return False
        return True

    def settle(self, *, timeout: float = 90.0) -> Verdict:
        """Ends a scenario: waits until every station is answered and Kafka has everything, and compares the two."""
        gateway, load = self.gateway, self.load
        self.expect(
            load.drain(timeout), f"not every station was answered within {timeout:g} s after the fault: {load.status}"
        )
        self.attempt(lambda: wait_for(gateway.is_settled, "Kafka to have everything", timeout), "at the end")
        if gateway.running:
            code = gateway.sigterm()
            self.expect(code == 0, f"after SIGTERM the gateway ended with {code}")
        else:
            self.expect(False, "the gateway has ended by itself")
        self.expect("panicked at" not in gateway.log_text(), "the gateway panicked")
        history = load.finish()
        verdict = compare(
            history,
            self.broker.records(self.topics["events"]),
            dead_letters=self.dead_letters(),
            gateway_was_killed=self.was_killed,
        )
        self.row.verdict, self.row.peak_rss = verdict, gateway.peak_rss
        for fault, examples in verdict.faults.items():
            self.row.failures.append(f"{fault} {', '.join(examples)}".rstrip())
        if self.longest_wait is not None:
            self.expect(
                verdict.longest_wait <= self.longest_wait,
                f"a station waited {verdict.longest_wait:.1f} s, longer than {self.longest_wait:g} s",
            )
        closes = {code: count for code, count in sorted(history.closes.items()) if code != "1000"}
        if closes or history.refusals:
            self.note(f"connections closed: {closes}, refused: {dict(history.refusals)}")
        return verdict

    def dead_letters(self) -> list[dict[str, Any]]:
        """Events that the gateway keeps because Kafka never accepts them."""
        found: list[dict[str, Any]] = []
        decoder = json.JSONDecoder()
        for file in sorted((self.gateway.data_dir / "undelivered").glob("*.json")):
            text = file.read_text(encoding="utf-8").lstrip()
            while text:
                one, end = decoder.raw_decode(text)
                found.append(one)
                text = text[end:].lstrip()
        return found
