"""Abusers that never complete their handshake: thousands of connections that send nothing, too little, or a byte per second.

Owns their sockets, from several loopback addresses, and records when each was established and when the gateway ended it.
"""

import contextlib
import resource
import selectors
import socket
import struct
import time

from harness.raw import upgrade_request

from .tally import Tally

REQUEST = upgrade_request("/ocpp/HALF-OPEN")
REQUEST_LINE = REQUEST[: REQUEST.index(b"\r\n") + 2]
PER_ADDRESS = 1000
# Interval between two bytes of those that drip.
DRIP_SECONDS = 1.0
OTHER_FILES = 200
# linux/in.h; the module socket knows it from Python 3.12 on.
IP_BIND_ADDRESS_NO_PORT = 24


class HalfOpen:
    """Connections that are opened once, together; each sends `first` when established, and then `drip` one byte at a time."""

    def __init__(self, address: tuple[str, int], count: int, first: bytes, drip: bytes) -> None:
        self.tally = Tally()
        self._address, self._count, self._first, self._drip = address, count, first, drip
        self._selector = selectors.DefaultSelector()
        self._began: dict[socket.socket, float] = {}
        self._standing: dict[socket.socket, int] = {}

    def run(self, seconds: float) -> Tally:
        """Runs until the gateway has ended all of them, or for this long."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft >= self._count + OTHER_FILES, f"{self._count} connections need as many files; ulimit -n is {soft}"
        began, cpu = time.monotonic(), time.process_time()
        deadline, next_drip = began + seconds, began + DRIP_SECONDS
        for number in range(self._count):
            self._open(f"127.4.0.{1 + number // PER_ADDRESS}")
        while self._began and time.monotonic() < deadline:
            for key, events in self._selector.select(0.05):
                if events & selectors.EVENT_WRITE:
                    self._made(key.fileobj)
                else:
                    self._heard(key.fileobj)
            if self._drip and time.monotonic() >= next_drip:
                next_drip += DRIP_SECONDS
                self._drip_all()
        self.tally.seconds = time.monotonic() - began
        self.tally.cpu_seconds = time.process_time() - cpu
        self.tally.survivors = len(self._began)
        for one in self._began:
            # Reset, so that no state of it remains.
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        self._selector.close()
        return self.tally

    def _open(self, source: str) -> None:
        one = socket.socket()
        one.setblocking(False)
        # Otherwise the kernel picks a port that is free for the source address, not for the pair of addresses.
        one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        one.bind((source, 0))
        self._began[one] = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            one.connect(self._address)
        self._selector.register(one, selectors.EVENT_WRITE)

    def _made(self, one: socket.socket) -> None:
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.tally.failures += 1
            self._forget(one)
            return
        self.tally.connections += 1
        self.tally.units += 1
        self._standing[one] = 0
        self._selector.modify(one, selectors.EVENT_READ)
        self._say(one, self._first)

    def _say(self, one: socket.socket, data: bytes) -> None:
        # A connection that was ended is noticed when it is read.
        with contextlib.suppress(OSError):
            self.tally.bytes_sent += one.send(data) if data else 0

    def _drip_all(self) -> None:
        for one, said in self._standing.items():
            self._say(one, self._drip[said : said + 1])
            self._standing[one] = said + 1

    def _heard(self, one: socket.socket) -> None:
        try:
            data = one.recv(4096)
        except OSError:
            data, how = b"", "reset"
        else:
            how = f"HTTP {data.split(b' ', 2)[1].decode()}" if data else "eof"
        self.tally.ended(how, time.monotonic() - self._began[one])
        self._forget(one)

    def _forget(self, one: socket.socket) -> None:
        self._selector.unregister(one)
        self._standing.pop(one, None)
        del self._began[one]
        one.close()
