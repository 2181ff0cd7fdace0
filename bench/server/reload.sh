#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What reloads of the model cost those who ask meanwhile: open-loop load at half of the server's capacity, in turns
# without anything and with a reload of the next of three bundles (--rounds of them, and one rollback in the end): neither
# the one that serves nor the one before, which is still in memory, so that every reload loads. Claims: every request is
# answered in time, every reload succeeds, and P99 with reloads is at most 1.2 times P99 without.
#
#   bench/server/reload.sh [--rounds N] [--seconds N] [--bundles DIR,DIR,DIR] [--beam N] [--history N] [--out FILE]
#
# --rounds: reloads (default 10); --seconds: of each turn (default 6). Without --bundles three small models are trained and
# kept in the build folder. Numbers go to build/reload.json. Measure on a quiet machine with two free cores: the
# server, with the thread that loads, has one of them and the load the other; who asks for the reload has what they leave
# of both, for starting a program costs more than a small reload. BEAMLINE_BINARY: a binary built before.
# Exit status 1: a claim failed.
set -euo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
cd "$(dirname "$0")/../.."
. scripts/lib.sh
rounds=10 seconds=6 bundles= beam=64 history=50 out=$build_root/reload.json
while (($#)); do
  case $1 in
    --rounds) rounds=$2 ;;
    --seconds) seconds=$2 ;;
    --bundles) bundles=$2 ;;
    --beam) beam=$2 ;;
    --history) history=$2 ;;
    --out) out=$2 ;;
    *) other_argument "$1" ;;
  esac
  shift 2
done
. bench/server/server.sh
build_beamline
[[ -n $bundles ]] || bundles=$(small_bundle 1),$(small_bundle 2),$(small_bundle 3)
IFS=, read -ra versions <<<"$bundles"
((${#versions[@]} == 3)) || { echo "reload: --bundles takes three folders" >&2; exit 2; }

turn() { # turn NAME: load for a turn, a line per request
  load --beam "$beam" --history "$history" --deadline-ms 1000 --seconds "$seconds" --warmup 0 --rate "$rate" \
    --json "$work/$1.json" --samples "$work/$1.tsv" >/dev/null
}
reload() { # reload NAME ARGUMENTS...: in the middle of a turn; what was said and how long it took
  local name=$1 start status=0
  shift
  sleep 2
  start=$(date +%s%N)
  chrt --idle 0 "$beamline" reload --target "127.0.0.1:$admin_port" "$@" >"$work/$name.said" 2>&1 || status=$?
  echo "$status $((($(date +%s%N) - start) / 1000000))" >"$work/$name.reload"
}

with_admin=yes
machine_line
start_server "${versions[0]}"
load --beam "$beam" --history "$history" --deadline-ms 200 --seconds 5 --warmup 1 --find-capacity --json "$work/capacity.json" \
  >/dev/null
rate=$(python3 -c "import json; print(round(json.load(open('$work/capacity.json'))['capacity']['rate'] / 2, 3))")
for ((round = 1; round <= rounds + 1; ++round)); do
  turn "quiet-$round"
  request=(--bundle "${versions[round % 3]}")
  ((round <= rounds)) || request=(--rollback)
  reload "reload-$round" "${request[@]}" &
  turn "reload-$round"
  wait $!
  echo "round $round of $((rounds + 1)): ${request[*]##*/} took $(cut -d' ' -f2 "$work/reload-$round.reload") ms" >&2
done
status=0
mkdir -p "$(dirname "$out")"
python3 bench/server/verdict.py reload "$work" "$out" || status=$?
echo "numbers: $out"
exit $status
