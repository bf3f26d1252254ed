"""One abuse from its beginning to ten seconds after its end: the abusers' process, and the gateway's cost meanwhile.

Owns the measuring. Does not own what is sent (`flood.py`, `half_open.py`) nor what ordinary stations feel (`ordinary.py`).
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

from harness.gateway import Gateway
from harness.usage import cpu_seconds, forget_peak, memory

from .ordinary import Probes
from .tally import Tally

REST_SECONDS = 10.0
ABUSERS_NICENESS = 10
PATIENCE_SECONDS = 60.0
# What an operator would see.
COUNTERS = (
    "sessions_closed_total",
    "handshakes_total",
    "protocol_violations_total",
    "reads_paused_total",
    "pings_received_total",
)


class Abusers(Protocol):
    """What runs in the abusers' process."""

    def run(self, seconds: float) -> Tally: ...


@dataclass(frozen=True)
class Abuse:
    """One line of the table."""

    name: str
    unit: str
    seconds: float
    """Its longest duration."""
    make: Callable[[tuple[str, int]], Abusers]
    """Called in the abusers' process, with the address to abuse."""


@dataclass
class Result:
    """What an abuse cost."""

    abuse: str
    unit: str
    tally: Tally
    begin: float
    end: float
    """The time of the abuse, by `time.time`."""
    window: float
    """Seconds until the gateway had read everything."""
    cpu_seconds: float
    """Processor time of the gateway in the window."""
    quiet_cores: float
    """The gateway's share of a core after the abuse."""
    memory_before: int
    memory_peak: int
    memory_after: int
    """Ten seconds after the end."""
    counted: dict[str, float]
    """What the gateway's metrics counted meanwhile."""
    probes: list[float] = field(default_factory=list)
    probe_failures: list[str] = field(default_factory=list)


def play(node: Gateway, abuse: Abuse) -> Result:
    """Runs the abusers against `node` and returns the result."""
    spawn = multiprocessing.get_context("spawn")
    pipe, far_end = spawn.Pipe()
    abusers = spawn.Process(target=_abuse, args=(far_end, ("127.0.0.1", node.port), abuse), daemon=True)
    abusers.start()
    # What they send is prepared before the measurement.
    _receive(pipe, abusers, PATIENCE_SECONDS)
    pid = node.process.pid
    forget_peak(pid)
    counted, resident = counters(node), memory(pid)
    probes = Probes(node, abuse.name)
    cpu, began, begin = cpu_seconds(pid), time.monotonic(), time.time()
    pipe.send("go")
    tally = _receive(pipe, abusers, abuse.seconds + PATIENCE_SECONDS)
    window, cpu = time.monotonic() - began, cpu_seconds(pid) - cpu
    probes.finish()
    abusers.join(PATIENCE_SECONDS)
    quiet_from, quiet_cpu = time.monotonic(), cpu_seconds(pid)
    time.sleep(REST_SECONDS)
    quiet = (cpu_seconds(pid) - quiet_cpu) / (time.monotonic() - quiet_from)
    now = counters(node)
    return Result(
        abuse=abuse.name,
        unit=abuse.unit,
        tally=tally,
        begin=begin,
        end=begin + tally.seconds,
        window=window,
        cpu_seconds=cpu,
        quiet_cores=quiet,
        memory_before=resident,
        memory_peak=memory(pid, "VmHWM"),
        memory_after=memory(pid),
        counted={key: value - counted.get(key, 0.0) for key, value in now.items() if value != counted.get(key, 0.0)},
        probes=probes.waits,
        probe_failures=probes.failures,
    )


def counters(node: Gateway) -> dict[str, float]:
    """The counters that abuse moves, by name and labels."""
    samples = {}
    for line in node.get("/metrics").text.splitlines():
        sample, _, value = line.removeprefix("ocpp_gateway_").rpartition(" ")
        if sample.startswith(COUNTERS):
            samples[sample] = float(value)
    return samples


def _receive(pipe: Connection, abusers: multiprocessing.Process, seconds: float) -> Tally:
    deadline = time.monotonic() + seconds
    while not pipe.poll(0.2):
        assert abusers.is_alive(), "the abusers' process broke; what it said is above"
        assert time.monotonic() < deadline, "the abusers' process does not come to its end"
    return pipe.recv()


def _abuse(pipe: Connection, address: tuple[str, int], abuse: Abuse) -> None:
    # They share a core with the ordinary stations, whose timing they must not disturb.
    os.nice(ABUSERS_NICENESS)
    abusers = abuse.make(address)
    pipe.send("ready")
    pipe.recv()
    pipe.send(abusers.run(abuse.seconds))
