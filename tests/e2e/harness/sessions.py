"""The rule that every station's events obey, whatever its connections did: one complete session after another."""

from collections.abc import Iterable
from dataclasses import dataclass

from .events import Event


@dataclass(frozen=True)
class Session:
    """A session as its events show it."""

    id: str
    station: str
    remote: str
    replaced: str | None
    reason: str | None
    """Why it ended; None while it is open."""


def sessions_of(events: Iterable[Event]) -> list[Session]:
    """The sessions of one station, in order.

    Fails unless each has exactly one `connected` and at most one `disconnected`, all its events lie between the two, only the last may
    lack its end, and the session numbers grow. Events that concern no session may lie anywhere.
    """
    found: list[Session] = []
    for event in events:
        session = event.data.get("sessionId")
        if session is None:
            continue
        where = f"event {event.position}, {event}"
        if event.type == "ocpp.station.connected":
            if found:
                assert found[-1].reason is not None, f"{where}: a session begins before {found[-1].id} has ended"
                assert session > found[-1].id, f"{where}: the session number does not grow"
            found.append(Session(session, event.station, event.data["remoteAddress"], event.data.get("replaced"), None))
            continue
        assert found, f"{where}: before any session"
        assert session == found[-1].id, f"{where}: belongs to {session}, in the middle of {found[-1].id}"
        assert found[-1].reason is None, f"{where}: after the end of its session"
        if event.type == "ocpp.station.disconnected":
            last = found.pop()
            found.append(Session(last.id, last.station, last.remote, last.replaced, event.data["reason"]))
    for before, after in zip(found, found[1:], strict=False):
        assert after.replaced in (None, before.id), f"{after.id} replaced {after.replaced}, not the one before it"
        if before.reason == "replaced":
            assert after.replaced == before.id, f"{before.id} was replaced, and {after.id} does not say so"
    return found


def first_told(events: Iterable[Event]) -> list[Event]:
    """Each event once, where it was told first: what a consumer sees that deduplicates on the id.

    Fails if an event is told again with another content. Only the end of a session may be: its own may have become durable just before
    a crash, and then the next start tells it as `gatewayLost`.
    """
    found: dict[str, Event] = {}
    for event in events:
        first = found.setdefault(event.json["id"], event)
        told_as_lost = event.type == "ocpp.station.disconnected" and event.data["reason"] == "gatewayLost"
        assert first.text == event.text or told_as_lost, f"{first} was told again as {event}"
    return list(found.values())
