"""A gateway process: the built binary on free ports, with a configuration and a data folder of its own.

Owns starting, ending and talking to one process. Does not own the binary: `OCPP_GATEWAY_BIN` names it, and
`target/debug/ocpp-gateway` is taken when it does not.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

from .events import Event, parse_stream
from .waiting import free_port, wait_for

REPOSITORY = Path(__file__).resolve().parents[3]

# Only what lets a test end soon after its last assertion differs from the defaults.
DEFAULTS: dict[str, Any] = {
    "shutdown": {"deadline": "10s", "close_spread": "100ms"},
    "log": {"level": "debug"},
}


def binary() -> Path:
    path = Path(os.environ.get("OCPP_GATEWAY_BIN", REPOSITORY / "target" / "debug" / "ocpp-gateway"))
    assert path.is_file(), f"{path} is not there: build it with `cargo build`, or set OCPP_GATEWAY_BIN"
    return path


def to_toml(config: dict[str, Any], prefix: str = "") -> str:
    """A nested dict as TOML. JSON's strings, numbers, booleans and flat lists are TOML's too."""
    own = {key: value for key, value in config.items() if not isinstance(value, dict)}
    lines = [f"[{prefix}]"] if prefix and own else []
    lines += [f"{json.dumps(key) if '.' in key else key} = {json.dumps(value)}" for key, value in own.items()]
    text = "\n".join(lines) + "\n" if lines else ""
    for key, value in config.items():
        if isinstance(value, dict):
            name = json.dumps(key) if "." in key else key
            text += to_toml(value, f"{prefix}.{name}" if prefix else name)
    return text


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`, tables member by member."""
    result = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_tables else value
    return result


class Gateway:
    """One gateway. Its ports, configuration and data survive `restart`."""

    def __init__(self, directory: Path, config: dict[str, Any] | None = None) -> None:
        """`config` overrides the defaults of a test. Nothing is started yet."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_file = directory / "gateway.log"
        self.config_file = directory / "gateway.toml"
        self.port = free_port(count=2)
        self.admin_port = self.port + 1
        places = {
            "node": {"data_dir": str(self.data_dir)},
            "listeners": {"main": {"address": f"127.0.0.1:{self.port}"}},
            "admin": {"address": f"127.0.0.1:{self.admin_port}"},
        }
        self.config = merged(merged(DEFAULTS, places), config or {})
        self.environment: dict[str, str] = {}
        """Additional environment variables of the process."""
        self.process: subprocess.Popen[bytes] | None = None

    # -- lifecycle ----------------------------------------------------------------------------------------------

    def start(self, until: str | None = "/readyz", timeout: float = 20.0) -> "Gateway":
        """Starts the process and waits until the admin path `until` answers 200; with `None` it does not wait."""
        assert not self.running, "already running"
        self.config_file.write_text(to_toml(self.config), encoding="utf-8")
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "run", "--config", self.config_file],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=os.environ | self.environment,
            )
        if until:
            wait_for(lambda: self._answers(until), f"200 from {until}", timeout, 0.02)
        return self

    def _answers(self, path: str) -> bool:
        assert self.running, f"the gateway ended with code {self.process.returncode}:\n{self.log_text()}"
        try:
            return self.get(path).status_code == 200
        except requests.ConnectionError:
            return False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill9(self) -> None:
        """Kills the process as a crash or the kernel does."""
        if self.running:
            self.process.kill()
        if self.process:
            self.process.wait()

    def sigterm(self, timeout: float = 20.0) -> int:
        """Asks it to shut down and returns its exit code."""
        assert self.running, "not running"
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def restart(self, **start: Any) -> "Gateway":
        """Starts it again with the same ports and data, after SIGTERM if it is still running."""
        if self.running:
            self.sigterm()
        return self.start(**start)

    def log_text(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    # -- stations -----------------------------------------------------------------------------------------------

    def ws_url(self, identity: str, prefix: str = "/ocpp") -> str:
        """`identity` goes into the URL as it is: percent-encode it if necessary."""
        return f"ws://127.0.0.1:{self.port}{prefix}/{identity}"

    # -- admin --------------------------------------------------------------------------------------------------

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def get(self, path: str, **request: Any) -> requests.Response:
        return requests.get(self.admin_url + path, timeout=10, **request)

    def put(self, path: str, body: Any) -> requests.Response:
        return requests.put(self.admin_url + path, json=body, timeout=10)

    def post(self, path: str, body: Any, **request: Any) -> requests.Response:
        """Waits longer than a command's default timeout, because the response is its outcome."""
        return requests.post(self.admin_url + path, json=body, timeout=45, **request)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 if there are none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(label in sample for label in wanted):
                total += float(value)
        return total

    # -- events -------------------------------------------------------------------------------------------------

    def events(self, *, station: str | None = None, type: str | None = None, start: str = "earliest") -> list[Event]:
        """All events stored from position `start` to the durable end."""
        query = {"from": start, "follow": "false", "station": station, "type": type}
        response = self.get("/api/v1/events", params=query)
        assert response.status_code == 200, f"{response.status_code}: {response.text}"
        return list(parse_stream([response.content]))

    def await_events(
        self, done: Callable[[list[Event]], Any], what: str, timeout: float = 15.0, **filters: Any
    ) -> list[Event]:
        """Reads `events` repeatedly until `done(events)` is true; returns them."""

        def look() -> list[Event] | None:
            events = self.events(**filters)
            return events if done(events) else None

        return wait_for(look, what, timeout)

    def follow_events(self, timeout: float = 15.0, **query: str) -> Iterator[Event]:
        """The live stream; without `from` it begins with the next event. Raises if nothing arrives for `timeout` seconds.

        The request is sent at once, not with the first `next`, so that nothing after this call is missed.
        """
        response = requests.get(self.admin_url + "/api/v1/events", params=query, stream=True, timeout=timeout)
        assert response.status_code == 200, f"{response.status_code}: {response.text}"
        return parse_stream(response.iter_content(chunk_size=None))
