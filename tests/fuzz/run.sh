#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs fuzz targets for as long as you like, under AddressSanitizer and UBSan: with LLVM's libFuzzer where clang and its
# run-time libraries are installed (Debian: clang libclang-rt-14-dev), else with the compiler of the build and our own
# driver, which sees no coverage. Builds what it needs first, without torch.
#
#   tests/fuzz/run.sh [--seconds N] [--jobs N] [--own-driver] [--out FILE] [TARGET...]
#
#   --seconds N   for each target (default 60)
#   --jobs N      targets at once (default: one per core)
#   --out FILE    a table of what ran goes there: runs, covered edges, findings, with the commit
#   TARGET        bundle catalogue config event_table request safetensors sid_index (default: all)
#
# Progress goes to the terminal, a line per target and ten seconds. Inputs that reach new code stay in
# build/fuzz-*/corpus/TARGET and are where the next run begins; what crashes, hangs or breaks a promise lies in
# build/fuzz-*/findings/TARGET, and the exit code is 1. Fixed, it goes to tests/fuzz/regressions/TARGET, which every test
# run replays.
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$self")/../.."
. scripts/lib.sh
usage() {
  sed -n '3,/^[^#]/{/^#/p}' "$self" | cut -c3-
  exit "$1"
}

seconds=60 at_once=$jobs driver=auto out= targets=()
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --jobs) at_once=${2:?--jobs needs a number}; shift ;;
    --own-driver) driver=own ;;
    --out) out=${2:?--out needs a file}; shift ;;
    --help | -h) usage 0 ;;
    -*) usage 2 >&2 ;;
    *) targets+=("$1") ;;
  esac
  shift
done
[[ $seconds =~ ^[1-9][0-9]*$ && $at_once =~ ^[1-9][0-9]*$ ]] || usage 2 >&2
known=(bundle catalogue config event_table request safetensors sid_index)
((${#targets[@]})) || targets=("${known[@]}")
for target in "${targets[@]}"; do
  [[ " ${known[*]} " == *" $target "* ]] || { echo "fuzz: $target is none of ${known[*]}" >&2; exit 2; }
done

# libFuzzer is there when a program with it links.
if [[ $driver == auto ]] && command -v clang++ >/dev/null &&
  echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null 2>/dev/null; then
  build=$build_root/fuzz-clang
  arguments=(-DCMAKE_CXX_COMPILER=clang++ -DBEAMLINE_LIBFUZZER=ON -DBEAMLINE_PRECOMPILE=OFF
    "-DCMAKE_CXX_FLAGS=-fsanitize=fuzzer-no-link")
  more=(-print_final_stats=1 -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=20)
else
  echo "fuzz: without libFuzzer (Debian: clang libclang-rt-14-dev), so with our own driver, which sees no coverage"
  build=$build_root/fuzz-own
  arguments=()
  more=(-timeout=20)
fi
programs_of=("${targets[@]/#/beamline_}")
programs_of=("${programs_of[@]/%/_fuzz}")
configure cpu-asan "$build" -DBEAMLINE_WITH_TORCH=OFF -DBEAMLINE_WERROR=OFF "${arguments[@]}"
echo "fuzz: building in $build"
cmake --build "$build" -j "$jobs" --target beamline_fuzz_seeds beamline_fuzz_server_seeds \
  "${programs_of[@]}" >"$build/build.log" 2>&1 || { tail -n 50 "$build/build.log" >&2; exit 1; }
programs=$build/tests/fuzz
"$programs/beamline_fuzz_seeds" "$build/seeds"
"$programs/beamline_fuzz_server_seeds" "$build/seeds"
touch "$build/started"

# The libraries that Debian compiled know nothing of the containers' redzones.
export ASAN_OPTIONS=detect_container_overflow=0:detect_odr_violation=0:allocator_may_return_null=0
export UBSAN_OPTIONS=print_stacktrace=1

run_target() {
  local target=$1 corpus=$build/corpus/$1 findings=$build/findings/$1 log=$build/$1.log
  mkdir -p "$corpus" "$findings"
  local inputs=("$corpus" "$build/seeds/$target" "tests/fuzz/regressions/$target")
  "$programs/beamline_${target}_fuzz" -max_total_time="$seconds" -seed="$RANDOM" -max_len=65536 "${more[@]}" \
    -artifact_prefix="$findings/" "${inputs[@]}" >"$log" 2>&1 &
  local fuzzer=$! result=0 waited=0
  while kill -0 "$fuzzer" 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    ((waited % 10)) || echo "$target: $(grep -aE '^#[0-9]' "$log" | tail -n 1)"
  done
  wait "$fuzzer" || result=$?
  echo "$target: $(grep -aE '^#[0-9].*DONE|^Done' "$log" | tail -n 1)"
  if [[ $result != 0 ]]; then
    echo "$target: FOUND SOMETHING (exit $result), see $log and $findings:" >&2
    grep -aE 'fuzz: |SUMMARY|ERROR|runtime error' "$log" | head -n 5 >&2 || true
    return 1
  fi
}

failed=0 running=0
for target in "${targets[@]}"; do
  if ((running == at_once)); then
    wait -n || failed=1
    running=$((running - 1))
  fi
  run_target "$target" &
  running=$((running + 1))
done
while ((running)); do
  wait -n || failed=1
  running=$((running - 1))
done
if [[ -n $out ]]; then
  count_of() { grep -aoE "$2" "$build/$1.log" | tail -n 1 | grep -oE '[0-9]+$' || echo '-'; }
  new_in() { find "$build/$1" -type f -newer "$build/started" | wc -l; }
  {
    echo "# Fuzzing: \`tests/fuzz/run.sh --seconds $seconds\`"
    echo
    echo "$(date -u +%F), commit $(git describe --always --dirty), $(basename "$build"), AddressSanitizer and UBSan, $at_once at once on \
$(nproc) cores."
    echo
    echo '| target | seconds | runs | edges covered | new inputs kept | findings |'
    echo '| --- | --- | --- | --- | --- | --- |'
    for target in "${targets[@]}"; do
      echo "| $target | $(count_of "$target" 'in [0-9]+') | $(count_of "$target" '^Done [0-9]+') | $(count_of "$target" ' cov: [0-9]+') \
| $(new_in "corpus/$target") | $(new_in "findings/$target") |"
    done
  } >"$out"
fi
exit "$failed"
