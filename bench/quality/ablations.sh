#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What helps and what does not: trains variants of preset `small`'s recipe on the same data, at a smaller width so that a
# row takes minutes, and prints a table of their validation numbers (all users, beam 64, the last epoch's weights).
#
#   bench/quality/ablations.sh SEQUENCES OUT [VARIANT ...]
#
# Environment: BEAMLINE=path of the binary, SEED=1, EPOCHS=10, THREADS=0 (one per core). A variant that is finished is not
# run again, and one that was made of other data or options is refused.
set -euo pipefail
. "$(dirname "$0")/common.sh"
wanted=("$@") seed=${SEED:-1} threads=${THREADS:-0} epochs=${EPOCHS:-10}

variants() { # COMMAND: runs it for every variant
  local base="unique 1024,64 --collision-free --window 0"
  "$1" recipe "$base" "64 2 1"
  "$1" all-targets "$base" "64 2 1" --first-target-decay 1 --target-decay 1
  "$1" decay-1-to-0.5 "$base" "64 2 1" --first-target-decay 1 --target-decay 0.5
  "$1" targets-8 "$base" "64 2 1" --targets-per-history 8
  "$1" both "$base" "64 2 1" --first-target-decay 1 --target-decay 0.5 --targets-per-history 8
  "$1" event-dropout-0 "$base" "64 2 1" --event-dropout 0
  "$1" event-dropout-0.4 "$base" "64 2 1" --event-dropout 0.4
  "$1" hide-newest-0.3 "$base" "64 2 1" --hide-newest 0.3
  "$1" dropout-0.1 "$base" "64 2 1" --dropout 0.1
  "$1" no-smoothing "$base" "64 2 1" --label-smoothing 0
  "$1" no-average "$base" "64 2 1" --average-decay 0
  "$1" two-decoder-layers "$base" "64 2 2"
  "$1" d-128 "$base" "128 4 1 2e-3"
  "$1" cooccur-window-10 "near 1024,64 --collision-free --window 10" "64 2 1"
  "$1" colliding-sids "plain 1024,64 --window 0" "64 2 1"
  "$1" levels-256-256-256 "three 256,256,256 --collision-free --window 0" "64 2 1"
  "$1" levels-2048-32 "wide 2048,32 --collision-free --window 0" "64 2 1"
}
known=$(variants echo | cut -d' ' -f1)
for name in "${wanted[@]}"; do
  grep -qxF -e "$name" <<<"$known" || { echo "ablations: no variant '$name'; there are" $known >&2; exit 2; }
done

run() { "$beamline" "$@" >"$log" 2>&1 || { tail -n 5 "$log" >&2 && return 1; }; }  # what is printed is the table
configs=$(mktemp -d)
trap 'rm -rf "$configs"' EXIT
config() { # LEVELS ITEMS D HEADS DECODER_LAYERS ...: the preset's model, of another size
  printf '{"schema_version": 1, "family": "onerec_v1", "level_sizes": [%s], "d_model": %d, "heads": %d,
 "norm_epsilon": 1e-6,
 "positive": {"length": 50, "fusion": "sum", "features": [{"kind": "sid", "shared": true},
                                                          {"kind": "item", "buckets": %d}]},
 "encoder": {"layers": 2, "causal": true, "ffn": {"width": %d, "gated": true}},
 "decoder": {"layers": %d, "trunk_layers": 0, "tied_heads": true, "ffn": {"width": %d, "gated": true}}}\n' \
    "$1" "$3" "$4" "$2" $((2 * $3)) "$5" $((2 * $3))
}
variant() { # NAME "TOKENIZER LEVELS ARGUMENTS" "D HEADS DECODER_LAYERS [LEARNING_RATE]" TRAINING OPTIONS...
  local name=$1 tokens size tokenizer
  ((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $name "* ]] || return 0
  read -ra tokens <<<"$2"
  read -ra size <<<"$3"
  shift 3
  tokenizer=$out/tokenizer-${tokens[0]} log=$out/tokenizer-${tokens[0]}.log
  step "$tokenizer/sids.tsv" tokenize --events "$out/data" --levels "${tokens[1]}" --seed "$seed" --threads "$threads" \
    "${tokens[@]:2}" --out "$tokenizer"
  config "${tokens[1]}" "$(wc -l <"$tokenizer/sids.tsv")" "${size[@]}" >"$configs/$name.json"
  log=$out/$name.log
  step "$out/$name/model.safetensors" train --data "$out/data" --tokenizer "$tokenizer" --preset small \
    --config "$configs/$name.json" --seed "$seed" --threads "$threads" --epochs "$epochs" --validate-every "$epochs" \
    --learning-rate "${size[3]:-3e-3}" --out "$out/$name" "$@"
  printf '%-20s %s\n' "$name" "$(sed -n 's/.*validation \(R@5.*[0-9]\) *best.*/\1/p' "$out/$name.log" | tail -n 1)"
}
log=$out/data.log
step "$out/data/events.tsv.gz" import sequences "$input" --labels long_view --out "$out/data"
variants variant
