#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that a machine with a GPU can show, in stages of less than eight minutes each:
#
#   bench/gpu/verify.sh [STAGE ...]     default: all, in this order
#     build      takes the binaries of carry/ (bench/gpu/carry.sh) where they run here, else builds them (nvcc, CMake)
#     tests      every CUDA test on the GPU
#     sanitize   the tests' small shapes under compute-sanitizer: memcheck, racecheck, initcheck, synccheck
#     bench      the kernel bench: fractions of the bandwidth and matrix rate measured in the same run
#     engine     encode and decode graphs, against peers
#     server     the gRPC server over the CUDA engine
#
# Writes bench/results/gpu-TIME.json: device, driver, commit, settings, what each stage said, what was skipped and why.
# BEAMLINE_STAGE_SECONDS limits a stage (default 470); BEAMLINE_RESULTS is another folder for the result.
# Exit status: 0 all stages passed, 1 one failed, 3 nothing could be run because there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/../.."
limit=${BEAMLINE_STAGE_SECONDS:-470}
results=${BEAMLINE_RESULTS:-bench/results}
stages=("$@")
[[ $# -gt 0 ]] || stages=(build tests sanitize bench engine server)
for stage in "${stages[@]}"; do
  case $stage in
    build | tests | sanitize | bench | engine | server) ;;
    *) sed -n '3,15p' "$0" | cut -c3-; exit 2 ;;
  esac
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
binaries=
: >"$work/stages" >"$work/kernels"

json_string() { printf '"%s"' "$(tr -d '\000-\010\013-\037' <<<"$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/\t/ /g' | paste -sd' ')"; }

# record STAGE STATUS SECONDS DETAIL
record() {
  printf '{"stage": "%s", "status": "%s", "seconds": %d, "detail": %s}\n' "$1" "$2" "$3" "$(json_string "$4")" >>"$work/stages"
  printf -- '-- %-9s %-8s %4d s  %s\n' "$1" "$2" "$3" "$4"
}

# limited LOG COMMAND...: runs it for at most a stage's time that is left; its last words on failure.
limited() {
  local log=$1 left=$((limit - SECONDS + stage_start))
  shift
  ((left > 0)) || { echo "no time left for: $*" >"$log"; return 124; }
  timeout --kill-after=5 "$left" "$@" >"$log" 2>&1
}

find_binaries() {
  local place
  for place in carry build/cuda-verify/cuda; do
    [[ -x $place/beamline_kernels_cuda_test ]] || continue
    "$place/beamline_kernels_cuda_test" --gtest_list_tests >/dev/null 2>&1 && binaries=$place && return 0
  done
  return 1
}

stage_build() {
  if find_binaries; then
    detail="takes $binaries, commit $(cat carry/COMMIT 2>/dev/null || echo unknown)"
    return 0
  fi
  local missing=()
  for tool in nvcc cmake ninja; do command -v $tool >/dev/null || missing+=("$tool"); done
  if ((${#missing[@]})); then
    detail="no carried binary runs here, and to build one these are missing: ${missing[*]}"
    return 1
  fi
  local architecture
  architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
  [[ $architecture == 90 ]] && architecture=90a
  local googletest=
  [[ -d carry/googletest ]] && googletest=$PWD/carry/googletest
  limited "$work/configure" cmake -S kernels -B build/cuda-verify -G Ninja -DBEAMLINE_WITH_CUDA=ON \
    -DCMAKE_CUDA_ARCHITECTURES="${architecture:-90a}-real" -DBEAMLINE_GOOGLETEST="$googletest" &&
    limited "$work/build" cmake --build build/cuda-verify --target beamline_kernels_cuda_test beamline_kernels_cuda_bench
  local status=$?
  if ((status)) || ! find_binaries; then
    tail -n 20 "$work/configure" "$work/build" 2>/dev/null
    detail="building the kernels failed"
    return 1
  fi
  detail="built for sm_${architecture:-90a}"
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

stage_tests() {
  BEAMLINE_REQUIRE_GPU=1 limited "$work/tests" "$binaries/beamline_kernels_cuda_test" --gtest_color=no
  local status=$?
  if tests_passed "$work/tests" && ((status == 0)); then return 0; fi
  grep -E 'Failure|error|FAILED|^  ' "$work/tests" | tail -n 60
  detail="$detail (exit status $status)"
  return 1
}

stage_sanitize() {
  local sanitizer tool status bad=0 said=
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /opt/nvidia/*/compute-sanitizer 2>/dev/null | head -n 1)
  if [[ -z $sanitizer ]]; then
    detail="compute-sanitizer is not on this machine"
    return 77
  fi
  for tool in memcheck racecheck initcheck synccheck; do
    BEAMLINE_REQUIRE_GPU=1 BEAMLINE_SMALL_SHAPES=1 limited "$work/$tool" "$sanitizer" --tool "$tool" --error-exitcode 86 \
      --print-limit 5 "$binaries/beamline_kernels_cuda_test" --gtest_color=no --gtest_filter='*Gpu*'
    status=$?
    if ((status == 0)) && tests_passed "$work/$tool"; then
      said+="$tool clean; "
    else
      bad=1
      said+="$tool: exit status $status; "
      grep -E '=========|Failure|no time' "$work/$tool" | head -n 40
    fi
  done
  detail=${said%; }
  return $bad
}

stage_bench() {
  local torch_libraries
  torch_libraries=$(python3 -c 'import os, nvidia; print(":".join(os.path.join(p, d, "lib") for p in nvidia.__path__ for d in os.listdir(p)))' 2>/dev/null)
  LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$torch_libraries:/usr/local/cuda/lib64 limited "$work/bench" "$binaries/beamline_kernels_cuda_bench"
  local status=$?
  grep '^{' "$work/bench" | tee "$work/kernels"
  grep -v '^{' "$work/bench"
  detail="$(grep -c '"kernel"' "$work/kernels") cases"
  return $status
}

stage_engine() { detail="there is no CUDA backend of the engine yet"; return 77; }
stage_server() { detail="there is no CUDA backend of the engine yet"; return 77; }

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
failed=0
for stage in "${stages[@]}"; do
  stage_start=$SECONDS
  detail=
  if [[ -z $gpu ]]; then
    record "$stage" skipped 0 "no GPU: nvidia-smi names none"
    continue
  fi
  if [[ $stage != build && -z $binaries ]] && ! find_binaries; then
    record "$stage" failed 0 "no binaries: run the stage build first"
    failed=1
    continue
  fi
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
mkdir -p "$results"
out=$results/gpu-$(date -u +%Y%m%dT%H%M%SZ).json
commit=$(cat carry/COMMIT 2>/dev/null || git describe --always --dirty 2>/dev/null || echo unknown)
{
  printf '{"device": %s, "driver": %s, "memory": %s,\n' "$(json_string "$(cut -d, -f1 <<<"$gpu")")" \
    "$(json_string "$(cut -d, -f2 <<<"$gpu" | xargs)")" "$(json_string "$(cut -d, -f3 <<<"$gpu" | xargs)")"
  printf ' "commit": %s, "settings": {"stages": %s, "stage_seconds": %d, "binaries": %s},\n' "$(json_string "$commit")" \
    "$(json_string "${stages[*]}")" "$limit" "$(json_string "$binaries")"
  printf ' "stages": [\n  %s],\n "kernels": [\n  %s]}\n' "$(paste -sd, "$work/stages" | sed 's/},{/},\n  {/g')" \
    "$(paste -sd, "$work/kernels" | sed 's/},{/},\n  {/g')"
} >"$out"
echo "written: $out"
exit $failed
