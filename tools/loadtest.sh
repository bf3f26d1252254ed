#!/usr/bin/env bash
# Owns: one load test from end to end: Kafka and gateways in a folder of their own, the run, and the end of all of them.
# Does not own: the binaries (make loadtest builds them) and what a run does (loadtest/scenarios).
#
#   tools/loadtest.sh SCENARIO [ARGS...]      ARGS go to `ocpp-loadtest run`; exit code: its own (loadtest/README.md)
#
# Variables:
#   BIN           folder of the binaries; target/release when not set
#   BUS           kafka (default) or local
#   GATEWAYS      gateway processes; 3 for the scenario fifty-k, else 1
#   GATEWAY_ARGS  further arguments for each gateway, separated by spaces: --set KEY=VALUE
#   PORT          the first gateway's port for stations, 19000 when not set; its admin listener is 100 above, others follow
#   KAFKA_PORT    19192 when not set: not the broker of `make kafka`
set -euo pipefail
cd "$(dirname "$0")/.."

die() { echo "loadtest: $*" >&2; exit 2; }

[ $# -gt 0 ] || die "say which scenario; ocpp-loadtest scenarios lists them"
scenario=$1
shift
bin=${BIN:-target/release}
bus=${BUS:-kafka}
port=${PORT:-19000}
export KAFKA_PORT=${KAFKA_PORT:-19192}
case $(basename "$scenario" .toml) in
fifty-k) gateways=${GATEWAYS:-3} ;;
*) gateways=${GATEWAYS:-1} ;;
esac
read -ra gateway_args <<<"${GATEWAY_ARGS:-}"
[ -x "$bin/ocpp-gateway" ] && [ -x "$bin/ocpp-loadtest" ] || die "no binaries in $bin: make loadtest builds them"

# A gateway needs a file for each station; the soft limit is often lower than what is allowed.
ulimit -n "$(ulimit -Hn)"

mkdir -p loadtest/out
# On the disk that the gateway would use, not in a /tmp that may be memory.
folder=$(mktemp -d "$PWD/loadtest/out/run.XXXXXX")
pids=()

finish() {
    local code=$? pid
    trap - EXIT
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        if ! wait "$pid" && [ "$code" -eq 0 ]; then
            echo "loadtest: a gateway did not leave as it should" >&2
            code=1
        fi
    done
    if grep -h 'panicked at' "$folder"/gateway-*.log >&2 2>/dev/null; then code=1; fi
    if [ "$bus" = kafka ]; then tools/kafka.sh clean >&2 || true; fi
    if [ "$code" -ne 0 ]; then
        for log in "$folder"/gateway-*.log; do
            [ -s "$log" ] && cp "$log" "loadtest/out/$(basename "$log")" && tail -n 5 "$log" >&2
        done
    fi
    rm -rf "$folder"
    exit "$code"
}
trap finish EXIT
# Ctrl-C is the load test's business: it ends the run and reports.
trap : INT

args=()
case $bus in
kafka)
    export KAFKA_DATA=$folder/kafka
    # Tests can do with a small heap; a broker that is measured against should not be busy with collecting.
    export KAFKA_JAVA_OPTIONS=${KAFKA_JAVA_OPTIONS:--Xmx1g}
    tools/kafka.sh start >&2 || exit 2
    args+=(--bus kafka --kafka "127.0.0.1:$KAFKA_PORT")
    gateway_args+=(--set bus.kind=kafka --set "bus.kafka.brokers=127.0.0.1:$KAFKA_PORT")
    ;;
local) args+=(--bus local) ;;
*) die "BUS is kafka or local, not $bus" ;;
esac

for ((number = 0; number < gateways; number++)); do
    # setsid: as with the broker, Ctrl-C is not meant for it.
    setsid "$bin/ocpp-gateway" run --config loadtest/gateway.toml \
        --set "node.id=gw-$((number + 1))" \
        --set "node.data_dir=$folder/gateway-$number" \
        --set "listeners.main.address=127.0.0.1:$((port + number))" \
        --set "admin.address=127.0.0.1:$((port + 100 + number))" \
        "${gateway_args[@]}" >"$folder/gateway-$number.log" 2>&1 </dev/null &
    pids+=($!)
    name=gateway
    [ "$gateways" -eq 1 ] || name=gateway-$((number + 1))
    args+=(--target "ws://127.0.0.1:$((port + number))/ocpp" --admin "http://127.0.0.1:$((port + 100 + number))")
    args+=(--watch "$name=$!")
done
if [ "$bus" = kafka ]; then args+=(--watch "kafka=$(cat "$KAFKA_DATA/pid")"); fi

code=0
"$bin/ocpp-loadtest" run "$scenario" "${args[@]}" "$@" || code=$?
exit "$code"
