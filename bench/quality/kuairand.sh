#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Quality on KuaiRand-Pure, from one command: import, tokenize, train, evaluate. Long views, 5-core; of each user the last
# item is the test and the one before it validation.
#
#   bench/quality/kuairand.sh SEQUENCES OUT [OPTION OF beamline train ...]
#
# SEQUENCES  one user per line: user<TAB>items in time order, e.g. derived/long_view_5core.tsv.gz
# OUT        folder for data, tokenizer, model and evaluation; a stopped run goes on where it was when called again, and one
#            of other data or options is refused
#
# Environment: BEAMLINE=path of the binary, SEED=1, LEVELS=1024,64 (the first at most the number of items), BEAM=128,
# THREADS=0 (one per core).
# Needs no more than 2 hours on 2 cores; times are written to OUT/times.tsv.
set -euo pipefail
. "$(dirname "$0")/common.sh"
seed=${SEED:-1} levels=${LEVELS:-1024,64} beam=${BEAM:-128} threads=${THREADS:-0}

run() {
  local start=$SECONDS
  echo "\$ beamline $*"
  "$beamline" "$@" || return
  printf '%s\t%d\t%s\n' "$1" "$((SECONDS - start))" "beamline $*" >>"$out/times.tsv"
}

step "$out/data/events.tsv.gz" import sequences "$input" --labels long_view --out "$out/data"
step "$out/tokenizer/sids.tsv" tokenize --events "$out/data" --levels "$levels" --collision-free --window 0 \
  --seed "$seed" --threads "$threads" --out "$out/tokenizer"
step "$out/model/model.safetensors" train --data "$out/data" --tokenizer "$out/tokenizer" --preset small \
  --seed "$seed" --threads "$threads" --out "$out/model" "$@"
evaluation=("$out/test.json" evaluate --model "$out/model" --data "$out/data" --tokenizer "$out/tokenizer" \
  --beam "$beam" --resamples 10000 --threads "$threads" --out "$out/test.json")
if made "${evaluation[@]}"; then
  "$beamline" evaluate --show "$out/test.json"
else
  step "${evaluation[@]}"
fi
