#!/usr/bin/env bash
# Runs the check that every crate and module uses only what lies below it (tools/layering/layers.txt).
#
#   tools/layering.sh             fails when something does not
#   tools/layering.sh FOLDER      prints levels that the modules of a package could have
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --locked --package ocpp-layering -- "$@"
