#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Quality on Amazon Beauty with the LETTER authors' SIDs and T5-d128, from one command: import, train, evaluate at item level
# with beam 20, beside popularity, Markov and item-KNN; in the file's order and with each day shuffled.
#
#   bench/quality/beauty.sh AMAZON_BEAUTY OUT [--device cpu|cuda] [--minutes 8] [--seeds 1,2,3] [--shuffled-seeds 1]
#                           [--threads 0] [--users 0] [--parallel] [--mps] [OPTION OF beamline train ...]
#
# AMAZON_BEAUTY  Beauty.txt, Beauty.index.json, item_titles.tsv.gz
# OUT            folder for data, tokenizer, models, evaluations and the report; what was made of other data or options is
#                refused
# --minutes      a call ends after about so long, with exit code 75 while there is more to do: call it again, it goes on
#                where it was. 0: no limit
# --users        of the evaluation, a fixed random subset; 0: all
# --parallel     all models side by side, each with a log in OUT
# --mps          with it on a GPU: the models' kernels run at once, not in turns (CUDA's multi-process service, started
#                for this call and ended with it; the card's settings stay as they are). Goes on without where it does
#                not start
#
# When all is done it writes OUT/beauty-DEVICE.json and .md (RESULTS=folder for another place), of this call's seeds alone.
# Environment: BEAMLINE=path of the binary. On the CPU a batch allocates and frees gigabytes, and glibc gives tensors over
# 32 MiB back to the kernel each time, which then clears them again (60 % of the time in a profile): jemalloc (Debian:
# libjemalloc2) keeps them and is taken where it is installed. A step takes about 11 s of one core, and 14 GB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/common.sh"
results=${RESULTS:-$out}
device=cpu minutes=8 seeds=1,2,3 shuffled_seeds=1 threads=0 users=0 parallel=false mps=false options=()
while (($# > 0)); do
  case $1 in
    --device) device=$2 && shift 2 ;;
    --minutes) minutes=$2 && shift 2 ;;
    --seeds) seeds=$2 && shift 2 ;;
    --shuffled-seeds) shuffled_seeds=$2 && shift 2 ;;
    --threads) threads=$2 && shift 2 ;;
    --users) users=$2 && shift 2 ;;
    --parallel) parallel=true && shift ;;
    --mps) mps=true && shift ;;
    *) options+=("$1") && shift ;;
  esac
done

# Seconds left of this call.
left() { ((minutes == 0)) && echo 1000000 || echo $((minutes * 60 - SECONDS)); }
# Ends the call unless SECONDS of work still fit into it; work that never fits is begun by a fresh call.
need() {
  (($(left) >= $1 || SECONDS < 20)) && return
  echo "beauty: $(left) s left, next: $2; call again"
  exit 75
}
jemalloc=$(PATH=$PATH:/usr/sbin:/sbin; ldconfig -p 2>/dev/null | awk '/libjemalloc\.so\.2/ { print $NF; exit }') || true
run() {
  echo "\$ beamline $*"
  if [[ $device == cpu && -n $jemalloc ]]; then
    LD_PRELOAD=$jemalloc MALLOC_CONF=dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always "$beamline" "$@"
  else
    "$beamline" "$@"
  fi
}

# Ours, in a folder of its own, unless one is there. A daemon may run where its server cannot: that is asked for here.
start_mps() {
  local server state=
  [[ -n ${CUDA_MPS_PIPE_DIRECTORY:-} ]] && return
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) && export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY=$CUDA_MPS_PIPE_DIRECTORY
  trap 'echo quit | nvidia-cuda-mps-control >/dev/null || true; rm -rf "$CUDA_MPS_PIPE_DIRECTORY"' EXIT
  if command -v nvidia-cuda-mps-control >/dev/null && nvidia-cuda-mps-control -d; then
    echo "start_server -uid $(id -u)" | nvidia-cuda-mps-control >/dev/null || true
    for _ in {1..20}; do
      server=$(echo get_server_list | nvidia-cuda-mps-control | head -n 1) || true
      [[ -z $server ]] || state=$(echo "get_server_status $server" | nvidia-cuda-mps-control) || true
      [[ $state == *ACTIVE* ]] && echo "MPS: on" && return
      sleep 0.5
    done
    echo quit | nvidia-cuda-mps-control >/dev/null || true
  fi
  echo "MPS: not here; the models take turns"
  trap - EXIT
  rm -rf "$CUDA_MPS_PIPE_DIRECTORY"
  unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
}

prepare() { # ORDER
  local from=$input
  if [[ $1 == shuffled ]]; then
    from=$out/shuffled
    if ! made "$from/Beauty.txt" shuffle "$input"; then
      python3 "$here/shuffle_same_day.py" "$input" "$from"
      described shuffle "$input" >"$from/Beauty.txt.made-by"
    fi
  fi
  step "$out/data-$1/events.tsv.gz" import amazon "$from" --out "$out/data-$1"
}

train_and_evaluate() { # ORDER SEED
  local model=$out/model-$1-$2 status=0 budget=() train evaluate
  ((minutes == 0)) || budget=(--max-minutes "$(awk "BEGIN { print ($(left) > 30 ? $(left) : 30) / 60 }")")
  train=("$model/model.safetensors" train --data "$out/data-$1" --tokenizer "$out/tokenizer" --preset t5-d128 --targets any
    --seed "$2" --device "$device" --threads "$threads" --out "$model" "${budget[@]}" "${options[@]}")
  made "${train[@]}" || need 60 "training, $1 order, seed $2"
  step "${train[@]}" || status=$?
  ((status == 130)) && exit 75
  ((status == 0)) || exit $status
  evaluate=("$model.json" evaluate --model "$model" --data "$out/data-$1" --tokenizer "$out/tokenizer" --beam 20
    --max-users "$users" --resamples 2000 --device "$device" --backend auto --threads "$threads" --out "$model.json")
  made "${evaluate[@]}" || need 240 "evaluation, $1 order, seed $2"
  step "${evaluate[@]}"
}

step "$out/tokenizer/sids.tsv" tokenize --from-index "$input/Beauty.index.json" --dialect letter --id-offset 1 \
  --levels 256,256,256,256 --out "$out/tokenizer"
runs=()
for order in given shuffled; do
  list=$seeds
  [[ $order == given ]] || list=$shuffled_seeds
  for seed in ${list//,/ }; do
    prepare $order
    runs+=("$order $seed")
  done
done
[[ $mps == true && $device == cuda* ]] && start_mps
status=0
for run in "${runs[@]}"; do
  read -r order seed <<<"$run"
  if [[ $parallel == true ]]; then
    (train_and_evaluate "$order" "$seed") >>"$out/log-$order-$seed.txt" 2>&1 &
  else
    train_and_evaluate "$order" "$seed"
  fi
done
for job in $(jobs -p); do wait "$job" || status=$?; done
if ((status != 0)); then
  tail -n 2 "$out"/log-*.txt
  exit $status
fi
mkdir -p "$results"
python3 "$here/beauty_report.py" "$out" "$results/beauty-$device" "${runs[@]/ /-}"
