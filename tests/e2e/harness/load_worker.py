"""A process of stations that behave as real ones do when things break.

    python -m harness.load_worker SETTINGS     SETTINGS is the JSON of `load.Settings`

A station boots, then sends at its pace: heartbeats, statuses, transactions with meter values. It waits for each answer (some have
several CALLs open). When its connection ends it reconnects with backoff and repeats what was not answered: with the same message id,
the same content, in the same order. Some also repeat a CALL on a connection that stays silent.

Owns one process's stations and the history of their CALLs; judges nothing (`verdict.py`). Commands are lines on stdin: `drain` (no new
CALLs; disconnect once everything is answered) and `end` (write the history and exit, whatever is missing). A status line of JSON is
written to stdout several times a second. When stdin ends, so does the process.
"""

import asyncio
import base64
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .load import Settings
from .station import BOOT
from .wire import RefusedError, Wire

VERSIONS = ("1.6", "2.0.1", "2.1")
TIME = "2026-01-01T00:00:00.000Z"
STATUS_EVERY = 0.2
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 4.0
METER_VALUES_OF_A_TRANSACTION = 4


class Call:
    """One CALL with all its transmissions."""

    __slots__ = ("action", "answered", "id", "sends", "sent", "text", "transmitted")

    def __init__(self, id: str, action: str, payload: dict[str, Any]) -> None:
        self.id, self.action = id, action
        self.text = json.dumps([2, id, action, payload], separators=(",", ":"))
        self.sends = 0
        self.sent = self.transmitted = 0.0
        self.answered: float | None = None


