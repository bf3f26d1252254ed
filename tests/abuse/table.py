"""From results to figures, and from figures to a table."""

import statistics
from typing import Any

from .ordinary import Account
from .stage import Result

MIB = 1 << 20


def rows(results: list[Result], account: Account) -> list[dict[str, Any]]:
    """The figures of each abuse. The gateway's consumption in the quiet time after an abuse is subtracted."""
    return [_row(result, account) for result in results]


def _row(result: Result, account: Account) -> dict[str, Any]:
    tally = result.tally
    felt = account.felt(result.begin, result.end)
    extra = max(0.0, result.cpu_seconds - result.quiet_cores * result.window)
    return {
        "abuse": result.abuse,
        "unit": result.unit,
        "sent": tally.units,
        "bytes": tally.bytes_sent,
        "seconds": tally.seconds,
        "connections": tally.connections,
        "abusersCores": tally.cpu_seconds / tally.seconds,
        "gatewayCores": result.cpu_seconds / result.window,
        "microsecondsPerUnit": extra * 1e6 / tally.units if tally.units else None,
        "nanosecondsPerByte": extra * 1e9 / tally.bytes_sent if tally.bytes_sent else None,
        "lived": statistics.median(tally.lives) if tally.lives else None,
        "longestLife": max(tally.lives, default=None),
        "ends": dict(tally.ends),
        "survivors": tally.survivors,
        "undigested": tally.undigested,
        "counted": result.counted,
        "memoryBefore": result.memory_before,
        "memoryPeakExtra": max(0, result.memory_peak - result.memory_before),
        "memoryKept": result.memory_after - result.memory_before,
        "p50": felt.p50,
        "p99": felt.p99,
        "longest": felt.longest,
        "sendLagP99": felt.lag_p99,
        "answered": felt.answered,
        "newStations": len(result.probes),
        "newStationsFailed": result.probe_failures,
        "newStationMedian": statistics.median(result.probes) if result.probes else None,
        "newStationLongest": max(result.probes, default=None),
    }


def show(figures: list[dict[str, Any]]) -> None:
    """Prints the table."""
    lines = [HEADINGS, *(_cells(row) for row in figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    for line in lines:
        aligned = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join([line[0].ljust(widths[0]), *aligned]))
    print()
    for row in figures:
        counted = ", ".join(f"{name} {value:g}" for name, value in row["counted"].items())
        print(
            f"{row['abuse']}: ended {row['ends'] or 'none'}, {row['survivors']} still there; counted: {counted or 'nothing'}"
        )
        for failure in row["newStationsFailed"]:
            print(f"    a new station: {failure}")


HEADINGS = (
    "abuse",
    "sent",
    "MB",
    "abusers' CPU",
    "gateway's CPU",
    "µs a unit",
    "ns a byte",
    "lived s",
    "longest",
    "peak MiB",
    "kept MiB",
    "p50 ms",
    "p99 ms",
    "max ms",
    "lag p99",
    "new ms",
    "longest",
)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["abuse"],
        f"{row['sent']:,}",
        f"{row['bytes'] / 1e6:,.1f}",
        f"{row['abusersCores']:.0%}",
        f"{row['gatewayCores']:.0%}",
        _figure(row["microsecondsPerUnit"]),
        _figure(row["nanosecondsPerByte"]),
        _figure(row["lived"]),
        _figure(row["longestLife"]),
        f"{row['memoryPeakExtra'] / MIB:.1f}",
        f"{row['memoryKept'] / MIB:.1f}",
        f"{row['p50']:.1f}",
        f"{row['p99']:.1f}",
        f"{row['longest']:.1f}",
        f"{row['sendLagP99']:.1f}",
        _figure(row["newStationMedian"], 1000),
        _figure(row["newStationLongest"], 1000),
    ]


def _figure(value: float | None, factor: float = 1.0) -> str:
    """Rounds to three significant digits."""
    if value is None:
        return "-"
    value *= factor
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
