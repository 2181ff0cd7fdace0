#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that a machine with a GPU can show, in stages of less than eight minutes each:
#
#   bench/gpu/verify.sh [STAGE ...]     default: all, in this order
#     build      takes the binaries of carry/ or carry.tar.gz (bench/gpu/carry.sh) where they run here, else builds them
#                here (nvcc, CMake, ninja) into carry/, where that is not there and all is that scripts/setup.sh installs;
#                else the kernels' alone. What a call has no time for the next goes on with. Remove carry/ to build it anew
#     tests      every CUDA test on the GPU: of the kernels, and as far as they were carried of the backend's ops, models,
#                the search, training, and random models and requests beside a reference in double (BEAMLINE_FUZZ_SECONDS=N
#                has that take so long, BEAMLINE_FUZZ_SEED begin elsewhere); what failed behind a fault in a kernel runs again in a process of its own.
#                Kernels are tested with shapes that are drawn, too: BEAMLINE_SHAPES=N of each, BEAMLINE_SHAPES_FROM another
#                seed; so under sanitizers
#     sanitize   tests of the GPU on small shapes under compute-sanitizer (bench/gpu/sanitize.sh): the kernels' under
#                memcheck, racecheck, initcheck and synccheck, the backend's under memcheck. What it had no time for it
#                names, and BEAMLINE_SANITIZE="PART ..." runs these parts alone, also of the next
#     sanitize_engine   all others likewise: models, the search, training, NCCL, random worlds, what compares cuBLASLt's algorithms
#     bench      the kernel bench: fractions of the bandwidth and matrix rate measured in the same run
#     engine     latency and throughput of whole requests, in bf16 and in fp8: of random weights in the sizes of
#                bench/engine/engine_gpu.cc, the largest in fp8_mixed, too (BEAMLINE_ENGINE_OPTIONS are options for it
#                instead), and of carry/bundle where it is
#     peers      the same model of 0.13 B, weights and requests by Beamline, by transformers' generate and by a hand-written
#                PyTorch loop in a CUDA graph, in turns, their lists compared (bench/peers/run_gpu.py;
#                BEAMLINE_PEERS_OPTIONS are options for it): needs Python's torch and transformers
#     peers_large  the same of 1.02 B
#     serial     the dense engine cases with BEAMLINE_PROGRAMMATIC_LAUNCH=0, kernels one after the other, to be read beside
#                those of the stage engine
#     portable   the engine cases with BEAMLINE_WARPGROUPS=0, without the kernels that use wgmma: likewise
#     unfenced   the experiment of wgmma.cuh: kernels' tests and bench cases without a fence that may be dear, to be read beside
#                those of the stage bench
#     quality    the quality gates of fp8 and of fp8_mixed in full, over carry/model, carry/data and carry/tokenizer, of
#                which one is to pass; their reports, for `beamline pack --gate`, are gate-DTYPE-TIME.json
#     server     the gRPC server over the CUDA engine, of carry/bundle or else of a small model that the carried binary
#                makes itself: closed loops of 1, 16 and 64 calls by BEAMLINE_SERVER_BEAM beams (default 128) from the same
#                machine, and its end by SIGTERM
#
# Writes gpu-TIME.log, what was printed, and gpu-TIME.json, anew after every stage: device, driver, commit, settings, what
# each stage said, what was skipped and why, every measurement, and all goals, each met, missed or not measured, which are
# printed at the end, too. BEAMLINE_STAGE_SECONDS limits a stage (default 470), BEAMLINE_TOTAL_SECONDS all of them (default
# none; what it leaves no time for is skipped); BEAMLINE_RESULTS is the folder of the result (default $OUT, else
# bench/results); BEAMLINE_GATE_USERS users take part in the gate (default 20000).
# Where what a start tries (kernels that use wgmma, programmatic launches) fails by itself, other stages measure without it,
# as with BEAMLINE_WARPGROUPS=0 or BEAMLINE_PROGRAMMATIC_LAUNCH=0, and the result's settings say so: `left_out`.
# Exit status: 0 all stages passed, 1 one failed, 2 no such stage, no python3, or the folder of the result cannot be written,
# 3 nothing could be run because there is no GPU; 128 and the number of the signal that ended it, and what it ran.
set -uo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
cd "$(dirname "$0")/../.."
PATH=$PATH:/usr/local/cuda/bin  # of nvcc, where nobody has said
stage_seconds=${BEAMLINE_STAGE_SECONDS:-470}
total_seconds=${BEAMLINE_TOTAL_SECONDS:-1000000}
results=${BEAMLINE_RESULTS:-${OUT:-bench/results}}
stages=("$@")
[[ $# -gt 0 ]] || stages=(build tests sanitize bench engine peers serial portable unfenced quality server sanitize_engine peers_large)
for stage in "${stages[@]}"; do
  case $stage in
    build | tests | sanitize | sanitize_engine | bench | engine | peers | peers_large | serial | portable | unfenced | quality | server) ;;
    *) other_argument "$stage" ;;
  esac
