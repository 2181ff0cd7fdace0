#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs all tests; installs what they need. CI runs exactly this.
#
#   scripts/test.sh             clang-format, build, all tests, clang-tidy, ThreadSanitizer over what has no torch or gRPC,
#                               AddressSanitizer and UBSan over everything; the CUDA kernels where there is nvcc; parity with
#                               the PyTorch twin and Hugging Face transformers, which pip installs
#   scripts/test.sh --fast      a developer's minute: format, layers 0-2 and the engine's core, without torch and gRPC
#
# BEAMLINE_JOBS=N compiles with N jobs; BEAMLINE_BUILD_ROOT and BEAMLINE_CACHE move the builds and the caches.
set -euo pipefail
. "$(dirname "$0")/usage.sh"
mode=--full
for argument in "$@"; do
  case $argument in
    --fast) mode=--fast ;;
    *) other_argument "$argument" ;;
  esac
done
cd "$(dirname "$0")/.."
bash scripts/setup.sh --dev
. scripts/lib.sh

passed=0 failed=0 skipped=0
stage_start=$SECONDS
stage() {
  say "$1"
  stage_start=$SECONDS
}
stage_end() { echo "-- ${SECONDS} s in all, $((SECONDS - stage_start)) s for this stage"; }

# build DIR [options of cmake --build]: prints the last line, or, where it fails, the last hundred but for the progress.
build() {
  cmake --build "$1" -j "$jobs" "${@:2}" >"$1/build.log" 2>&1 || {
    grep -vE '^\[[0-9]+/[0-9]+\] (Building|Linking|Generating)' "$1/build.log" | tail -n 100 >&2
    return 1
  }
  tail -n 1 "$1/build.log"
}

# run_ctest DIR [ctest arguments]: adds to the totals, keeps going when tests fail.
run_ctest() {
  local dir=$1 log summary
  shift
  log=$dir/ctest.log
  ctest --test-dir "$dir" -j "$jobs" --output-on-failure --no-tests=error "$@" 2>&1 | tee "$log" | grep -vE '^ +(Start )? *[0-9]+(/[0-9]+)?:? .*(Passed|Start)|^ +Start ' || true
  summary=$(grep -E 'tests passed, [0-9]+ tests failed out of [0-9]+' "$log" || true)
  [[ -n $summary ]] || { echo "ctest did not finish in $dir" >&2; exit 1; }
  local out_of bad
  bad=$(sed -E 's/.*, ([0-9]+) tests failed.*/\1/' <<<"$summary")
  out_of=$(sed -E 's/.*out of ([0-9]+).*/\1/' <<<"$summary")
  local unrun
  unrun=$(grep -cE '\*\*\*Skipped' "$log" || true)
  failed=$((failed + bad)) skipped=$((skipped + unrun)) passed=$((passed + out_of - bad - unrun))
  # A process runs many cases.
  local more
  read -r more unrun < <(awk '/^\[  PASSED  \] / { n = $4; more += n > 1 ? n - 1 : 0 }
    /^\[  SKIPPED \] [0-9]+ test/ { unrun += n > 0 ? $4 : 0 }
    END { print more + 0, unrun + 0 }' "$dir/Testing/Temporary/LastTest.log")
  passed=$((passed + more)) skipped=$((skipped + unrun))
}

finish() {
  say "all stages done in $SECONDS s"
  echo "$passed passed, $failed failed, $skipped skipped (each says what it lacks)"
  [[ $failed == 0 ]]
}

stage "clang-format"
bash scripts/lint.sh --format
stage_end

if [[ $mode == --fast ]]; then
  stage "build and test without torch and gRPC"
  configure cpu-release "$build_root/fast" -DBEAMLINE_WITH_TORCH=OFF -DBEAMLINE_WITH_GRPC=OFF
  build "$build_root/fast"
  run_ctest "$build_root/fast" -LE slow
  stage_end
  finish
  exit
fi

stage "build: cpu-release, binary and tests"
configure cpu-release "$build_root/cpu-release" -DBEAMLINE_TEST_SHARDS=4
build "$build_root/cpu-release"
stage_end
stage "tests: cpu-release"
run_ctest "$build_root/cpu-release"
stage_end
stage "clang-tidy"
bash scripts/lint.sh "$build_root/cpu-release"
stage_end

# Where there is nvcc the kernels are compiled with it, and the run fails if they were not; a GPU is not needed.
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)
if [[ -n $nvcc ]]; then
  stage "CUDA kernels: compile and link with $nvcc, launcher arguments"
  cuda_kernels=$build_root/cuda-kernels
  mkdir -p "$cuda_kernels"
  cmake -S kernels -B "$cuda_kernels" -G Ninja -DBEAMLINE_WITH_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DBEAMLINE_CCACHE="$(command -v ccache || true)" >"$cuda_kernels/configure.log" 2>&1 || {
    cat "$cuda_kernels/configure.log" >&2
    exit 1
  }
  build "$cuda_kernels"
  if [[ ! -x $cuda_kernels/cuda/beamline_kernels_cuda_test ]]; then
    echo "nvcc is here, but the CUDA kernels were not built with it" >&2
    exit 1
  fi
  if grep -q "Registers are spilled" "$cuda_kernels/build.log"; then
    echo "a kernel spills registers: see $cuda_kernels/build.log" >&2
    exit 1
  fi
  if grep -q "wgmma.mma_async instructions are serialized" "$cuda_kernels/build.log"; then
    echo "nvcc lets a kernel wait for each of its wgmma: see $cuda_kernels/build.log" >&2
    exit 1
  fi
  run_ctest "$cuda_kernels"
  stage_end
  stage "CUDA preset: backend, NCCL, the binary and what bench/gpu/carry.sh takes compile and link"
  configure cuda-release "$build_root/cuda-release" -DCMAKE_CUDA_COMPILER="$nvcc" -DCMAKE_CUDA_ARCHITECTURES=90a-real
  build "$build_root/cuda-release" --target beamline beamline_{backend,model,decode,train}_gpu_test \
    beamline_engine_gpu_bench beamline_peer
  # Their tests skip without a GPU; the communicator's that need none run.
  "$build_root/cuda-release/tests/backend/beamline_backend_gpu_test" --gtest_brief=1 --gtest_filter='*Communicator*:Nccl.*'
  stage_end
