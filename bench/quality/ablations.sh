#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What helps and what does not: trains variants of one recipe on the same data and tokenizer and prints a table of their
# validation numbers. Short runs on purpose: they compare, they do not compete.
#
#   bench/quality/ablations.sh SEQUENCES OUT
#
# Environment: as for kuairand.sh, and EPOCHS=12. A variant whose folder exists is not run again.
set -euo pipefail
if (($# != 2)); then
  sed -n '3,9p' "$0" | cut -c3-
  exit 2
fi
sequences=$1 out=$2
beamline=${BEAMLINE:-beamline} seed=${SEED:-1} threads=${THREADS:-0} epochs=${EPOCHS:-12}
mkdir -p "$out"
[[ -e $out/data/events.tsv.gz ]] ||
  "$beamline" import sequences "$sequences" --labels long_view --out "$out/data"

tokenizer() { # NAME ARGUMENTS...
  local folder=$out/tokenizer-$1
  shift
  [[ -e $folder/sids.tsv ]] || "$beamline" tokenize --events "$out/data" --seed "$seed" "$@" --out "$folder" >/dev/null
}
variant() { # NAME TOKENIZER ARGUMENTS...
  local name=$1 folder=$out/tokenizer-$2
  shift 2
  if [[ ! -e $out/$name.json ]]; then
    "$beamline" train --data "$out/data" --tokenizer "$folder" --preset small --seed "$seed" --threads "$threads" \
      --epochs "$epochs" --validate-every "$epochs" --validation-users 4000 --out "$out/$name" "$@" >"$out/$name.log"
    "$beamline" evaluate --model "$out/$name" --data "$out/data" --tokenizer "$folder" --split validation \
      --threads "$threads" --out "$out/$name.json" >/dev/null
  fi
  printf '%-24s %s\n' "$name" "$("$beamline" evaluate --show "$out/$name.json" | grep -m 1 '^model ')"
}

tokenizer plain --levels 256,256,256
tokenizer unique --levels 256,256,256 --collision-free
tokenizer wide --levels 512,256,256 --collision-free
tokenizer two --levels 512,128 --collision-free
tokenizer coarse --levels 64,64,64
printf '%-24s %-18s %8s %8s %8s\n' variant "" R@5 N@5 R@10
variant recipe unique
variant colliding-sids plain
variant levels-512-256-256 wide
variant levels-512-128 two
variant levels-64 coarse
variant no-average unique --average-decay 0
variant no-smoothing unique --label-smoothing 0
variant dropout-0.1 unique --dropout 0.1
variant dropout-0.4 unique --dropout 0.4
variant event-dropout-0.2 unique --event-dropout 0.2
variant targets-8 unique --targets-per-history 8
variant weight-decay-0.1 unique --weight-decay 0.1
