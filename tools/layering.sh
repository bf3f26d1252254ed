#!/usr/bin/env bash
# Runs the check that every crate and module uses only what lies below it (tools/layering/layers.txt).
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --locked --package ocpp-layering
