"""What stations sent and were answered, and the comparison with what is stored: lost, duplicated, reordered.

Owns the judgement of promises P1 (answer after durable) and P3 (order per station), for either kind of bus. Does not own
how stations talk (`fleet.py`) or how events are read.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from .events import Event

_SHOWN = 5


@dataclass
class _Account:
    """One station. A message id is used once, over all its connections."""

    sent: dict[str, int] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Figures:
    """The comparison. Only `sent`, `answered`, `events` and `unanswered_stored` may differ from zero."""

    sent: int
    answered: int
    events: int
    """CALLs of stations that are stored, each counted once."""
    unanswered_stored: int
    """CALLs that are stored and whose answer never came: allowed, since the crash came between the two."""
    lost: list[str]
    """Answered, and not stored."""
    overtaken: list[str]
    """Not stored although a later CALL of the same connection is."""
    reordered: list[str]
    """Stored before a CALL that was sent earlier."""
    duplicated: list[str]
    """Stored again as another event."""
    unknown: list[str]
    """Stored, and never sent."""
    redelivered: int
    """Delivered again as the same event: allowed, consumers deduplicate on the id."""

    @property
    def faults(self) -> dict[str, list[str]]:
        """What must not be, by name; empty when every promise was kept."""
        named = ("lost", "overtaken", "reordered", "duplicated", "unknown")
        return {name: getattr(self, name)[:_SHOWN] for name in named if getattr(self, name)}

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, answered {self.answered}, events {self.events} "
            f"({self.unanswered_stored} of them unanswered), lost {len(self.lost)}, overtaken {len(self.overtaken)}, "
            f"reordered {len(self.reordered)}, duplicated {len(self.duplicated)}, unknown {len(self.unknown)}, "
            f"redelivered {self.redelivered}"
        )


class Ledger:
    """The stations' side of the story."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = defaultdict(_Account)

    def sent(self, station: str, message_id: str) -> None:
        """A CALL is about to go out."""
        account = self._accounts[station]
        assert message_id not in account.sent, f"{station} used the message id {message_id} before"
        account.sent[message_id] = len(account.sent)

    def answered(self, station: str, message_id: str) -> None:
        """Its answer came in."""
        account = self._accounts[station]
        assert message_id in account.sent, f"{station} got an answer to {message_id}, which it never sent"
        assert message_id not in account.answered, f"{station} got two answers to {message_id}"
        account.answered.add(message_id)

    @property
    def answers(self) -> int:
        """Answers so far."""
        return sum(len(account.answered) for account in self._accounts.values())

    def compare(self, events: Iterable[Event]) -> Figures:
        """Compares with every event there is; those of a station in the order in which they are stored."""
        lost: list[str] = []
        overtaken: list[str] = []
        reordered: list[str] = []
        duplicated: list[str] = []
        unknown: list[str] = []
        redelivered = 0
        # station -> message id -> (event id, session)
        stored: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
        latest: dict[str, int] = defaultdict(lambda: -1)
        for event in events:
            if event.type != "ocpp.message.received" or event.data["messageType"] != "CALL":
                continue
            station, message_id, event_id = event.station, event.data["messageId"], event.json["id"]
            name = f"{station} {message_id}"
            place = self._accounts[station].sent.get(message_id)
            if place is None:
                unknown.append(name)
            elif message_id in stored[station]:
                if stored[station][message_id][0] == event_id:
                    redelivered += 1
                else:
                    duplicated.append(name)
            else:
                stored[station][message_id] = (event_id, event.data["sessionId"])
                if place < latest[station]:
                    reordered.append(name)
                latest[station] = max(latest[station], place)
        events_stored = unanswered_stored = 0
        for station, account in self._accounts.items():
            its_stored = stored[station]
            events_stored += len(its_stored)
            unanswered_stored += len(its_stored.keys() - account.answered)
            lost += [
                f"{station} {message_id}"
                for message_id in account.sent
                if message_id in account.answered - its_stored.keys()
            ]
            overtaken += _overtaken(station, account, its_stored)
        return Figures(
            sum(len(account.sent) for account in self._accounts.values()),
            self.answers,
            events_stored,
            unanswered_stored,
            lost,
            overtaken,
            reordered,
            duplicated,
            unknown,
            redelivered,
        )


def _overtaken(station: str, account: _Account, stored: dict[str, tuple[str, str]]) -> list[str]:
    """A connection's CALLs are stored as a prefix of what was sent on it; between two of one session nothing is missing."""
    found: list[str] = []
    missing: list[str] = []
    session = None
    for message_id in account.sent:
        if message_id not in stored:
            missing.append(message_id)
            continue
        if stored[message_id][1] == session:
            found += [f"{station} {name}" for name in missing]
        session, missing = stored[message_id][1], []
    return found
