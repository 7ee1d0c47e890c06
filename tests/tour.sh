#!/usr/bin/env bash
# Runs the commands of docs/quickstart.md against a new server in a temporary folder.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
server="${CARGO_TARGET_DIR:-$root/target}/debug/examples/server"
folder=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/docs/quickstart.md" >tour.sh
[ -s tour.sh ] || { echo "docs/quickstart.md has no sh block" >&2; exit 1; }

for port in $(seq 18080 18120); do
    COUPLE_LISTEN=127.0.0.1:$port "$server" >server.log 2>&1 &
    pid=$!
    for _ in $(seq 100); do
        kill -0 "$pid" 2>/dev/null || break
        curl -sf -o /dev/null "http://127.0.0.1:$port/readyz" && grep -q "listens on http://127.0.0.1:$port" server.log && break 2
        sleep 0.05
    done
    grep -q "is in use" server.log || { cat server.log >&2; exit 1; }
done

# Twice: the commands can be run again with the data of the first run.
for _ in 1 2; do
    URL=http://127.0.0.1:$port bash -euo pipefail tour.sh >tour.log 2>&1 || { cat tour.log server.log >&2; exit 1; }
done
grep -q '"text":"hello"' tour.log && grep -q 'are you there?' tour.log && grep -q '^data: {"type":"entry"' tour.log ||
    { echo "the output of the tour lacks an expected line:" >&2; cat tour.log >&2; exit 1; }
echo "the tour works as written"
