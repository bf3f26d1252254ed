"""Runs the scenarios and prints a table of the results.

    make faults                    all of them, about 20 minutes
    make faults SCENARIO=kafka     those whose names begin with this
    make faults QUICK=1            shorter outages, fewer repetitions

The exit code is 0 only if every scenario passes. `results.json`, and the logs and data of failed scenarios, are in .tools/faults.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict

from harness.gateway import REPOSITORY

from . import corruption, scenarios, undeliverable
from .stage import Row, Stage

OUTPUT = REPOSITORY / ".tools" / "faults"
SCENARIOS: dict[str, Callable[[Stage], None]] = {
    play.__name__.replace("_", "-"): play
    for play in (
        scenarios.kafka_killed_spool,
        scenarios.kafka_killed_hold,
        scenarios.kafka_killed_close,
        scenarios.kafka_frozen_spool,
        scenarios.kafka_frozen_hold,
        scenarios.kafka_disk_full,
        scenarios.replicas_missing_spool,
        scenarios.replicas_missing_hold,
        scenarios.gateway_killed,
        scenarios.gateway_killed_spooling,
        scenarios.gateway_killed_draining,
        scenarios.both_down,
        scenarios.both_down_hold,
        scenarios.spool_disk_full,
        scenarios.spool_disk_full_drain,
        scenarios.spool_limit,
        corruption.spool_corrupted,
        scenarios.kafka_slow_200ms,
        scenarios.kafka_slow_2s,
        undeliverable.record_too_large,
        undeliverable.record_too_large_draining,
        undeliverable.unknown_results_topic_spool,
        undeliverable.unknown_results_topic_hold,
        undeliverable.unknown_events_topic,
        undeliverable.wrong_credentials_spool,
        undeliverable.wrong_credentials_hold,
    )
}

HEADINGS = (
    ("scenario", 28),
    ("stations", 8),
    ("answered", 8),
    ("events", 8),
    ("dead letters", 12),
    ("lost", 5),
    ("reordered", 9),
    ("same id", 8),
    ("other id", 8),
    ("longest wait", 12),
    ("peak RSS", 9),
    ("time", 6),
    ("verdict", 7),
)


def play(name: str, quick: bool) -> Row:
    """Runs one scenario in an empty folder, which is deleted if it passes."""
    with Stage(name, OUTPUT / name, quick=quick) as stage:
        try:
            SCENARIOS[name](stage)
        except Exception as error:
            stage.row.failures.append(f"{type(error).__name__}: {error}"[:2000])
            (stage.directory / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        if stage.row.peak_rss == 0 and stage.gateway:
            stage.gateway.note_memory()
            stage.row.peak_rss = stage.gateway.peak_rss
    if stage.row.is_passed:
        shutil.rmtree(stage.directory, ignore_errors=True)
    return stage.row


def cells(row: Row) -> list[str]:
    verdict = row.verdict
    if verdict is None:
        figures = ["-"] * 9
    else:
        figures = [
            f"{verdict.stations}",
            f"{verdict.answered}",
            f"{verdict.events}",
            f"{verdict.dead_letters}",
            f"{len(verdict.lost)}",
            f"{len(verdict.reordered)}",
            f"{verdict.duplicates}",
            f"{verdict.foreign_duplicates}",
            f"{verdict.longest_wait:.1f} s",
        ]
    return [
        row.scenario,
        *figures,
        f"{row.peak_rss / (1 << 20):.0f} MiB",
        f"{row.seconds:.0f} s",
        "pass" if row.is_passed else "FAIL",
    ]


def line(texts: list[str]) -> str:
    aligned = (
        text.ljust(width) if index == 0 else text.rjust(width)
        for index, (text, (_, width)) in enumerate(zip(texts, HEADINGS, strict=True))
    )
    return "  ".join(aligned)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults")
    parser.add_argument("scenario", nargs="*", help="the beginning of a name; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the scenarios and run none")
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")))
    arguments = parser.parse_args()
    if arguments.list:
        for name, one in SCENARIOS.items():
            print(f"{name:<30}{one.__doc__}")
        return 0
    begins = tuple(arguments.scenario)
    names = [name for name in SCENARIOS if not begins or name.startswith(begins)]
    if not names:
        parser.error(f"no scenario begins with {' or '.join(begins)}; --list names them")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    print(line([heading for heading, _ in HEADINGS]), flush=True)
    rows: list[Row] = []
    for name in names:
        row = play(name, arguments.quick)
        rows.append(row)
        print(line(cells(row)), flush=True)
        for failure in row.failures:
            print(f"    FAIL {failure}", flush=True)
        for note in row.notes:
            print(f"    {note}", flush=True)
        with contextlib.suppress(OSError):
            results = [asdict(one) | {"passed": one.is_passed} for one in rows]
            (OUTPUT / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    failed = [row.scenario for row in rows if not row.is_passed]
    print(f"{len(rows) - len(failed)} of {len(rows)} passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
