"""What stations were answered against what a consumer finds: lost, reordered, twice.

Owns the judgement of promises P1 and P3 for stations that send again what was not answered (`load.py`). `ledger.py` does the same for
stations that never repeat themselves.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .broker import Record
from .load import Accounts

_SHOWN = 5
# A repetition of these is an event of its own: a boot begins a life, and a heartbeat asks for the time.
NEVER_REMEMBERED = ("BootNotification", "Heartbeat")


@dataclass
class Verdict:
    """The comparison. Lists name the station and what is wrong with it."""

    stations: int = 0
    answered: int = 0
    unanswered: int = 0
    """CALLs that never got their answer although the fault was over."""
    events: int = 0
    """Events of every type, each counted once."""
    set_aside: int = 0
    """Of these, in the folder of what cannot be delivered."""
    lost: list[str] = field(default_factory=list)
    """Answered, and nowhere to be found."""
    reordered: list[str] = field(default_factory=list)
    """In another order than the station sent them, or outside of the session they belong to."""
    duplicates: int = 0
    """Delivered again with the same event id: allowed, consumers deduplicate on it."""
    foreign_duplicates: int = 0
    """CALLs that are two events with different ids."""
    unexpected_duplicates: list[str] = field(default_factory=list)
    """Of these, those that the gateway could have known."""
    unknown: list[str] = field(default_factory=list)
    """Found, and never sent."""
    refused: list[str] = field(default_factory=list)
    """CALLs answered with CALLERROR: a station may discard its data then."""
    longest_wait: float = 0.0
    """Seconds from a CALL's first transmission to its answer, at most."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by name, with some examples."""
        named = {
            "lost": self.lost,
            "reordered": self.reordered,
            "duplicated as another event": self.unexpected_duplicates,
            "never sent": self.unknown,
            "answered with an error": self.refused,
        }
        found = {f"{len(value)} {name}": value[:_SHOWN] for name, value in named.items() if value}
        if self.unanswered:
            found[f"{self.unanswered} unanswered"] = []
        return found


def compare(
    accounts: Accounts,
    records: Iterable[Record],
    *,
    set_aside: Iterable[Mapping[str, Any]] = (),
    gateway_was_killed: bool = False,
) -> Verdict:
    """Compares what the stations tell with everything in the topic, by partition and offset, and with what was set aside.

    A gateway that was killed has forgotten what it did not answer: then a CALL that was sent again may be two events.
    """
    verdict = Verdict(stations=len(accounts.calls), refused=list(accounts.faults))
    sends: dict[str, dict[str, tuple[int, int]]] = {}
    for station, calls in accounts.calls.items():
        sends[station] = {call.id: (place, call.sends) for place, call in enumerate(calls)}
    found = {station: _Found(station, sends[station], verdict, gateway_was_killed) for station in sends}
    seen: set[str] = set()
    for record in records:
        event = json.loads(record.value)
        if event["id"] in seen:
            verdict.duplicates += 1
            continue
        seen.add(event["id"])
        if event["subject"] in found:
            found[event["subject"]].take(event, in_order=True)
    for object_ in set_aside:
        event = object_["event"]
        # In the topic or a second time in the file: the gateway was killed between storing it and knowing so.
        if event["id"] in seen:
            continue
        seen.add(event["id"])
        verdict.set_aside += 1
        if event["subject"] in found:
            found[event["subject"]].take(event, in_order=False)
    verdict.events = len(seen)
    for station, calls in accounts.calls.items():
        for call in calls:
            if call.answered is None:
                verdict.unanswered += 1
                continue
            verdict.answered += 1
            verdict.longest_wait = max(verdict.longest_wait, call.answered - call.sent)
            if call.id not in found[station].stored:
                verdict.lost.append(f"{station} {call.id} {call.action}")
    return verdict


class _Found:
    """What was found of one station, in order."""

    def __init__(self, station: str, sends: dict[str, tuple[int, int]], verdict: Verdict, was_killed: bool) -> None:
        self.station, self.sends, self.verdict, self.was_killed = station, sends, verdict, was_killed
        self.stored: set[str] = set()
        self._latest = -1
        self._session = ""
        self._has_ended = False
        self._events_of: dict[str, int] = defaultdict(int)

    def take(self, event: dict[str, Any], in_order: bool) -> None:
        """One event that was not seen before. What was set aside has no place in the order."""
        if in_order:
            self._judge_session(event)
        data = event["data"]
        if event["type"] != "ocpp.message.received" or data["messageType"] != "CALL":
            return
        id = data["messageId"]
        name = f"{self.station} {id} {data['action']}"
        if id not in self.sends:
            self.verdict.unknown.append(name)
            return
        place, sends = self.sends[id]
        self._events_of[id] += 1
        if id in self.stored:
            self.verdict.foreign_duplicates += 1
            could_know = not self.was_killed and data["action"] not in NEVER_REMEMBERED
            if could_know or self._events_of[id] > sends:
                self.verdict.unexpected_duplicates.append(name)
        elif in_order:
            if place < self._latest:
                self.verdict.reordered.append(name)
            self._latest = max(self._latest, place)
        self.stored.add(id)

    def _judge_session(self, event: dict[str, Any]) -> None:
        session, kind = event["data"].get("sessionId"), event["type"]
        if session is None:
            return
        where = f"{self.station} {kind} of session {session} ({event['data'].get('messageId')})"
        if kind == "ocpp.station.connected":
            if session <= self._session:
                self.verdict.reordered.append(f"{where}: after {self._session}")
            if self._session and not self._has_ended and not self.was_killed:
                self.verdict.reordered.append(f"{where}: before the end of {self._session}")
            self._session, self._has_ended = session, False
            return
        if session != self._session or self._has_ended:
            self.verdict.reordered.append(f"{where}: in {self._session}")
        self._has_ended = self._has_ended or kind == "ocpp.station.disconnected"
