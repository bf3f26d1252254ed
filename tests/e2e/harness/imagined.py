"""Made-up reports of the load test: small, with everything there is to show, and known to the last value.

Owns the JSON, in the schema `ocpp-loadtest/1`. Does not know how it is shown.
"""

import base64
import struct
from collections.abc import Callable
from typing import Any

SECONDS = 90
MIB = 1 << 20
# An HdrHistogram (V2) of microseconds up to an hour, three digits, with nothing in it.
HISTOGRAM = base64.b64encode(struct.pack(">iiiiqqd", 0x1C849313, 0, 0, 3, 1, 3_600_000_000, 1.0)).decode()
COUNTS = ["connected", "registered", "attempts", "connects", "cut", "disconnects", "sent", "answered", "refused"]
COUNTS += ["again", "misbehavedSent", "misbehavedAnswered", "unexpected", "commands", "pings"]
VERDICT = ["events", "calls", "answered", "lost", "reordered", "duplicated", "unknown", "unreadable", "gaps"]
VERDICT += ["unaccounted", "redelivered", "repeated", "afterRestart", "unansweredFound", "unansweredMissing"]


def percentiles(count: int, middle: float) -> dict[str, float]:
    shares = {"mean": 1.1, "p50": 1.0, "p90": 2.0, "p99": 5.0, "p999": 20.0, "max": 40.0}
    return {"count": count} | {name: middle * share for name, share in shares.items()}


def point(second: int) -> dict[str, Any]:
    """One second. Every value differs from the next second's, so that a value shown at the wrong time is wrong."""
    gateway = None
    if not 40 <= second < 50:
        state = "spooling" if 50 <= second < 70 else "direct"
        gateway = {"sessions": 11_000 + second, "queueRecords": second % 7, "spoolRecords": 0, "busStates": [state]}
    return {
        "at": second,
        "connected": 11_003 + second,
        "connects": 200 - second,
        "sent": 1000 + second,
        "answered": 990 + second,
        "misbehaved": second / 10,
        "open": second % 13,
        "latency": percentiles(0 if second == 20 else 1000, 3 + second / 50),
        "lagP99": 0.004 if second == 1 else 1.5,
        "workers": [second / 1000, 0.05, 0.06],
        "verifier": 0.1,
        "watchedCores": [0.2 + second / 1000, 0.3, 0.35, 0.5],
        "watchedMemory": [(50 + second) * MIB, 60 * MIB, 70 * MIB, 200 * MIB],
        "gateway": gateway,
    }


def report(**changes: Any) -> dict[str, Any]:
    """Three gateways and a broker, with everything there is to show."""
    cost = {"cpuSeconds": 4.5, "cores": 0.05, "peggedSeconds": 0, "memoryMax": 90 * MIB}
    memory = [15 * MIB, 80 * MIB, 79 * MIB]
    names = ["gateway-1", "gateway-2", "gateway-3", "kafka"]
    counts = {"attempts": 12_000, "connects": 12_000, "registered": 12_000, "sent": 94_095, "answered": 93_195}
    whole = {
        "schema": "ocpp-loadtest/1",
        "version": "0.1.0",
        "scenario": {
            "name": "example",
            "about": "stations & their <gateways>",
            "stations": 12_000,
            "moments": [{"at": "1m", "what": "reconnect"}],
        },
        "run": "x",
        "started": "2026-11-20T10:30:00.000Z",
        "seconds": SECONDS,
        "interrupted": False,
        "outcome": {"judgement": "passed", "faults": [], "invalid": []},
        "counts": dict.fromkeys(COUNTS, 0) | counts,
        "connect": percentiles(12_000, 20.0),
        "failures": {"HTTP 503 Service Unavailable": 7},
        "ends": {},
        "latency": percentiles(93_195, 4.0),
        "latencyHistogram": HISTOGRAM,
        "actions": {"BootNotification": percentiles(12_000, 4.0), "MeterValues": percentiles(81_195, 4.0)},
        "chatty": percentiles(0, 0.0),
        "commands": {"sent": 20, "outcomes": {"answered": 20}, "latency": percentiles(20, 6.0)},
        "verification": {
            "source": "Kafka 127.0.0.1:19092, topic ocpp.events",
            "during": True,
            "verdict": dict.fromkeys(VERDICT, 0) | {"events": 187_000, "examples": []},
        },
        "load": {"sendLag": percentiles(94_095, 0.5), "workers": [cost] * 3, "verifier": cost, "coordinator": cost},
        "watched": [
            {"name": name, "pid": 100 + number, "cpuSeconds": 22.5, "cores": 0.25, "memory": memory}
            for number, name in enumerate(names)
        ],
        "timeline": [point(second) for second in range(1, SECONDS + 1)],
    }
    return whole | changes


def failed() -> dict[str, Any]:
    whole = report()
    whole["outcome"] = {
        "judgement": "failed",
        "faults": ["lost: 3", "p99 latency: 20.0 ms, more than 10.0 ms"],
        "invalid": ["worker 0 used a whole core for 12 s without a break: use more workers"],
    }
    whole["verification"]["verdict"] |= {"lost": 3, "examples": ["lost: LT-000017, x-4711" + " and more" * 20]}
    return whole


def hour() -> dict[str, Any]:
    """Longer than a plot has columns; all stations are disconnected for one second of it."""
    whole = report(seconds=3600)
    whole["timeline"] = [point(second % SECONDS) | {"at": second} for second in range(1, 3601)]
    whole["timeline"][1801]["connected"] = 0
    return whole


def of_points(count: int) -> dict[str, Any]:
    return report(timeline=[point(second) for second in range(1, count + 1)])


VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "passed": report,
    "failed": failed,
    "unverified": lambda: report(verification=None, watched=[]),
    "hour": hour,
    "nothing": lambda: of_points(0),
    "one point": lambda: of_points(1),
}
