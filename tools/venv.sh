#!/usr/bin/env bash
# Owns: the virtual environment of the end-to-end tests and the tour, .tools/venv.
# Does not own: python3 itself and the venv module (packages.sh).
#
#   tools/venv.sh      creates it, or brings it up to tests/e2e/requirements.txt; quick when nothing changed
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.tools/venv
requirements=tests/e2e/requirements.txt
stamp=$venv/installed-requirements.txt

die() { echo "venv: $*" >&2; exit 1; }

mkdir -p .tools
exec 9>.tools/venv.lock # two make calls at once must not install into the same folder
flock 9

if cmp -s "$requirements" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
# A half-made environment, or one whose interpreter is gone, is not worth repairing.
python3 -m venv --clear "$venv" || die "python3 -m venv failed: is python3-venv installed?"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" ||
    die "pip could not install $requirements"
cp "$requirements" "$stamp"
