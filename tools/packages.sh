#!/usr/bin/env bash
# Owns: which Debian packages the project needs beyond Rust, and their installation.
# Does not own: anything fetched for the project alone (jars: kafka.sh, Python packages: venv.sh).
#
#   tools/packages.sh GROUP...      GROUP is build, kafka or test
#
# A need is probed by what it gives (a command, a header), not by its package, so other ways of
# providing it count too. Missing ones are installed when this runs as root on a machine with
# apt-get; otherwise one line says what to install and the exit code is 1. What only some tests want
# is installed where it can be, and not missed elsewhere.
set -euo pipefail

die() { echo "packages: $*" >&2; exit 1; }

has() { command -v "$1" >/dev/null 2>&1; }
has_c_library() { has cc && echo '#include <stdio.h>' | cc -E -x c - >/dev/null 2>&1; }
has_openssl() { has pkg-config && pkg-config --exists 'openssl >= 3'; }
has_venv() { has python3 && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; }
has_chromium() { has "${CHROMIUM:-chromium}" || has chromium-browser || has google-chrome || has chrome; }
has_java_17() {
    has java || return 1
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
    [ "${version:-0}" -ge 17 ]
}

missing=()
need() { # PACKAGE PROBE...
    local package=$1
    shift
    "$@" || missing+=("$package")
}

wanted=()
want() { # PACKAGE PROBE...: as need, but the tests that use it skip without it
    local package=$1
    shift
    "$@" || wanted+=("$package")
}

[ $# -gt 0 ] || die "say which group: build, kafka, test"
for group in "$@"; do
    case $group in
    build) # librdkafka is compiled from source by the rdkafka crate
        need gcc has gcc
        need g++ has g++
        need make has make
        need pkg-config has pkg-config
        need libc6-dev has_c_library
        need libssl-dev has_openssl
        ;;
    kafka)
        need openjdk-17-jre-headless has_java_17
        need maven has mvn
        ;;
    test)
        need python3 has python3
        need python3-venv has_venv
        want kcat has kcat
        want chromium has_chromium
        ;;
    *) die "unknown group '$group': build, kafka, test" ;;
    esac
done

can_install() { [ "$(id -u)" = 0 ] && has apt-get; }
can_install || wanted=()
[ $((${#missing[@]} + ${#wanted[@]})) -gt 0 ] || exit 0
can_install || die "missing: ${missing[*]} (on Debian: sudo apt-get install ${missing[*]})"

log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
install_all() { # PACKAGE...
    echo "packages: installing $*" >&2
    { apt-get update && apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null && return
    tail -n 20 "$log" >&2
    return 1
}
if [ ${#missing[@]} -gt 0 ]; then
    install_all "${missing[@]}" || die "apt-get could not install ${missing[*]}"
fi
for package in "${wanted[@]}"; do
    install_all "$package" || echo "packages: no $package: the tests that use it skip" >&2
done
