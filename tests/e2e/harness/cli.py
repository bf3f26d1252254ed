"""The binary's sub-commands for people, run as a shell would: arguments in, exit code and two streams out.

Owns running one to its end, or reading the output of one that does not end. Does not know what they should print.
"""

import os
import queue
import subprocess
import threading
from typing import Any

from .gateway import Gateway, binary


def _environment(node: Gateway | None, variables: dict[str, str]) -> dict[str, str]:
    return os.environ | ({"OCPP_GATEWAY_ADMIN": node.admin_url} if node else {}) | variables


def ask(
    node: Gateway | None, *arguments: str, stdin: str = "", timeout: float = 30.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs a sub-command to its end against `node`, which the environment names."""
    return subprocess.run(
        [binary(), *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
        env=_environment(node, variables),
    )


class Running:
    """A sub-command that runs until it is ended; use it with `with`."""

    def __init__(self, node: Gateway | None, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [binary(), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=_environment(node, {}),
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._notes: queue.Queue[str] = queue.Queue()
        for stream, lines in ((self.process.stdout, self._lines), (self.process.stderr, self._notes)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()

    @staticmethod
    def _read(stream: Any, lines: "queue.Queue[str]") -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))

    def line(self, timeout: float = 15.0) -> str:
        """The next line of its output."""
        return self._next(self._lines, timeout)

    def note(self, timeout: float = 15.0) -> str:
        """The next line of its standard error stream."""
        return self._next(self._notes, timeout)

    def _next(self, lines: "queue.Queue[str]", timeout: float) -> str:
        try:
            return lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no line within {timeout:g} s; exit code {self.process.poll()}") from None

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
