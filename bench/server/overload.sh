#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a server does under more load than it can carry, open loop. First its capacity is measured: the largest Poisson
# rate of which 99 % is answered within the deadline and nothing is refused. Then, each on a fresh server:
#   light      80 % of the capacity: no error
#   heavy      200 %: goodput of at least 90 % of the capacity, the rest refused at once, memory bounded
#   classes    200 %, a fifth critical, a fifth sheddable: the classes lose in their order
#   narrowing  200 %, with a ladder of beams: more is answered, and each answer says with how many beams
# A line PASS or FAIL per claim; the numbers go to bench/results/overload.json. Exit status 1: a claim failed.
#
#   bench/server/overload.sh [--seconds N] [--bundle DIR] [--deadline-ms N] [--beam N] [--history N] [--out FILE]
#
# --seconds: of light and of heavy (default 600; the others take a quarter). Without --bundle a small model is made and
# kept in the build folder. Measure on a quiet machine with two free cores. BEAMLINE_BINARY: a binary built before.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
seconds=600 bundle= deadline=200 beam=64 history=50 out=bench/results/overload.json
while (($#)); do
  case $1 in
    --seconds) seconds=$2 ;;
    --bundle) bundle=$2 ;;
    --deadline-ms) deadline=$2 ;;
    --beam) beam=$2 ;;
    --history) history=$2 ;;
    --out) out=$2 ;;
    *)
      sed -n '3,14p' "$0" | cut -c3-
      [[ $1 == --help || $1 == -h ]] && exit 0
      echo "overload: unknown argument '$1'" >&2
      exit 2
      ;;
  esac
  shift 2
done
. bench/server/server.sh
build_beamline

[[ -n $bundle ]] || bundle=$(small_bundle 1)

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
times() { python3 -c "print(round($1 * $(python3 -c "import json; print(json.load(open('$work/capacity.json'))['capacity']['rate'])"), 3))"; }
quarter=$((seconds / 4 > 5 ? seconds / 4 : 5))
trial=$((5 * deadline / 1000 + 1 > 5 ? 5 * deadline / 1000 + 1 : 5))
((seconds < 120)) || trial=$((trial > 20 ? trial : 20))

machine_line
echo "capacity within $deadline ms" >&2
start_server "$bundle" "" "$limits"
run capacity "$trial" --find-capacity
for name in light heavy; do
  start_server "$bundle" "" "$limits"
  run $name "$seconds" --rate "$(times "$([[ $name == light ]] && echo 0.8 || echo 2)")"
done
start_server "$bundle" "" "$limits"
run classes "$quarter" --rate "$(times 2)" --classes 20,60,20
ladder=
for step in 1 2 3; do
  ladder+=" narrowing { wait_ms: $((deadline * step / 8)) beam_width: $((beam >> step)) }"
done
start_server "$bundle" "$ladder" "$limits"
run narrowing "$quarter" --rate "$(times 2)"

echo
status=0
python3 bench/server/verdict.py overload "$work" || status=$?
mkdir -p "$(dirname "$out")"
python3 - "$work" "$out" <<'PY'
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
result = {name: json.loads((folder / f"{name}.json").read_text())
          for name in ("verdict", "capacity", "light", "heavy", "classes", "narrowing")}
for name, run in result.items():
    if name != "verdict":
        run["target"].pop("server", None)  # a port
pathlib.Path(sys.argv[2]).write_text(json.dumps(result, indent=1) + "\n")
PY
echo "numbers: $out"
exit $status
