#!/usr/bin/env bash
# Owns: the checks that crates/protocol stays free of I/O, clocks and runtimes, and that the WebSocket library has one user
# (ARCHITECTURE.md, invariants).
set -euo pipefail
cd "$(dirname "$0")/.."

tree=$(cargo tree --locked --package ocpp-protocol --edges normal --prefix none)
if found=$(grep -E '^(tokio|tokio-[a-z]+|mio|async-[a-z]+|hyper|rdkafka|socket2|chrono|time) v' <<<"$tree"); then
    echo "layering: ocpp-protocol depends on ${found//$'\n'/, }" >&2
    exit 1
fi
# Crates are one way in, the standard library is the other. Unit tests, which end a file, may read the clock.
forbidden='std::(net|fs|thread|process)|(Instant|SystemTime)::now'
if find crates/protocol/src -name '*.rs' -exec awk -v forbidden="$forbidden" '
    /^#\[cfg\(test\)\]/ { nextfile }
    $0 ~ forbidden { print FILENAME ":" FNR ": " $0; found = 1 }
    END { exit !found }' {} + >&2; then
    echo "layering: ocpp-protocol does I/O or reads a clock in the lines above" >&2
    exit 1
fi
if grep -rn 'tungstenite::' crates/*/src --include='*.rs' | grep -v '^crates/websocket/' >&2; then
    echo "layering: only crates/websocket names the WebSocket library" >&2
    exit 1
fi