done

if ! command -v python3 >/dev/null; then
  echo "python3 is not here: it runs the tests and writes the result" >&2
  exit 2
fi
if [[ -e carry.tar.gz && ! carry/COMMIT -nt carry.tar.gz ]]; then  # what an earlier call unpacked may be another commit's
  rm -rf carry
  if ! tar -xzf carry.tar.gz --touch; then
    rm -rf carry  # the next call would take the part for the whole
    echo "carry.tar.gz: cannot be unpacked whole (see above: damaged on its way, or no room); carry it again" >&2
    exit 2
  fi
fi
if ! { mkdir -p "$results" && [[ -d $results && -w $results ]]; }; then
  echo "$results: cannot be written, and nothing measured would be kept; set BEAMLINE_RESULTS" >&2
  exit 2
fi
work=$(mktemp -d)
server=  # of the stage of this name; it must not outlive us and answer the next call's
running=  # what a stage waits for; it must not hold the device when we are gone
trap '[[ -z $running ]] || kill -TERM "$running" 2>/dev/null; [[ -z $server ]] || kill -KILL "$server" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
binaries= tried= left_out=
kernels_build=build/cuda-carry
wanted_warpgroups=${BEAMLINE_WARPGROUPS:-} wanted_programmatic=${BEAMLINE_PROGRAMMATIC_LAUNCH:-}
: >"$work/stages" >"$work/kernels" >"$work/engine" >"$work/peers" >"$work/gates" >"$work/server"

