#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Quality on KuaiRand-Pure, from one command: import, tokenize, train, evaluate. Long views, 5-core, last item = test.
#
#   bench/quality/kuairand.sh SEQUENCES OUT [OPTION OF beamline train ...]
#
# SEQUENCES  one user per line: user<TAB>items in time order, e.g. derived/long_view_5core.tsv.gz
# OUT        folder for data, tokenizer, model and evaluation; a stopped run goes on where it was when called again
#
# Environment: BEAMLINE=path of the binary, SEED=1, LEVELS=1024,64 (the first at most the number of items), BEAM=128,
# THREADS=0 (one per core).
# Needs no more than 2 hours on 2 cores; times are written to OUT/times.tsv.
set -euo pipefail
if (($# < 2)); then
  sed -n '3,12p' "$0" | cut -c3-
  exit 2
fi
sequences=$1 out=$2
shift 2
beamline=${BEAMLINE:-beamline} seed=${SEED:-1} levels=${LEVELS:-1024,64} beam=${BEAM:-128} threads=${THREADS:-0}
mkdir -p "$out"

# step NAME OUTPUT VERB ARGUMENTS...: runs the verb unless an earlier call left OUTPUT, and notes its seconds.
step() {
  local name=$1 output=$2 start=$SECONDS
  shift 2
  [[ -e $output ]] && return
  echo "\$ beamline $*"
  "$beamline" "$@"
  printf '%s\t%d\t%s\n' "$name" "$((SECONDS - start))" "beamline $*" >>"$out/times.tsv"
}

step import "$out/data/events.tsv.gz" import sequences "$sequences" --labels long_view --out "$out/data"
step tokenize "$out/tokenizer/sids.tsv" tokenize --events "$out/data" --levels "$levels" --collision-free --window 0 \
  --seed "$seed" --threads "$threads" --out "$out/tokenizer"
step train "$out/model/model.safetensors" train --data "$out/data" --tokenizer "$out/tokenizer" --preset small \
  --seed "$seed" --threads "$threads" --out "$out/model" "$@"
step evaluate "$out/test.json" evaluate --model "$out/model" --data "$out/data" --tokenizer "$out/tokenizer" \
  --beam "$beam" --resamples 10000 --threads "$threads" --out "$out/test.json"
"$beamline" evaluate --show "$out/test.json"
