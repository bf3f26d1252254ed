#!/usr/bin/env bash
# Owns: a real single-node Apache Kafka (KRaft, broker and controller in one process) for
# development and tests, in .tools/kafka: its jars, its data, its start and its end.
# Does not own: topics (the broker creates them on first use) and anything meant for production.
#
#   tools/kafka.sh setup     fetch the jars (once)
#   tools/kafka.sh start     setup, start in the background, return when the broker answers
#   tools/kafka.sh status    say whether it runs; exit code 0 when it answers
#   tools/kafka.sh stop      stop it, data stays
#   tools/kafka.sh clean     stop it and delete its data (the jars stay)
#
# Variables:
#   KAFKA_PORT               where clients connect, on 127.0.0.1; 19092 when not set
#   KAFKA_CONTROLLER_PORT    for the broker itself; KAFKA_PORT + 1 when not set
#   KAFKA_DATA               folder of one broker: data, configuration, log, pid;
#                            .tools/kafka/node-PORT when not set
#   KAFKA_WAIT               seconds to wait for an answer; 60 when not set
#   KAFKA_PROPERTIES         further lines of the broker's configuration; they win over those written here
#   KAFKA_JAVA_OPTIONS       further options of the JVM, separated by spaces; they win over those written here
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

die() { echo "kafka: $*" >&2; exit 1; }

