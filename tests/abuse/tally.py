"""What the abusers of one abuse did and how it ended: counted in their process, returned to the one that reports."""

from dataclasses import dataclass, field


@dataclass
class Tally:
    """Everything that the abusers count themselves."""

    units: int = 0
    """Units sent of what the abuse is about: pings, fragments, bombs, connections."""
    bytes_sent: int = 0
    """On the wire, without the headers of TCP and IP."""
    connections: int = 0
    failures: int = 0
    """Failed attempts to connect."""
    lives: list[float] = field(default_factory=list)
    """Seconds from the attempt to connect to the end, for connections that the gateway ended."""
    ends: dict[str, int] = field(default_factory=dict)
    """How they ended: a close code, an HTTP status, `eof` or `reset` without either."""
    survivors: int = 0
    """Still connected when the abuse was over."""
    undigested: int = 0
    """Of these, how many the gateway had not read to the end in time."""
    seconds: float = 0.0
    """How long they ran."""
    cpu_seconds: float = 0.0
    """Processor time of the abusers' process meanwhile."""

    def ended(self, how: str, seconds: float) -> None:
        """Records that the gateway ended a connection."""
        self.ends[how] = self.ends.get(how, 0) + 1
        self.lives.append(seconds)
