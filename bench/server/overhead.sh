#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What gRPC and scheduling cost per request: a server with a small model, calls at even distances from another process
# (beamline bench). Prints both numbers of each rate and whether they meet the goals: at most 0.15 ms of server CPU and
# 0.3 ms at P50 beyond encode and decode. Exit status 1: they do not.
#
#   bench/server/overhead.sh [RATE...]      default: 50 200 500 calls a second, 20 s each
#
# Measure on a quiet machine with two free cores: the server and the client have one each. BEAMLINE_OVERHEAD_SECONDS is
# another duration, BEAMLINE_BINARY a binary built before, BEAMLINE_OVERHEAD_JSON a file to keep the numbers in.
# BEAMLINE_OVERHEAD_FLOOR=yes measures what calls cost that do nothing, too: the floor of gRPC's callback API.
set -euo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
rates=("$@")
(($#)) || rates=(50 200 500)
for rate in "${rates[@]}"; do
  [[ $rate =~ ^[0-9.]+$ ]] || other_argument "$rate"
done
cd "$(dirname "$0")/../.."
. scripts/lib.sh
. bench/server/server.sh
build_beamline
golden=tests/golden/t5/relu_tied
"$beamline" import hf $golden/hf --sid-index $golden/index.json --id-offset 1 --out "$work/bundle" >"$work/import.log" 2>&1
start_server "$work/bundle" "max_queue_delay_us: 0"
machine_line
load --rate "$(IFS=,; echo "${rates[*]}")" --arrivals constant --beam 20 --history 10 --warmup 1 --deadline-ms 10000 \
  --seconds "${BEAMLINE_OVERHEAD_SECONDS:-20}" --json "$work/overhead.json" >"$work/overhead.txt"
if [[ ${BEAMLINE_OVERHEAD_FLOOR:-no} == yes ]]; then
  echo "gRPC alone, calls of the same server's health service:"
  load --health --rate "$(IFS=,; echo "${rates[*]}")" --arrivals constant --warmup 1 --deadline-ms 10000 \
    --seconds "${BEAMLINE_OVERHEAD_SECONDS:-20}" 2>/dev/null | grep -E 'open loop|latency|server CPU'
fi
if [[ -n ${BEAMLINE_OVERHEAD_JSON:-} ]]; then cp "$work/overhead.json" "$BEAMLINE_OVERHEAD_JSON"; fi
python3 bench/server/verdict.py overhead "$work/overhead.json"
