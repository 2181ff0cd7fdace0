#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What gRPC and scheduling cost per request: a server with a small model, calls at fixed rates from another process
# (bench/server/open_loop.cc). Goals: at most 0.15 ms of server CPU and 0.3 ms at P50 beyond encode and decode.
#
#   bench/server/overhead.sh [RATE...]      default: 50 200 500 calls a second, 20 s each
#
# Measure on a quiet machine with two free cores: the server and the client have one each. BEAMLINE_OPEN_LOOP_SECONDS is
# another duration.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
rates=("$@")
(($#)) || rates=(50 200 500)
build=$build_root/cpu-release
configure cpu-release "$build"
cmake --build "$build" -j "$jobs" --target beamline beamline_open_loop >&2

work=$(mktemp -d)
server=
stop() {
  if [[ -n $server ]]; then kill "$server" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap stop EXIT
golden=tests/golden/t5/relu_tied
"$build/bin/beamline" import hf $golden/hf --sid-index $golden/index.json --id-offset 1 --out "$work/bundle" >"$work/import.log" 2>&1
cat >"$work/server.textproto" <<CONFIG
engine { backend: "cpu" threads: 1 workers: 1 max_queue_delay_us: 0 context_cache_bytes: 0 }
CONFIG
taskset -c 0 "$build/bin/beamline" serve --config "$work/server.textproto" --bundle "$work/bundle" --port 0 --any-port \
  >"$work/server.log" 2>&1 &
server=$!
for _ in $(seq 100); do
  port=$(grep -oP '127\.0\.0\.1:\K[1-9]\d*' "$work/server.log" | head -n 1 || true)
  [[ -n $port ]] && "$build/bin/beamline" recommend --target "127.0.0.1:$port" --status >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
  sleep 0.2
done
echo "load average $(cut -d' ' -f1 /proc/loadavg); the server on core 0, the client on core 1" >&2
for rate in "${rates[@]}"; do
  taskset -c 1 "$build/bench/server/beamline_open_loop" --target "127.0.0.1:$port" --server-pid "$server" --rate "$rate" \
    --seconds "${BEAMLINE_OPEN_LOOP_SECONDS:-20}" --items "$(seq -s, 1 3 298)"
done
