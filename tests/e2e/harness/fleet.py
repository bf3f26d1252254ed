"""Many stations in one process, each sending CALLs as fast as they are answered, with a ledger of what they sent.

Owns the load: versions, messages, and what is expected of an answer. Does not judge what is stored (`ledger.py`).
"""

import asyncio
import json
from itertools import cycle
from typing import Any

from .gateway import Gateway
from .ledger import Ledger
from .station import BOOT
from .wire import Wire, call_text

VERSIONS = ("1.6", "2.0.1", "2.1")
TIME = "2026-01-01T00:00:00.000Z"

_METER_16 = {"connectorId": 1, "meterValue": [{"timestamp": TIME, "sampledValue": [{"value": "1.50"}]}]}
_METER_2X = {"evseId": 1, "meterValue": [{"timestamp": TIME, "sampledValue": [{"value": 1.5}]}]}
_STATUS_16 = {"connectorId": 1, "errorCode": "NoError", "status": "Available"}
_STATUS_2X = {"timestamp": TIME, "connectorStatus": "Available", "evseId": 1, "connectorId": 1}
_EVENT_2X = {
    "eventType": "Updated",
    "timestamp": TIME,
    "triggerReason": "MeterValuePeriodic",
    "seqNo": 1,
    "transactionInfo": {"transactionId": "T1"},
}
TALK: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "1.6": [("Heartbeat", {}), ("MeterValues", _METER_16), ("StatusNotification", _STATUS_16)],
    "2.0.1": [("MeterValues", _METER_2X), ("TransactionEvent", _EVENT_2X), ("StatusNotification", _STATUS_2X)],
}
TALK["2.1"] = TALK["2.0.1"]


class Member:
    """One station of the fleet. Its message ids and transactions span its connections."""

    def __init__(self, number: int, ledger: Ledger) -> None:
        self.version = VERSIONS[number % len(VERSIONS)]
        self.identity = f"CP-{number:04}"
        self.ledger = ledger
        # Most stations wait for each answer, as OCPP requires; some do not, so that there is something to reorder.
        self.window = 4 if number % 5 == 0 else 1
        self.wire: Wire | None = None
        self.booted = False
        self.transactions: dict[str, int] = {}
        """1.6: time of a StartTransaction -> the transaction id in its answer."""
        self._calls = 0
        self._starts = 0
        self._waiting: dict[str, tuple[str, str | None]] = {}
        self._talk = cycle(TALK[self.version])
        self.faults: list[str] = []

    async def connect(self, gateway: Gateway) -> None:
        """Connects. It boots the first time only, and then relies on being remembered."""
        self._waiting.clear()
        self.wire = await Wire.connect(gateway, self.identity, self.version)
        self.wire.on_text = self._on_text

    def begin(self) -> None:
        """Starts sending; from then on, every answer leads to the next CALL."""
        if not self.booted:
            self._send("BootNotification", BOOT[self.version])
            return
        self._retry_last_start()
        self._top_up()

    def _top_up(self) -> None:
        while len(self._waiting) < self.window:
            if self.version == "1.6" and self._calls % 7 == 0:
                self._starts += 1
                self._start(f"2026-01-01T00:00:00.{self._starts % 1000:03}Z", self._starts)
            else:
                self._send(*next(self._talk))

    def _start(self, time: str, meter: int) -> None:
        payload = {"connectorId": 1, "idTag": "TAG", "meterStart": meter, "timestamp": time}
        self._send("StartTransaction", payload, start=f"{time} {meter}")

    def _retry_last_start(self) -> None:
        if self.transactions:
            time, meter = list(self.transactions)[-1].split(" ")
            self._start(time, int(meter))

    def _send(self, action: str, payload: dict[str, Any], start: str | None = None) -> None:
        self._calls += 1
        message_id = f"{self.identity}-{self._calls}"
        self._waiting[message_id] = (action, start)
        self.ledger.sent(self.identity, message_id)
        self.wire.send(call_text(message_id, action, payload))

    def _on_text(self, text: str) -> None:
        answer = json.loads(text)
        self.ledger.answered(self.identity, answer[1])
        action, start = self._waiting.pop(answer[1])
        if answer[0] != 3:
            self.faults.append(f"{self.identity}: {action} was answered with {text}")
        elif start is not None:
            self._note_transaction(start, answer[2]["transactionId"])
        self.booted = self.booted or action == "BootNotification"
        if not self.wire.transport.is_closing():
            self._top_up()

    def _note_transaction(self, start: str, transaction: int) -> None:
        known = self.transactions.get(start)
        if known is None and transaction in self.transactions.values():
            self.faults.append(f"{self.identity}: the transaction id {transaction} was given twice")
        elif known not in (None, transaction):
            self.faults.append(f"{self.identity}: {start} was {known} and is {transaction} when sent again")
        self.transactions[start] = transaction


class Fleet:
    """All stations, and their ledger."""

    def __init__(self, size: int) -> None:
        self.ledger = Ledger()
        self.members = [Member(number, self.ledger) for number in range(size)]

    async def connect(self, gateway: Gateway) -> None:
        await asyncio.gather(*(member.connect(gateway) for member in self.members))

    def begin(self) -> None:
        for member in self.members:
            member.begin()

    async def ended(self, timeout: float = 10.0) -> None:
        """Waits until every connection has ended, in whatever way."""
        await asyncio.gather(*(member.wire.end(timeout) for member in self.members))

    async def answers_reach(self, count: int, timeout: float = 30.0) -> None:
        """Waits until this many CALLs were answered."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self.ledger.answers < count:
            assert asyncio.get_running_loop().time() < deadline, f"{self.ledger.answers} answers instead of {count}"
            await asyncio.sleep(0.005)

    @property
    def faults(self) -> list[str]:
        """Answers that a station must not get."""
        return [fault for member in self.members for fault in member.faults]