json_string() { printf '"%s"' "$(tr -d '\000-\010\013-\037' <<<"$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' | paste -sd' ')"; }

# json_lines LOG FILE: adds what the log has of results; false where one is no JSON.
json_lines() { python3 -B bench/gpu/result.py lines <"$1" >>"$2"; }

# record STAGE STATUS SECONDS DETAIL
record() {
  printf '{"stage": "%s", "status": "%s", "seconds": %d, "detail": %s}\n' "$1" "$2" "$3" "$(json_string "$4")" >>"$work/stages"
  printf -- '-- %-9s %-8s %4d s  %s\n' "$1" "$2" "$3" "$4"
  [[ -z $gpu ]] || write_result
}

# What the stages' commands print is kept beside the result: an outer limit on output must not cost it.
keep_log() {
  [[ -d $results ]] || mkdir -p "$results"
  printf '== %s\n' "$2" | cat - "$1" >>"${out%.json}.log"
}

# awaited COMMAND...: runs it so that a signal ends us, and it, at once. In the foreground it would have to end first, and
# `timeout` gives it a process group of its own, of which Ctrl-C knows nothing.
awaited() {
  "$@" &
  running=$!
  wait "$running"
  local status=$?
  running=
  return $status
}

# limited [-m SECONDS] LOG COMMAND...: runs it for at most so many seconds, and those of the stage that are left.
limited() {
  local most=1000000
  [[ $1 != -m ]] || { most=$2; shift 2; }
  local log=$1 status left=$((limit - SECONDS + stage_start))
  shift
  ((left > 0)) || { echo "no time left for: $*" >"$log"; return 124; }
  awaited timeout --kill-after=5 $((left < most ? left : most)) "$@" >"$log" 2>&1
  status=$?
  keep_log "$log" "$*"
  return $status
}

# What was carried beside the kernels' binaries runs with the libraries of carry/lib, of Python's torch and of CUDA.
torch_libraries=$(python3 - 2>/dev/null <<'PYTHON'
import importlib.util, os
torch = importlib.util.find_spec("torch")
nvidia = importlib.util.find_spec("nvidia")
folders = [os.path.join(os.path.dirname(torch.origin), "lib")] if torch else []
for place in nvidia.submodule_search_locations if nvidia else []:
    folders += [os.path.join(place, name, "lib") for name in sorted(os.listdir(place))]
print(":".join(folder for folder in folders if os.path.isdir(folder)))
PYTHON
)
libraries=$PWD/carry/lib:$torch_libraries:/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

# Carried binaries that use the whole engine, by what they test.
carried_tests=(backend model decode train oracle)

this_commit() { git describe --always --dirty 2>/dev/null || echo unknown; }

# Of what is run: that says it itself, for the sources may have changed since.
commit() { cat "${binaries:-nothing}/COMMIT" 2>/dev/null || echo unknown; }

# Of the device, as 90; nothing where nvidia-smi does not know.
capability() {
  local said
  said=$(timeout 60 nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  [[ $said =~ ^[0-9]+$ ]] && echo "$said"
}

# Whether the carried binaries have code for the device: of a lower one of its generation, too, but not of 90a and the like.
fits_device() {
  local device architecture number
  [[ -e carry/ARCHITECTURES ]] && device=$(capability) || return 0
  while read -r -d ';' architecture; do
    number=${architecture%%[!0-9]*}
    [[ -n $number ]] || return 0  # "native" and the like
    case $architecture in
      *[0-9]a*) ((number == device)) && return 0 ;;
      *-real) ((number / 10 == device / 10 && number <= device)) && return 0 ;;
      *) ((number <= device)) && return 0 ;;  # PTX
    esac
  done <<<"$(<carry/ARCHITECTURES);"
  return 1
}

find_binaries() {
  local place
  for place in carry $kernels_build/cuda; do
    [[ -x $place/beamline_kernels_cuda_test ]] || continue
    [[ $place != carry ]] || fits_device || continue
    timeout 30 "$place/beamline_kernels_cuda_test" --gtest_list_tests >/dev/null 2>&1 && binaries=$place && return 0
  done
  return 1
}

# build_kernels ARCHITECTURES: their tests and bench, where carry.sh builds them.
build_kernels() {
  local googletest= place
  for place in /usr/src/googletest "$PWD/carry/googletest"; do
    [[ ! -f $place/CMakeLists.txt ]] || googletest=$place
  done
  limited "$work/configure" cmake -S kernels -B $kernels_build -G Ninja -DBEAMLINE_WITH_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="$1" -DBEAMLINE_GOOGLETEST="$googletest" &&
    limited "$work/build" cmake --build $kernels_build --target beamline_kernels_cuda_test beamline_kernels_cuda_bench &&
    this_commit >$kernels_build/cuda/COMMIT && return 0
  tail -n 20 "$work/configure" "$work/build" 2>/dev/null
  detail="building the kernels failed"
  ! grep -qs "unknown target 'beamline_kernels_cuda_test'" "$work/build" ||
    detail="the kernels' tests want GoogleTest: install it, or put its sources into carry/googletest"
  return 1
}

# build_engine ARCHITECTURES: to carry/, all that would be carried; false, and why in `said`, where that is not to be.
build_engine() {
  local status
  said="carry/ is there, and what it has does not run here"
  [[ ! -e carry ]] || return 1
  limited "$work/configure" bash -c '. scripts/lib.sh && configure cuda-release build/cuda-release "$@"' configure \
    "-DCMAKE_CUDA_ARCHITECTURES=$1"
  status=$?
  said="the engine cannot be configured: $(grep -m 1 -A 3 'CMake Error' "$work/configure" | sed -e 1d -e 's,^ *,,' | paste -sd' ')"
  ((status == 0)) || return 1
  limited "$work/build" env BEAMLINE_BUILD=build/cuda-release bash bench/gpu/carry.sh "$1"
  status=$?
  ((status)) || return 0
  tail -n 5 "$work/build"
  said="building the engine: exit status $status"
  ((status != 124)) || said="the engine's build was not done in time, the next call goes on with it"
  rm -rf carry carry.tar.gz  # a part is none
  return 1
}

