#!/usr/bin/env bash
# Owns: the npm package `ws` for the one test that uses it, .tools/ws.
# Does not own: node and npm. Not a need: the test skips without them.
#
#   tools/ws.sh      fetches it, or brings it up to tests/e2e/ws/package-lock.json; quick when nothing changed
set -euo pipefail
cd "$(dirname "$0")/.."

command -v npm >/dev/null 2>&1 || exit 0
lock=tests/e2e/ws/package-lock.json
cmp -s "$lock" .tools/ws/package-lock.json && [ -d .tools/ws/node_modules/ws ] && exit 0
rm -rf .tools/ws
mkdir -p .tools/ws
cp tests/e2e/ws/package.json "$lock" .tools/ws/
npm ci --prefix .tools/ws --no-audit --no-fund --silent || {
    echo "ws: npm could not install $lock; the test that uses it will be skipped" >&2
    rm -rf .tools/ws
}