fi

stage "parity: family onerec_v1, the PyTorch twin still gives the goldens that the tests hold"
$(bash tests/golden/venv.sh) tests/golden/make_goldens.py --check
stage_end

stage "parity: family t5 against Hugging Face transformers, 1,000 requests a case"
parity_set=$(bash tests/golden/parity_set.sh)
BEAMLINE_PARITY_DIR=$parity_set GTEST_FILTER='*TheSetMadeOnDemand*:*T5Company*/0' run_ctest "$build_root/cpu-release" -R '^parity\.' --verbose
[[ $(grep -c ' OK \] .*TheSetMadeOnDemand' "$build_root/cpu-release/ctest.log") == 2 ]] || {
  echo "the parity set was not compared on both backends" >&2
  exit 1
}
configure cpu-release "$build_root/cpu-release"  # leaves it with a test for each case: ctest -R finds them by name
stage_end

stage "parity: the peers of bench/peers on a GPU, here on the CPU, give the lists of transformers and Beamline"
binaries=$build_root/cpu-release
python3 -B bench/peers/run_gpu.py --device cpu --threads 1 --sizes B --dtype fp32 --beams 16 --batches 1,3 --rounds 1 \
  --seconds 0 --peers beamline,torch_graph --beamline "$binaries/bin/beamline" \
  --peer-binary "$binaries/bench/peers/beamline_peer" --python "$(bash tests/golden/venv.sh)"
stage_end

stage "ThreadSanitizer: levels 0-2, scheduler, engine with a fake backend"
configure cpu-tsan "$build_root/cpu-tsan"
build "$build_root/cpu-tsan"
# One thread and minutes of counting: it says nothing about races.
GTEST_FILTER=-RealDataTest.KuaiRandFloors run_ctest "$build_root/cpu-tsan"
stage_end

# libtorch keeps memory for the life of the process by design; its leaks are not ours.
export LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0 ASAN_OPTIONS=detect_odr_violation=0
stage "AddressSanitizer and UBSan: everything"
configure cpu-asan "$build_root/cpu-asan"
build "$build_root/cpu-asan"
# Trainings of minutes, equal bits that cost kernels' tests half of their time, and peers that are not ours.
GTEST_FILTER='-Journey.TheModel*:*PrecisionGate*:*AttentionGpu.RowsOfARequest*:*AttentionGpu.CompanyChanges*' run_ctest "$build_root/cpu-asan" -E peers_quick
stage_end
finish
