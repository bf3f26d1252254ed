"""Runs every abuse against a gateway with ordinary stations, one after another, and prints what each cost.

    make bench-abuse                       all of them, about five minutes
    make bench-abuse ABUSE='pings bomb'    those whose names begin with these

The gateway, with its local log, has core 0 to itself; ordinary stations and abusers share core 1, the abusers with a lower priority.
The figures and the load test's report are in .tools/abuse.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time

from harness.gateway import REPOSITORY, Gateway, binary

from . import table
from .catalogue import abuses
from .ordinary import CONNECT_SECONDS, Ordinary, loadtest_binary
from .stage import Result, play

OUTPUT = REPOSITORY / ".tools" / "abuse"


def configured(port: int | None) -> Gateway:
    """The gateway, not started, with its defaults except for what a measurement needs."""
    config = {"log": {"level": "error"}, "bus": {"local": {"max_size": "0 B"}}}
    node = Gateway(OUTPUT / "gateway", config)
    if port is not None:
        node.port, node.admin_port = port, port + 1
        node.config["listeners"]["main"]["address"] = f"127.0.0.1:{port}"
        node.config["admin"]["address"] = f"127.0.0.1:{port + 1}"
    return node


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-abuse")
    parser.add_argument("abuse", nargs="*", help="the beginning of a name; may be repeated")
    parser.add_argument("--port", type=int, help="the gateway's ports are this and the next; free ones by default")
    arguments = parser.parse_args()
    begins = ("none", *arguments.abuse)
    chosen = [one for one in abuses() if not arguments.abuse or one.name.startswith(begins)]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    node = configured(arguments.port)
    ordinary = None
    cores = sorted(os.sched_getaffinity(0))
    results: list[Result] = []
    try:
        # A process starts as many threads as it has cores.
        os.sched_setaffinity(0, cores[:1])
        node.start()
        os.sched_setaffinity(0, cores[-1:])
        ordinary = Ordinary(node, loadtest_binary(), OUTPUT)
        time.sleep(CONNECT_SECONDS + 2)
        for one in chosen:
            results.append(play(node, one))
            print(f"{one.name}: {results[-1].tally.seconds:.0f} s", file=sys.stderr, flush=True)
        account = ordinary.finish()
        code = node.sigterm(30)
    finally:
        if ordinary is not None:
            ordinary.kill()
        node.kill9()
    rows = table.rows(results, account)
    whole = {"gateway": str(binary()), "ordinary": account.summary(), "rows": rows}
    (OUTPUT / "abuse.json").write_text(json.dumps(whole, indent=1))
    shutil.rmtree(node.data_dir, ignore_errors=True)
    table.show(rows)
    for complaint in account.complaints():
        print(f"ordinary stations: {complaint}")
    if code:
        print(f"the gateway ended with code {code}")
    return 1 if code or account.complaints() else 0


if __name__ == "__main__":
    sys.exit(main())
