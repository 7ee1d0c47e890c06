#!/usr/bin/env bash
# Runs the commands of the README's tour against a server of its own, in a folder of its own.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
server="${CARGO_TARGET_DIR:-$root/target}/debug/examples/server"
folder=$(mktemp -d)
trap 'kill "${pid:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
cd "$folder"

awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/README.md" >tour.sh
[ -s tour.sh ] || { echo "the README has no tour" >&2; exit 1; }

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

URL=http://127.0.0.1:$port bash -euo pipefail tour.sh >tour.log 2>&1 || { cat tour.log server.log >&2; exit 1; }
grep -q '"text":"hello"' tour.log && grep -q 'are you there?' tour.log && grep -q '^data: {"type":"entry"' tour.log ||
    { echo "the tour did not show what it promises:" >&2; cat tour.log >&2; exit 1; }
echo "the tour works as written"
