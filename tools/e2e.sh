#!/usr/bin/env bash
# Owns: how the end-to-end tests run: most of them two at a time, then those marked `serial`, which measure time and need the
# machine to themselves.
# Does not own: the binaries (OCPP_GATEWAY_BIN), the virtual environment (venv.sh), Kafka (kafka.sh).
#
#   tools/e2e.sh [ARGUMENT...]    arguments of pytest, such as -k tour -x
#
# Variables:
#   E2E_WORKERS    tests at a time; 2 when not set
set -euo pipefail
cd "$(dirname "$0")/.."

nothing_collected=5
ran=
failed=0

run() {
    local code=0
    .tools/venv/bin/python -m pytest tests/e2e "$@" || code=$?
    case $code in
    0) ran=yes ;;
    "$nothing_collected") ;; # none of the tests that were asked for is of this kind
    *) ran=yes failed=$code ;;
    esac
}

# worksteal: a worker that has finished takes over tests of the other, so that both end at the same time.
run --numprocesses "${E2E_WORKERS:-2}" --dist worksteal -m "not serial" "$@"
if [[ $failed = 0 || " $* " != *" -x "* ]]; then run -m serial "$@"; fi
[ -n "$ran" ] || exit "$nothing_collected"
exit "$failed"
