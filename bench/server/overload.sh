#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a server does under more load than it can carry, open loop. First its capacity is measured: the largest Poisson
# rate of which 99 % is answered within the deadline and nothing is refused. Then, each on a fresh server:
#   light      80 % of the capacity: no error
#   heavy      200 %: goodput of at least 90 % of the capacity, the rest refused at once, memory bounded. In turns, each
#              held against the larger of the searches for the capacity before and behind it: a virtual machine's speed
#              may drift by a fifth within minutes
#   classes    200 %, a fifth critical, a fifth sheddable: the classes lose in their order
#   narrowing  200 %, with a ladder of beams: more is answered, and each answer says with how many beams
# A line PASS or FAIL per claim; the numbers go to build/overload.json. Exit status 1: a claim failed.
#
#   bench/server/overload.sh [--seconds N] [--bundle DIR] [--deadline-ms N] [--beam N] [--history N] [--out FILE]
#
# --seconds: of light and of heavy's turns in all (default 600; the others take a quarter). Without --bundle a model of
# preset small is made and kept in the build folder. The server computes with one thread and has a second core for its
# calls, as in service: to receive and refuse one takes gRPC .2 ms, a tenth of what an answer takes here, and on the one
# core that computes that would be lost to the answers, whoever decides. Of two cores the load shares the second. Measure on a
# quiet machine. BEAMLINE_BINARY: a binary built before.
set -euo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
cd "$(dirname "$0")/../.."
. scripts/lib.sh
seconds=600 bundle= deadline=200 beam=64 history=50 out=$build_root/overload.json
while (($#)); do
  case $1 in
    --seconds) seconds=$2 ;;
    --bundle) bundle=$2 ;;
    --deadline-ms) deadline=$2 ;;
    --beam) beam=$2 ;;
    --history) history=$2 ;;
    --out) out=$2 ;;
    *) other_argument "$1" ;;
  esac
  shift 2
done
. bench/server/server.sh
build_beamline

[[ -n $bundle ]] || bundle=$(small_bundle 1 small)

server_core+=,$(($(nproc) > 2 ? 2 : load_core))
with_admin=yes limits='limits { accept_critical: true }'
run() { # run NAME SECONDS LOAD-ARGUMENTS...
  local name=$1 duration=$2
  shift 2
  load --beam "$beam" --history "$history" --deadline-ms "$deadline" --seconds "$duration" --warmup 2 \
    --json "$work/$name.json" "$@" | sed 's/^/  /'
  awk '/^VmHWM/ {print $2}' "/proc/$server/status" >"$work/$name.rss"
  python3 - "http://127.0.0.1:$http_port/metrics" >"$work/$name.metrics" <<'PY'
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
sys.stdout.write(opener.open(sys.argv[1], timeout=10).read().decode())
PY
}
# times FACTOR N: of the capacity that search N found.
times() {
  python3 -c 'import json, sys
print(round(float(sys.argv[1]) * json.load(open(sys.argv[2]))["capacity"]["rate"], 3))' "$1" "$work/capacity-$2.json"
}
turns=2
((seconds < 120)) || turns=3
quarter=$((seconds / 4 > 5 ? seconds / 4 : 5)) tenth=$((seconds / 10 > 5 ? seconds / 10 : 5))
# Of a search. What a few good seconds carried would pass for the capacity of ten minutes.
trial=$((5 * deadline / 1000 + 1 > tenth ? 5 * deadline / 1000 + 1 : tenth))

machine_line
echo "capacity within $deadline ms" >&2
start_server "$bundle" "" "$limits"
run capacity-0 "$trial" --find-capacity
start_server "$bundle" "" "$limits"
run light "$seconds" --rate "$(times 0.8 0)"
start_server "$bundle" "" "$limits"
run capacity-1 "$trial" --find-capacity --rate "$(times 1 0)"
for ((turn = 1; turn <= turns; turn++)); do
  run heavy-$turn $((seconds / turns)) --rate "$(times 2 $turn)"
  run capacity-$((turn + 1)) "$trial" --find-capacity --rate "$(times 1 $turn)"
done
start_server "$bundle" "" "$limits"
run classes "$quarter" --rate "$(times 2 $turn)" --classes 20,60,20
ladder=
for step in 1 2 3; do
  ladder+=" narrowing { wait_ms: $((deadline * step / 8)) beam_width: $((beam >> step)) }"
done
start_server "$bundle" "$ladder" "$limits"
run narrowing "$quarter" --rate "$(times 2 $turn)"

echo
status=0
mkdir -p "$(dirname "$out")"
python3 bench/server/verdict.py overload "$work" "$out" || status=$?
echo "numbers: $out"
exit $status