class PersistentStation:
    """One station, across all its connections."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.settings = settings
        self.version = VERSIONS[number % len(VERSIONS)]
        self.identity = f"CP-{number:04}"
        self.window = settings.window if number % settings.window_every == 0 else 1
        self.resend_after = settings.resend_after if number % 10 == 1 else None
        self.calls: list[Call] = []
        self.open: dict[str, Call] = {}
        self.faults: list[str] = []
        self.answers_again = 0
        self.connections = 0
        self.is_connected = False
        self._random = random.Random(number)
        self._draining = False
        self._wake = asyncio.Event()
        self._transaction: int | str = -1
        self._script = self._talk()
        self._is_large = settings.large_every > 0 and number % settings.large_every == 0
        # Incompressible text.
        self._large = base64.b64encode(self._random.randbytes(settings.large_bytes * 3 // 4)).decode()

    # -- what it sends ------------------------------------------------------------------------------------------

    def _talk(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "BootNotification", BOOT[self.version]
        is_16 = self.version == "1.6"
        number = 0
        while True:
            number += 1
            yield self._status("Preparing" if is_16 else "Occupied")
            yield "Heartbeat", {}
            if is_16:
                yield "StartTransaction", {"connectorId": 1, "idTag": "TAG", "meterStart": number, "timestamp": TIME}
            else:
                self._transaction = f"T{number}"
                yield self._event("Started", 0)
            for step in range(METER_VALUES_OF_A_TRANSACTION):
                yield self._meter(number, step) if is_16 else self._event("Updated", 1 + step)
            if self._is_large:
                yield "DataTransfer", {"vendorId": "large", "data": self._large}
            if is_16:
                yield (
                    "StopTransaction",
                    {"transactionId": self._transaction, "meterStop": number, "timestamp": TIME},
                )
            else:
                yield self._event("Ended", 9)
                yield "MeterValues", {"evseId": 1, "meterValue": [self._sample(number)]}
            yield self._status("Available")

    def _status(self, status: str) -> tuple[str, dict[str, Any]]:
        if self.version == "1.6":
            return "StatusNotification", {"connectorId": 1, "errorCode": "NoError", "status": status}
        return (
            "StatusNotification",
            {"timestamp": TIME, "connectorStatus": status, "evseId": 1, "connectorId": 1},
        )

    def _sample(self, value: int) -> dict[str, Any]:
        # Most real samples are longer.
        shown: Any = f"{value}.50" if self.version == "1.6" else value + 0.5
        return {"timestamp": TIME, "sampledValue": [{"value": shown, "measurand": "Energy.Active.Import.Register"}]}

    def _meter(self, number: int, step: int) -> tuple[str, dict[str, Any]]:
        payload = {
            "connectorId": 1,
            "transactionId": self._transaction,
            "meterValue": [self._sample(number * 100 + step)],
        }
        return "MeterValues", payload

    def _event(self, kind: str, number: int) -> tuple[str, dict[str, Any]]:
        return "TransactionEvent", {
            "eventType": kind,
            "timestamp": TIME,
            "triggerReason": "MeterValuePeriodic",
            "seqNo": number,
            "transactionInfo": {"transactionId": self._transaction},
            "meterValue": [self._sample(number)],
        }

    # -- its lifecycle ------------------------------------------------------------------------------------------

    def drain(self) -> None:
        self._draining = True
        self._wake.set()

    async def run(self, refusals: Counter[str], closes: Counter[str]) -> None:
        """Returns once it is draining and everything is answered."""
        await asyncio.sleep(self._random.random() * self.settings.spread)
        pause = FIRST_PAUSE
        while not (self._draining and not self.open):
            try:
                wire = await Wire.connect(self.settings.target, self.identity, self.version, timeout=20)
            except (OSError, RefusedError, TimeoutError) as error:
                refusals[str(error.status) if isinstance(error, RefusedError) else type(error).__name__] += 1
                await asyncio.sleep(pause * (0.5 + self._random.random()))
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            pause = FIRST_PAUSE
            self.connections += 1
            self.is_connected = True
            wire.on_text = self._on_text
            wire.ended.add_done_callback(lambda _: self._wake.set())
            try:
                await self._talk_on(wire)
            finally:
                self.is_connected = False
                wire.reset()
                closes[str(await wire.end())] += 1

    async def _talk_on(self, wire: Wire) -> None:
        for call in list(self.open.values()):
            self._send(wire, call)
        next_at = time.monotonic()
        while not wire.ended.done():
            if self._draining and not self.open:
                with contextlib.suppress(TimeoutError):
                    await wire.leave()
                return
            now = time.monotonic()
            # Nothing besides the first: an unregistered station may send nothing else.
            is_free = len(self.open) < self.window and (self.calls == [] or self.calls[0].answered is not None)
            wait: float | None = None
            if is_free and not self._draining:
                if now >= next_at:
                    self._begin(wire)
                    next_at = now + self.settings.pace * (0.5 + self._random.random())
                    continue
                wait = next_at - now
            if self.resend_after is not None and self.open:
                oldest = next(iter(self.open.values()))
                due = oldest.transmitted + self.resend_after
                if now >= due:
                    self._send(wire, oldest)
                    continue
                wait = min(due - now, wait if wait is not None else due - now)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    def _begin(self, wire: Wire) -> None:
        action, payload = next(self._script)
        call = Call(f"{self.identity}-{len(self.calls) + 1}", action, payload)
        self.calls.append(call)
        self.open[call.id] = call
        self._send(wire, call)

    def _send(self, wire: Wire, call: Call) -> None:
        call.transmitted = time.monotonic()
        call.sent = call.sent or call.transmitted
        call.sends += 1
        wire.send(call.text)

    def _on_text(self, text: str) -> None:
        answer = json.loads(text)
        call = self.open.pop(answer[1], None)
        if call is None:
            # Each transmission may be answered.
            self.answers_again += 1
            return
        call.answered = time.monotonic()
        if answer[0] != 3:
            self.faults.append(f"{self.identity}: {call.action} {call.id} was answered with {text}")
        elif call.action == "StartTransaction":
            self._transaction = answer[2]["transactionId"]
        self._wake.set()

    def history(self) -> dict[str, Any]:
        """What `load.History.read` reads."""
        return {
            "identity": self.identity,
            "connections": self.connections,
            "answersAgain": self.answers_again,
            "faults": self.faults,
            "calls": [[call.id, call.action, call.sent, call.answered, call.sends] for call in self.calls],
        }


class Worker:
    """All stations of this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stations = [PersistentStation(number, settings) for number in settings.numbers]
        self.refusals: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()

    async def run(self) -> None:
        running = asyncio.gather(*(station.run(self.refusals, self.closes) for station in self.stations))
        running.add_done_callback(lambda _: None)
        report = asyncio.create_task(self._report())
        commands = asyncio.create_task(self._read_commands())
        await asyncio.wait([running, commands], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for task in (report, commands):
            task.cancel()
        self._write_status()

    def write_history(self) -> None:
        """Writes what `load.History.read` reads."""
        history = {
            "stations": [station.history() for station in self.stations],
            "refusals": self.refusals,
            "closes": self.closes,
        }
        Path(self.settings.history).write_text(json.dumps(history), encoding="utf-8")

    async def _read_commands(self) -> None:
        """Returns when the process should end."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := (await reader.readline()).decode().strip():
            if line == "end":
                return
            if line == "drain":
                for station in self.stations:
                    station.drain()

    async def _report(self) -> None:
        while True:
            self._write_status()
            await asyncio.sleep(STATUS_EVERY)

    def _write_status(self) -> None:
        now = time.monotonic()
        oldest = min((call.sent for station in self.stations for call in station.open.values()), default=now)
        status = {
            "connected": sum(station.is_connected for station in self.stations),
            "booted": sum(bool(station.calls) and station.calls[0].answered is not None for station in self.stations),
            "sent": sum(len(station.calls) for station in self.stations),
            "open": sum(len(station.open) for station in self.stations),
            "waiting": now - oldest,
            "refusals": sum(self.refusals.values()),
            "closes": dict(self.closes),
        }
        sys.stdout.write(json.dumps(status) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    worker = Worker(Settings.parse(sys.argv[1]))
    asyncio.run(worker.run())
    worker.write_history()
