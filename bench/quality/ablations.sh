#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What helps and what does not: trains variants of preset `small`'s recipe on the same data, at a smaller width so that a
# row takes minutes, and prints a table of their validation numbers (all users, beam 64, the last epoch's weights).
#
#   bench/quality/ablations.sh SEQUENCES OUT [VARIANT ...]
#
# Environment: as for kuairand.sh, and EPOCHS=10. A variant whose folder is finished is not run again.
set -euo pipefail
if (($# < 2)); then
  sed -n '3,8p' "$0" | cut -c3-
  exit 2
fi
sequences=$1 out=$2
shift 2
wanted=("$@")
beamline=${BEAMLINE:-beamline} seed=${SEED:-1} threads=${THREADS:-0} epochs=${EPOCHS:-10}
mkdir -p "$out"
[[ -e $out/data/events.tsv.gz ]] ||
  "$beamline" import sequences "$sequences" --labels long_view --out "$out/data"

tokenizer() { # NAME LEVELS ARGUMENTS...: its folder
  local folder=$out/tokenizer-$1 levels=$2
  shift 2
  [[ -e $folder/sids.tsv ]] ||
    "$beamline" tokenize --events "$out/data" --levels "$levels" --seed "$seed" "$@" --out "$folder" >/dev/null
}
model() { # LEVELS ITEMS D HEADS DECODER_LAYERS ...: the preset's model, of another size
  printf '{"schema_version": 1, "family": "onerec_v1", "level_sizes": [%s], "d_model": %d, "heads": %d,
 "positive": {"length": 50, "fusion": "sum", "features": [{"kind": "sid", "shared": true},
                                                          {"kind": "item", "buckets": %d}]},
 "encoder": {"layers": 2, "causal": true, "ffn": {"width": %d, "gated": true}},
 "decoder": {"layers": %d, "trunk_layers": 0, "tied_heads": true, "ffn": {"width": %d, "gated": true}}}\n' \
    "$1" "$3" "$4" "$2" $((2 * $3)) "$5" $((2 * $3))
}
variant() { # NAME "TOKENIZER LEVELS ARGUMENTS" "D HEADS DECODER_LAYERS [LEARNING_RATE]" TRAINING OPTIONS...
  local name=$1 tokens size folder
  ((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $name "* ]] || return 0
  read -ra tokens <<<"$2"
  read -ra size <<<"$3"
  shift 3
  folder=$out/tokenizer-${tokens[0]}
  tokenizer "${tokens[@]}"
  if [[ ! -e $out/$name/model.safetensors ]]; then
    model "${tokens[1]}" "$(wc -l <"$folder/sids.tsv")" "${size[@]}" >"$out/$name.config.json"
    "$beamline" train --data "$out/data" --tokenizer "$folder" --preset small --config "$out/$name.config.json" \
      --seed "$seed" --threads "$threads" --epochs "$epochs" --validate-every "$epochs" \
      --learning-rate "${size[3]:-3e-3}" --out "$out/$name" "$@" >"$out/$name.log" 2>&1
  fi
  printf '%-20s %s\n' "$name" "$(sed -n 's/.*validation \(R@5.*[0-9]\) *best.*/\1/p' "$out/$name.log" | tail -n 1)"
}

base="unique 1024,64 --collision-free --window 0"
variant recipe "$base" "64 2 1"
variant all-targets "$base" "64 2 1" --first-target-decay 1 --target-decay 1
variant decay-1-to-0.5 "$base" "64 2 1" --first-target-decay 1 --target-decay 0.5
variant targets-8 "$base" "64 2 1" --targets-per-history 8
variant both "$base" "64 2 1" --first-target-decay 1 --target-decay 0.5 --targets-per-history 8
variant event-dropout-0 "$base" "64 2 1" --event-dropout 0
variant event-dropout-0.4 "$base" "64 2 1" --event-dropout 0.4
variant hide-newest-0.3 "$base" "64 2 1" --hide-newest 0.3
variant dropout-0.1 "$base" "64 2 1" --dropout 0.1
variant no-smoothing "$base" "64 2 1" --label-smoothing 0
variant no-average "$base" "64 2 1" --average-decay 0
variant two-decoder-layers "$base" "64 2 2"
variant d-128 "$base" "128 4 1 2e-3"
variant cooccur-window-10 "near 1024,64 --collision-free --window 10" "64 2 1"
variant colliding-sids "plain 1024,64 --window 0" "64 2 1"
variant levels-256-256-256 "three 256,256,256 --collision-free --window 0" "64 2 1"
variant levels-2048-32 "wide 2048,32 --collision-free --window 0" "64 2 1"