stage_build() {
  if find_binaries && [[ $binaries == carry ]]; then
    detail="takes $binaries, commit $(commit)"
    return 0
  fi
  binaries=
  local missing=() architecture said=
  for tool in nvcc cmake ninja; do command -v $tool >/dev/null || missing+=("$tool"); done
  if ((${#missing[@]})); then
    detail="no carried binary runs here, and to build one these are missing: ${missing[*]}"
    return 1
  fi
  architecture=$(capability)
  [[ $architecture == 90 ]] && architecture=90a
  build_kernels "${architecture:-90a}-real" || return 1
  build_engine "${architecture:-90a}-real" && said="with the engine"
  find_binaries || { detail="what was built does not start here"; return 1; }
  detail="built $binaries for sm_${architecture:-90a}: $said"
}

# tests_passed LOG: what GoogleTest counted; false where one failed or none ran.
tests_passed() {
  local passed failed skipped
  passed=$(grep -oP '(?<=\[  PASSED  \] )\d+' "$1" | tail -n 1)
  failed=$(grep -oP '(?<=\[  FAILED  \] )\d+(?= tests?, listed)' "$1" | tail -n 1)
  skipped=$(grep -oP '(?<=\[  SKIPPED \] )\d+(?= tests?, listed)' "$1" | tail -n 1)
  detail="${passed:-0} passed, ${failed:-0} failed, ${skipped:-0} skipped"
  [[ ${passed:-0} -gt 0 && ${failed:-0} == 0 ]]
}

# run_tests NAME BINARY [FILTER]: adds to `said`; false where they do not pass.
run_tests() {
  local status
  # A python3 that is stopped would leave its binary behind: it has the time itself.
  BEAMLINE_REQUIRE_GPU=1 LD_LIBRARY_PATH=$libraries awaited python3 -B bench/gpu/run_tests.py "$2" "${3:-*}" \
    $((limit - SECONDS + stage_start)) >"$work/tests" 2>&1
  status=$?
  keep_log "$work/tests" "$2 ${3:-}"
  said+="$1: $(tail -n 1 "$work/tests"); "
  ((status == 0)) || head -n -1 "$work/tests" | head -n 60
  return $status
}

# What a start tries, tried once by itself: where it faults no engine starts with it and no bench goes on behind it, and
# where it is wrong its times are of no use. What is measured then is measured without.
settle_trials() {
  # A first start of the binary loads gigabytes of libraries: no slow one is to be taken for a wrong one.
  local status
  [[ -z $tried && -x carry/beamline_backend_gpu_test ]] && ((limit - SECONDS + stage_start >= 60)) || return 0
  tried=yes
  LD_LIBRARY_PATH=$libraries timeout 60 carry/beamline_backend_gpu_test --gtest_list_tests >/dev/null 2>"$work/start"
  # One that does not start, for want of a library, tries nothing: what starts without it is measured in full.
  status=$?
  if ((status && status != 124)); then
    echo "-- nothing tried, exit status $status: $(tail -n 1 "$work/start")"
    return 0
  fi
  BEAMLINE_WARPGROUPS=0 settle_trial BEAMLINE_PROGRAMMATIC_LAUNCH '*ProgrammaticTrial*'
  settle_trial BEAMLINE_WARPGROUPS '*WarpgroupTrial*'
}

# settle_trial SWITCH FILTER
settle_trial() {
  local said= limit=$((limit < SECONDS - stage_start + 150 ? limit : SECONDS - stage_start + 150))
  [[ -z ${!1:-} ]] || return 0
  run_tests "$1=0" carry/beamline_backend_gpu_test "$2" && return 0
  [[ $said =~ ": 0 passed, 0 failed, "[1-9][0-9]*" skipped; "$ ]] && return 0  # another device
  export "$1=0"
  left_out+=${left_out:+; }${said%; }
  echo "-- left out: $left_out"
}

stage_tests() {
  local name bad=0 said= missing=
  # What cannot be tried at a start would fail every test of the binaries that start a backend; of the kernels all are tried.
  settle_trials
  [[ -z $left_out ]] || bad=1
  BEAMLINE_WARPGROUPS=$wanted_warpgroups BEAMLINE_PROGRAMMATIC_LAUNCH=$wanted_programmatic \
    run_tests kernels "$binaries/beamline_kernels_cuda_test" || bad=1
  for name in "${carried_tests[@]}"; do
    if [[ -x carry/beamline_${name}_gpu_test ]]; then
      run_tests "$name" "carry/beamline_${name}_gpu_test" || bad=1
    else
      missing+=" $name"
    fi
  done
  detail=${said%; }${missing:+; not carried (bench/gpu/carry.sh with BEAMLINE_BUILD):$missing}
  return $bad
}

. bench/gpu/sanitize.sh

# bench_kernels BINARY [KERNEL ...]: what it measures, to $work/measured; behind a case that fails it goes on.
bench_kernels() {
  local binary=$1 status bad=0 skip=0 failures
  shift
  : >"$work/measured"
  for ((failures = 0; failures <= 8; ++failures)); do
    LD_LIBRARY_PATH=$libraries limited -m 150 "$work/bench" "$binary" --skip $skip "$@"
    status=$?
    cat "$work/bench"
    json_lines "$work/bench" "$work/measured" || bad=1
    ((status)) || return $bad
    bad=$status
    skip=$((skip + $(grep -c '^{"kernel"' "$work/bench") + 1))
  done
  return $bad
}

stage_bench() {
  bench_kernels "$binaries/beamline_kernels_cuda_bench"
  local status=$?
  cat "$work/measured" >>"$work/kernels"
  detail="$(grep -c '^{"kernel"' "$work/measured") cases"
  return $status
}

# lacks PATH...: names in `detail` what is not in carry/; true where something is not.
lacks() {
  local path missing=()
  for path in "$@"; do [[ -e carry/$path ]] || missing+=("carry/$path"); done
  ((${#missing[@]})) && detail="not carried: ${missing[*]} (see bench/gpu/carry.sh)"
}

stage_engine() {
  local dtype model status bad=0 said= options
  local -a runs=("--models 1.02B --dtypes bf16,fp8,fp8_mixed")
  # A process each: a fault in one costs no other.
  for model in 0.13B 0.935B trunk t5 ranked; do runs+=("--models $model --dtypes bf16,fp8"); done
  [[ -z ${BEAMLINE_ENGINE_OPTIONS:-} ]] || runs=("$BEAMLINE_ENGINE_OPTIONS")
  for options in "${runs[@]}"; do
    [[ -x carry/beamline_engine_gpu_bench ]] || break
    # shellcheck disable=SC2086  # several options
    LD_LIBRARY_PATH=$libraries limited -m 150 "$work/bench" carry/beamline_engine_gpu_bench $options
    status=$?
    cat "$work/bench"
    json_lines "$work/bench" "$work/engine" || status=1
    said+="$options: $(grep -c '"engine"' "$work/bench") cases, exit status $status; "
    ((status == 0)) || bad=1
  done
  if lacks beamline bundle; then
    detail="$said$detail"
    [[ -n $said ]] || return 77
    return $bad
  fi
  for dtype in bf16 fp8; do
    # Speed does not ask for quality: that is the stage of its name.
    printf 'engine { device: "cuda" backend: "cuda" dtype: "%s" allow_ungated_dtype: true max_batch_rows: 16384 }\n' "$dtype" >"$work/config"
    LD_LIBRARY_PATH=$libraries limited "$work/bench" carry/beamline bench --bundle carry/bundle --config "$work/config" \
      --concurrency 1,8,32 --beam 512 --seconds 10 --warmup 5 --json "$work/json"
    status=$?
    cat "$work/bench"
    if ((status == 0)); then
      printf '{"dtype": "%s", "bench": %s}\n' "$dtype" "$(python3 -m json.tool --compact "$work/json")" >"$work/line"
      json_lines "$work/line" "$work/engine" || bad=1
    else
      bad=1
    fi
    said+="$dtype: exit status $status; "
  done
  detail=${said%; }
  return $bad
}

lines_with() { grep -c "\"$1\"" "$work/measured"; }

# measure_peers SIZE
measure_peers() {
  lacks beamline beamline_peer && return 77
  if ! python3 -c 'import torch, transformers' 2>"$work/bench"; then
    detail="Python here lacks torch or transformers: $(tail -n 1 "$work/bench")"
    return 77
  fi
  # shellcheck disable=SC2086  # several options
  # The models are kept for a next call, where the machine is.
  BEAMLINE_CACHE=build/peers limited "$work/bench" python3 -B bench/peers/run_gpu.py --sizes "$1" --beamline carry/beamline \
    --peer-binary carry/beamline_peer --library-path "$libraries" --logs "$work/peer_logs" --limit $((limit - SECONDS + stage_start - 10)) \
    ${BEAMLINE_PEERS_OPTIONS:-}
  local status=$? log
  cat "$work/bench"
  # One file: a machine that is lent brings back only a few.
  for log in "$work/peer_logs"/*.log; do
    [[ ! -e $log ]] || keep_log "$log" "$1: ${log##*/}"
  done
  rm -rf "$work/peer_logs"
  : >"$work/measured"
  json_lines "$work/bench" "$work/measured" || status=1
  cat "$work/measured" >>"$work/peers"
  detail="$(lines_with ms_per_request) cells, $(grep -c '"met": true' "$work/measured") of $(lines_with goal) goals met, $(lines_with error) failed, $(lines_with skipped) skipped for want of time; exit status $status"
  return $status
}

stage_peers() { measure_peers E0; }
stage_peers_large() { measure_peers E1; }

# experiment NAME MODELS: the dense engine cases under what the caller set in the environment; adds to `detail`.
experiment() {
  local status=0 said=$detail
  [[ -x carry/beamline_engine_gpu_bench ]] || return 0
  LD_LIBRARY_PATH=$libraries limited "$work/bench" carry/beamline_engine_gpu_bench --models "$2" --dtypes bf16 \
    --batches 1,8 --clients 1,2 || status=1
  cat "$work/bench"
  : >"$work/measured"
  json_lines "$work/bench" "$work/measured" || status=1
  grep '^{"engine"' "$work/measured" | sed "s/^{/{\"experiment\": \"$1\", /" >>"$work/engine"
  detail="${said:+$said; }$(grep -c '"engine"' "$work/bench") engine cases"
  return $status
}

stage_serial() {
  lacks beamline_engine_gpu_bench && return 77
  [[ ${BEAMLINE_PROGRAMMATIC_LAUNCH:-} == 0 ]] && detail="launches are serial already" && return 77
  local -x BEAMLINE_PROGRAMMATIC_LAUNCH=0
  detail=
  experiment serial 1.02B,0.13B,0.935B
}

# Whether nothing uses wgmma already; says so in `detail`.
without_wgmma() {
  [[ ${BEAMLINE_WARPGROUPS:-} == 0 ]] && detail="kernels with wgmma are left out already"
}

stage_portable() {
  lacks beamline_engine_gpu_bench && return 77
  without_wgmma && return 77
  local -x BEAMLINE_WARPGROUPS=0
  detail=
  experiment portable 1.02B,0.13B,0.935B
}

stage_unfenced() {
  local kernels=carry/beamline_kernels_cuda_unfenced said= status=0
  lacks beamline_kernels_cuda_unfenced_{test,bench} && return 77
  without_wgmma && return 77
  run_tests unfenced ${kernels}_test '*Product*:*Moe*:*Attention*' || status=1
  bench_kernels ${kernels}_bench dense_product head_product grouped_product context_attention encoder_attention || status=1
  grep '^{"kernel"' "$work/measured" | sed 's/^{/{"experiment": "unfenced", /' >>"$work/kernels"
  detail="$said$(grep -c '^{"kernel"' "$work/measured") cases"
  return $status
}

# Passed where fp8 is as good as bf16, or fp8_mixed. A missed gate is an exit status of 2 with a report.
stage_quality() {
  lacks beamline model data tokenizer && return 77
  mkdir -p "$results"
  local dtype report status bad=2 said=
  for dtype in fp8 fp8_mixed; do
    report=$results/gate-$dtype-${out##*/gpu-}
    rm -f "$report"
    LD_LIBRARY_PATH=$libraries limited "$work/quality" carry/beamline evaluate --model carry/model --data carry/data \
      --tokenizer carry/tokenizer --gate $dtype --split both --device cuda --backend cuda --threads 2 \
      --max-users "${BEAMLINE_GATE_USERS:-20000}" --out "$report"
    status=$?
    cat "$work/quality"
    said+="$dtype: exit status $status: $(tail -n 6 "$work/quality"); "
    detail=${said%; }
    ((status == 0 || status == 2)) && python3 -m json.tool --compact "$report" >>"$work/gates" || return 1
    ((status)) || bad=0
  done
  return $bad
}

beamline() { LD_LIBRARY_PATH=$libraries carry/beamline "$@"; }

make_small_bundle() {
  local made=$work/made
  mkdir "$made"
  set -- generate-data log --users 500 --seed 1 --out "$made/data" -- \
    tokenize --events "$made/data" --preset demo --seed 1 --out "$made/tokenizer" -- \
    train --data "$made/data" --tokenizer "$made/tokenizer" --preset demo --epochs 1 --validation-users 0 --seed 1 \
    --out "$made/model" -- \
    pack --model "$made/model" --tokenizer "$made/tokenizer" --items "$made/data/items.tsv.gz" --out "$made/bundle"
  local verb=()
  for word in "$@" --; do
    if [[ $word != -- ]]; then
      verb+=("$word")
      continue
    fi
    LD_LIBRARY_PATH=$libraries limited "$work/small" carry/beamline "${verb[@]}" || return 1
    verb=()
  done
}

stage_server() {
  lacks beamline && return 77
  local bundle=carry/bundle status=0 ended target=127.0.0.1:50951 admin=127.0.0.1:50953 passes_before passes
  local grace=${BEAMLINE_SERVER_GRACE:-30}
  local seconds=${grace%%.*}
  local limit=$((limit - ${seconds:-0}))  # the rest is for its end
  if [[ ! -e $bundle ]]; then
    bundle=$work/made/bundle
    make_small_bundle || { tail -n 20 "$work/small"; detail="making a small model failed"; return 1; }
  fi
  printf 'listen { port: %s }\nadmin { port: 50952 http_port: %s }\nengine { device: "cuda" backend: "cuda" dtype: "bf16" max_batch_rows: 16384 }\n' \
    "${target#*:}" "${admin#*:}" >"$work/config"
  LD_LIBRARY_PATH=$libraries carry/beamline serve --config "$work/config" --bundle "$bundle" >"$work/log" 2>&1 &
  server=$!
  until [[ $(beamline recommend --target "$target" --status 2>/dev/null) == ready* ]]; do
    if ! kill -0 "$server" 2>/dev/null || ((SECONDS - stage_start >= limit)); then
      kill -KILL "$server" 2>/dev/null
      tail -n 40 "$work/log"
      server=
      detail="the server did not become ready"
      return 1
    fi
    sleep 0.5
  done
  passes_before=$(python3 bench/gpu/result.py passes "$admin" 2>/dev/null) || passes_before=
  LD_LIBRARY_PATH=$libraries limited "$work/bench" carry/beamline bench --server "$target" --server-pid "$server" \
    --concurrency 1,16,64 --beam "${BEAMLINE_SERVER_BEAM:-128}" --seconds 10 --warmup 3 --json "$work/json" || status=$?
  cat "$work/bench"
  # One that has gone did not answer: another at this port did.
  if ((status == 0)) && kill -0 "$server" 2>/dev/null; then
    python3 -m json.tool --compact "$work/json" >"$work/line" || status=1
    json_lines "$work/line" "$work/server" || status=1
    if [[ -n $passes_before ]] && passes=$(python3 bench/gpu/result.py passes "$admin" 2>/dev/null); then
      printf '{"passes_before": %s, "passes": %s}\n' "$passes_before" "$passes" >>"$work/server"
    fi
  fi
  keep_log "$work/log" server
  kill -TERM "$server"
  # Not by a subshell that is killed: one that is at its birth would run this shell's EXIT trap.
  timeout "$grace" tail -s 0.1 --pid="$server" -f /dev/null || kill -KILL "$server" 2>/dev/null
  wait "$server"
  ended=$?
  server=
  ((ended == 0)) || tail -n 20 "$work/log"
  detail="$bundle: bench exit status $status, the server's $ended${passes:+, passes $passes_before to $passes}"
  return $((status || ended))
}

# Where it finds none, nvidia-smi says so in its standard output.
gpu=$(timeout 60 nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null) || gpu=
gpu=${gpu%%$'\n'*}
out=$results/gpu-$(date -u +%Y%m%dT%H%M%SZ).json
# Not by importing them, which takes a cold machine half a minute.
versions=$(timeout 60 python3 - 2>/dev/null <<'PYTHON'
from importlib import metadata
said = []
for name in ("torch", "transformers"):
    try:
        said += [name, metadata.version(name)]
    except metadata.PackageNotFoundError:
        pass
print(" ".join(said))
PYTHON
)
write_result() {
  mkdir -p "$results"
  python3 -B bench/gpu/result.py write "$work" "$out" "device=$(cut -d, -f1 <<<"$gpu")" \
    "driver=$(cut -d, -f2 <<<"$gpu" | xargs)" "memory=$(cut -d, -f3 <<<"$gpu" | xargs)" "commit=$(commit)" \
    "stages=${stages[*]}" "stage_seconds=$stage_seconds" "binaries=$binaries" "python=$versions" \
    "engine_options=${BEAMLINE_ENGINE_OPTIONS:-}" "peers_options=${BEAMLINE_PEERS_OPTIONS:-}" \
    "left_out=$left_out" "warpgroups=${BEAMLINE_WARPGROUPS:-}" \
    "programmatic_launch=${BEAMLINE_PROGRAMMATIC_LAUNCH:-}" "server_beam=${BEAMLINE_SERVER_BEAM:-128}" "gate_users=${BEAMLINE_GATE_USERS:-20000}" \
    "sanitize=${BEAMLINE_SANITIZE:-}" "shapes=${BEAMLINE_SHAPES:-}" "fuzz_seconds=${BEAMLINE_FUZZ_SECONDS:-}" || failed=1
}

failed=0
for stage in "${stages[@]}"; do
  # Looking for them is no part of a stage's time.
  [[ $stage == build || -z $gpu || -n $binaries ]] || ((total_seconds - SECONDS < 10)) || find_binaries
  stage_start=$SECONDS
  detail=
  limit=$((total_seconds - SECONDS < stage_seconds ? total_seconds - SECONDS : stage_seconds))
  if [[ -z $gpu ]]; then
    record "$stage" skipped 0 "no GPU: nvidia-smi names none"
    continue
  fi
  if ((total_seconds - SECONDS < 10)); then
    record "$stage" skipped 0 "no time: BEAMLINE_TOTAL_SECONDS is $total_seconds"
    continue
  fi
  if [[ $stage != build && -z $binaries ]]; then
    record "$stage" failed 0 "no binaries: run the stage build first"
    failed=1
    continue
  fi
  case $stage in
    bench | engine | peers | peers_large | serial | portable | quality | server) settle_trials ;;
  esac
  "stage_$stage"
  case $? in
    0) record "$stage" passed $((SECONDS - stage_start)) "$detail" ;;
    77) record "$stage" skipped $((SECONDS - stage_start)) "$detail" ;;
    *) record "$stage" failed $((SECONDS - stage_start)) "$detail"; failed=1 ;;
  esac
done

if [[ -z $gpu ]]; then
  echo "Nothing was measured: this machine has no GPU."
  exit 3
fi
if [[ -e $out ]]; then
  python3 -B bench/gpu/result.py goals "$out"
  echo "written: $out"
else
  echo "not written: $out (see above)" >&2
fi
exit $failed