port=${KAFKA_PORT:-19092}
[[ $port =~ ^[0-9]+$ ]] || die "KAFKA_PORT is not a number: $port"
controller_port=${KAFKA_CONTROLLER_PORT:-$((port + 1))}
patience=${KAFKA_WAIT:-60}
home=$root/.tools/kafka
libs=$home/libs
template=$home/template
classes=$template/classes.jsa
data=${KAFKA_DATA:-$home/node-$port}
[[ $data = /* ]] || data=$root/$data
properties=$data/server.properties
log=$data/kafka.log
pid_file=$data/pid
pom=$root/tools/kafka/pom.xml

# Small heap, no optimising compiler: start-up in seconds matters more here than throughput.
java_options=(-Xms128m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    -Dlog4j2.configurationFile="$root/tools/kafka/log4j2.properties" -cp "$libs/*")
# The JVM does without an archive that it cannot use.
if [ -e "$classes" ]; then java_options+=(-XX:SharedArchiveFile="$classes"); fi
read -ra more_java_options <<<"${KAFKA_JAVA_OPTIONS:-}"
java_options+=("${more_java_options[@]}")

# True when the broker at the port answers a Metadata request (v0, no topics named) and lists at
# least one live broker: listening alone comes earlier than being able to serve.
answers() {
    local reply
    reply=$(
        exec 2>/dev/null
        exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
        # size 14 | api 3 | version 0 | correlation 1 | client id null | topics: empty list
        printf '\x00\x00\x00\x0e\x00\x03\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00' >&3
        timeout 5 head -c 12 <&3 | od -An -v -tx1 | tr -d ' \n'
    ) || return 1
    # size | correlation 1 | number of brokers
    [[ $reply =~ ^[0-9a-f]{8}00000001([0-9a-f]{8})$ ]] && [ "${BASH_REMATCH[1]}" != 00000000 ]
}

# Prints the pid when the process that the pid file names is this broker, not a later one with its number.
running_pid() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) || return 1
    [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "kafka.Kafka $properties" && echo "$pid"
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

setup() {
    local stamp=$home/libs.pom.xml
    mkdir -p "$home"
    exec 9>"$home/lock" # two callers must not fill the same folder
    flock 9
    if ! cmp -s "$pom" "$stamp"; then
        "$root/tools/packages.sh" kafka
        echo "kafka: fetching the jars into ${libs#"$root"/}" >&2
        rm -rf "$libs"
        mvn --batch-mode --quiet -Dstyle.color=never --file "$pom" \
            org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$libs" </dev/null >"$home/fetch.log" 2>&1 ||
            die "Maven could not fetch the jars, see $home/fetch.log: $(grep -m1 ERROR "$home/fetch.log" || true)"
        cp "$pom" "$stamp"
    fi
    exec 9>&-
}

configure() {
    mkdir -p "$data" || die "cannot write to $data"
    cat >"$properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$data/logs
num.partitions=6
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
# A killed broker may register again only when its old session has ended: 9 s by default.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
${KAFKA_PROPERTIES:-}
PROPERTIES
    if [ ! -e "$data/logs/meta.properties" ]; then
        prepare
        # Emptied, not removed: a test may have mounted a small disk there.
        mkdir -p "$data/logs"
        find "$data/logs" -mindepth 1 -delete
        cp -r "$template/logs/." "$data/logs"
    fi
}

# Makes once what every broker begins with: a formatted log folder, and an archive of the classes that a broker loads, with
# which it starts in half the processor time.
prepare() {
    local id pid
    exec 9>"$home/lock" # two callers must not fill the same folder
    flock 9
    if ! cmp -s "$pom" "$template/pom.xml"; then
        rm -rf "$template"
        mkdir -p "$template"
        id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d =)
        sed "s|^log.dirs=.*|log.dirs=$template/logs|" "$properties" >"$template/server.properties"
        java "${java_options[@]}" kafka.tools.StorageTool format -t "$id" -c "$template/server.properties" \
            >"$log" 2>&1 || die "could not format $template/logs: $(tail -n 1 "$log")"
        cp -r "$template/logs" "$template/trial"
        sed -i "s|^log.dirs=.*|log.dirs=$template/trial|" "$template/server.properties"
        java "${java_options[@]}" -XX:ArchiveClassesAtExit="$classes" kafka.Kafka "$template/server.properties" \
            >"$log" 2>&1 </dev/null 9>&- &
        pid=$!
        wait_for_answer "$pid"
        kill "$pid"
        wait "$pid" || true # it says by its exit code that it was asked to stop
        rm -rf "$template/trial"
        cp "$pom" "$template/pom.xml"
    fi
    exec 9>&-
}

# The line of the broker's log that says why it ended; the last line when none does.
reason() { grep -m1 -E 'ERROR|FATAL|Exception' "$log" || tail -n 1 "$log"; }

wait_for_answer() { # PID
    local deadline=$((SECONDS + patience))
    until answers; do
        if ! kill -0 "$1" 2>/dev/null; then die "the broker ended: $(reason) (see $log)"; fi
        [ $SECONDS -lt $deadline ] || die "no answer on 127.0.0.1:$port within $patience s (see $log)"
        sleep 0.2
    done
}

start() {
    local pid
    if pid=$(running_pid); then
        wait_for_answer "$pid"
        echo "kafka: already running on 127.0.0.1:$port (pid $pid)"
        return
    fi
    setup
    for wanted in "$port" "$controller_port"; do
        ! port_is_taken "$wanted" || die "port $wanted is in use by something else (set KAFKA_PORT)"
    done
    configure
    # setsid: Ctrl-C in the shell that started it is not meant for the broker.
    setsid java "${java_options[@]}" kafka.Kafka "$properties" >>"$log" 2>&1 </dev/null &
    pid=$!
    echo "$pid" >"$pid_file"
    wait_for_answer "$pid"
    echo "kafka: running on 127.0.0.1:$port (pid $pid, log ${log#"$root"/})"
}

stop() {
    local pid deadline=$((SECONDS + 20))
    if ! pid=$(running_pid); then
        rm -f "$pid_file"
        echo "kafka: not running on 127.0.0.1:$port"
        return
    fi
    kill "$pid"
    while running_pid >/dev/null; do
        # A broker that was stopped or is stuck does not take the hint.
        if [ $SECONDS -ge $deadline ]; then kill -9 "$pid" 2>/dev/null || true; fi
        sleep 0.1
    done
    rm -f "$pid_file"
    echo "kafka: stopped"
}

case ${1:-} in
setup) setup ;;
start) start ;;
stop) stop ;;
clean)
    # Its data goes, so that there is nothing to shut down in order.
    if pid=$(running_pid); then kill -9 "$pid"; fi
    stop
    # Only ever a folder that this script made.
    if [ -e "$properties" ]; then rm -rf "$data"; fi
    ;;
status)
    if pid=$(running_pid) && answers; then
        echo "kafka: running on 127.0.0.1:$port (pid $pid)"
    elif [ -n "${pid:-}" ]; then
        die "pid $pid runs but does not answer on 127.0.0.1:$port"
    else
        die "not running on 127.0.0.1:$port"
    fi
    ;;
*) die "say what: setup, start, status, stop, clean" ;;
esac
