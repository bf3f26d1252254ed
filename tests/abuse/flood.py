"""Abusers that complete the handshake and then send what no station should, as fast as the gateway reads.

Owns the sockets of one abuse and the loop that serves them all. What is sent is prepared beforehand (`frames.py`), so that a turn of
the loop is one system call with tens of kilobytes.
"""

import contextlib
import selectors
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.raw import CLOSE, upgrade_request

from .tally import Tally

SEND_AT_ONCE = 1 << 18
# Small, so that what counts as sent has reached the gateway, and is not in a kernel queue.
SEND_BUFFER = 1 << 16
# How long the gateway may take to read what is in flight at the end.
DIGEST_SECONDS = 5.0
LONGEST_CLOSE_FRAME = 127


@dataclass(frozen=True)
class Load:
    """What one abuser sends after its handshake."""

    once: bytes
    """What is sent first."""
    again: bytes = b""
    """What is then sent repeatedly; if empty, the abuser waits for the end of the connection and reconnects."""
    units: int = 1
    """Units in `again`, or in `once` if `again` is empty."""
    compressed: bool = False
    """Offers permessage-deflate in its handshake."""
    reads: bool = True
    """Reads what the gateway sends."""


class Abuser:
    """One identity and its present connection."""

    def __init__(self, address: tuple[str, int], identity: str, load: Load, tally: Tally) -> None:
        changes = {"Sec-WebSocket-Extensions": "permessage-deflate" if load.compressed else None}
        self._request = upgrade_request(f"/ocpp/{identity}", changes=changes)
        self._address, self._load, self._tally = address, load, tally
        self._once, self._again = memoryview(load.once), memoryview(load.again)
        self.socket: socket.socket | None = None
        self._began = 0.0
        self._asked = self._upgraded = False
        self._head = self._tail = b""
        self._sent = 0

    def connect(self) -> None:
        self._began = time.monotonic()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(self._address)
        self._asked = self._upgraded = False
        self._head = self._tail = b""
        self._sent = 0
        self._tally.connections += 1

    def wants(self) -> int:
        """The events to wait for. An established connection is writable, and then sends its handshake."""
        sends = self._upgraded and (self._again or self._sent < len(self._once))
        write = sends or not self._asked
        read = self._load.reads or not self._upgraded
        return (selectors.EVENT_WRITE if write else 0) | (selectors.EVENT_READ if read else 0)

    def write(self) -> str | None:
        """Sends what the kernel accepts; returns how the connection ended, if it did."""
        try:
            if not self._upgraded:
                self._tally.bytes_sent += self.socket.send(self._request)
                self._asked = True
                return None
            if self._sent < len(self._once):
                rest = self._once[self._sent : self._sent + SEND_AT_ONCE]
            else:
                at = (self._sent - len(self._once)) % len(self._again)
                rest = self._again[at : at + SEND_AT_ONCE]
            count = self.socket.send(rest)
        except BlockingIOError:
            return None
        except OSError:
            # The gateway has ended it; its close frame may still be readable.
            return self._last_words()
        self._sent += count
        self._tally.bytes_sent += count
        return None

    def read(self) -> str | None:
        """Reads what arrived; returns how the connection ended, if it did."""
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            return self._words() or "reset"
        if not data:
            return self._words() or "eof"
        if self._upgraded:
            self._tail = (self._tail + data)[-LONGEST_CLOSE_FRAME:]
            return None
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if found:
            status = head.split(b" ", 2)[1].decode()
            if status != "101":
                return f"HTTP {status}"
            self._upgraded, self._tail = True, rest[-LONGEST_CLOSE_FRAME:]
        return None

    def _last_words(self) -> str:
        while (end := self.read()) is None:
            pass
        return end

    def _words(self) -> str | None:
        """The close code, if the last thing received is a close frame."""
        for at in range(len(self._tail) - 1):
            if self._tail[at] == 0x80 | CLOSE and at + 2 + self._tail[at + 1] == len(self._tail):
                return str(*struct.unpack("!H", self._tail[at + 2 : at + 4])) if self._tail[at + 1] else "1005"
        return None

    def units(self) -> int:
        """Units sent on this connection."""
        if not self._load.again:
            return self._load.units if self._sent == len(self._once) else 0
        return max(0, self._sent - len(self._once)) * self._load.units // len(self._again)

    def close(self) -> None:
        self._tally.units += self.units()
        self.socket.close()
        self.socket = None

    def ended(self, how: str) -> None:
        self._tally.ended(how, time.monotonic() - self._began)
        self.close()


class Flood:
    """All abusers of one abuse."""

    def __init__(self, address: tuple[str, int], name: str, count: int, load_of: Callable[[int], Load]) -> None:
        self.tally = Tally()
        self._selector = selectors.DefaultSelector()
        self._abusers = [Abuser(address, f"{name}-{n}", load_of(n), self.tally) for n in range(count)]

    def run(self, seconds: float) -> Tally:
        """Runs for this long; an abuser that is disconnected reconnects at once."""
        began, cpu = time.monotonic(), time.process_time()
        for abuser in self._abusers:
            self._begin(abuser)
        while time.monotonic() < began + seconds:
            self._turn(lambda abuser, how: self._begin(abuser))
        self.tally.seconds = time.monotonic() - began
        self.tally.cpu_seconds = time.process_time() - cpu
        self._leave()
        return self.tally

    def _begin(self, abuser: Abuser) -> None:
        abuser.connect()
        self._selector.register(abuser.socket, abuser.wants(), abuser)

    def _turn(self, after_end: Callable[[Abuser, str], None]) -> None:
        for key, events in self._selector.select(0.1):
            abuser = key.data
            how = abuser.read() if events & selectors.EVENT_READ else None
            if how is None and events & selectors.EVENT_WRITE:
                how = abuser.write()
            if how is not None:
                self._selector.unregister(abuser.socket)
                abuser.ended(how)
                after_end(abuser, how)
            elif abuser.wants() != key.events:
                self._selector.modify(abuser.socket, abuser.wants(), abuser)

    def _leave(self) -> None:
        """Stops sending. Half-closed connections end when the gateway has read everything, so that all of the cost is counted."""
        left = [key.data for key in self._selector.get_map().values()]
        self.tally.survivors = len(left)
        for abuser in left:
            with contextlib.suppress(OSError):
                abuser.socket.shutdown(socket.SHUT_WR)
            self._selector.modify(abuser.socket, selectors.EVENT_READ, abuser)
        deadline = time.monotonic() + DIGEST_SECONDS
        while self._selector.get_map() and time.monotonic() < deadline:
            for key, _ in self._selector.select(0.1):
                if key.data.read() is not None:
                    self._selector.unregister(key.data.socket)
                    key.data.close()
        for key in list(self._selector.get_map().values()):
            self.tally.undigested += 1
            key.data.close()
        self._selector.close()
