# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# The stages `sanitize` and `sanitize_engine` of verify.sh, which sources this and has what is used here: every test that uses
# the GPU, under compute-sanitizer, by parts; our own kernels come first, what is mostly libraries' last. A part that does not
# get through in time fails its stage and says which tests are left:
#
#   BEAMLINE_SANITIZE="model train" bench/gpu/verify.sh sanitize    goes on with these parts

# Those of the backend's binary, by part; `rest` is whatever is in none of them, tests that are new, too.
declare -A sanitize_filters=(
  [backend]='*CudaBackendTest*:*Fp8Test*:*Fp8Mixed*:*GraphsTest*:*GraphNodesTest*:*WarpgroupTrial*'
  [ops]='*OpsTest*:*AttentionTest*:*RankerTest*'
  [nccl]='Nccl.*'
  [algorithms]='*AlgorithmsOnDevice*'
)
sanitize_filters[rest]="*-$(IFS=:; echo "${sanitize_filters[*]}")"

# unfinished LOG BINARY FILTER: the names of the tests that have not ended in the log.
unfinished() {
  LD_LIBRARY_PATH=$libraries timeout 10 "$2" --gtest_list_tests --gtest_filter="$3" 2>/dev/null |
    awk '{ sub(/ *#.*/, "") } /^[^ ]+\.$/ { suite = $0 } /^  [^ ]+$/ && !/DISABLED_/ { print suite $1 }' | sort >"$work/listed"
  grep -oP '^\[ +(OK|FAILED|SKIPPED) +\] \K[^ ,]+(?=.* \(\d+ ms\))' "$1" | sort | comm -13 - "$work/listed"
}

# reported LOG: whether a test failed, or the tool had something to say of one, as far as it came.
reported() {
  grep -q '^\[  FAILED' "$1" || grep -E '^========= [A-Z]' "$1" | grep -qvE 'COMPUTE-SANITIZER|SUMMARY|[Pp]rocess|Target application'
}

# sanitize PART TOOL SECONDS BINARY FILTER: adds to `said`; false where something was found, or was not come to.
sanitize() {
  local part=$1 tool=$2 most=$3 binary=$4 filter=$5 status count log=$work/sanitize
  local -a settings=(BEAMLINE_REQUIRE_GPU=1 BEAMLINE_SMALL_SHAPES=1 "LD_LIBRARY_PATH=$libraries") options=() left=()
  [[ " $parts " == *" $part "* ]] || return 0
  said+="$part: "
  if [[ ! -x $binary ]]; then
    said+="not carried; "
    return 0
  fi
  ran=yes
  # Calls of the API that fail are no news: libraries and captures try some, the tests look at ours, and one wants one.
  [[ $tool != memcheck ]] || options=(--report-api-errors no "${go_on[@]}")
  # Else memcheck sees but whole blocks of libtorch's allocator.
  [[ $part != nccl && $part != train ]] || settings+=(PYTORCH_NO_CUDA_MEMORY_CACHING=1)
  # Poisoned buffers count as written: initcheck would never find anything. The tests bring whole buffers back, also the
  # parts that must stay unwritten, so of copies it says nothing.
  [[ $tool != initcheck ]] || { settings+=(BEAMLINE_NO_POISON=1); options=(--check-api-memory-access no); }
  limited -m "$most" "$log" env "${settings[@]}" "$sanitizer" --tool "$tool" "${options[@]}" --error-exitcode 86 \
    --print-limit 5 "$binary" --gtest_color=no --gtest_filter="$filter"
  status=$?
  if ((status == 0)); then
    tests_passed "$log" && said+="$tool clean; " && return 0
  fi
  if ((status != 124 && status != 137)) || reported "$log"; then
    said+="$tool: exit status $status; "
  elif ! grep -q '^\[ RUN ' "$log"; then
    said+="no time; "
  else
    mapfile -t left < <(unfinished "$log" "$binary" "$filter")
    printf 'no time in %s for %s\n' "$part" "${left[*]}"
    count=${#left[@]}
    said+="$tool clean as far as it came, no time for $count tests: ${left[*]:0:4}"
    ((count <= 4)) && said+="; " || said+=" ...; "
  fi
  grep -E '=========|Failure|no time' "$log" | head -n 40
  return 1
}

# sanitize_parts PART...
sanitize_parts() {
  local parts="$*" ran= sanitizer tool part bad=0 said= backend=carry/beamline_backend_gpu_test
  local -a go_on=()  # behind an error of memcheck the other tests say something, too
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer /opt/nvidia/*/compute-sanitizer 2>/dev/null | head -n 1)
  if [[ -z $sanitizer ]]; then
    detail="compute-sanitizer is not on this machine"
    return 77
  fi
  [[ $(timeout 30 "$sanitizer" --help 2>&1) != *--destroy-on-device-error* ]] || go_on=(--destroy-on-device-error kernel)
  for part in $parts; do
    [[ " kernels backend ops lists model decode nccl rest train oracle algorithms " == *" $part "* ]] && continue
    detail="BEAMLINE_SANITIZE: there is no part $part"
    return 1
  done
  settle_trials
  local -x BEAMLINE_PROGRAMMATIC_LAUNCH=0  # they look at each kernel by itself
  for tool in memcheck racecheck initcheck synccheck; do
    sanitize kernels "$tool" 100 "$binaries/beamline_kernels_cuda_test" '*Gpu*' || bad=1
  done
  for part in backend ops; do sanitize "$part" memcheck 120 "$backend" "${sanitize_filters[$part]}" || bad=1; done
  sanitize lists memcheck 120 carry/beamline_decode_gpu_test '*CudaLists.Fp32*' || bad=1
  sanitize model memcheck 120 carry/beamline_model_gpu_test '*' || bad=1
  sanitize decode memcheck 120 carry/beamline_decode_gpu_test '*-*CudaLists.Fp32*' || bad=1
  for part in nccl rest; do sanitize "$part" memcheck 60 "$backend" "${sanitize_filters[$part]}" || bad=1; done
  # Mostly kernels of libtorch's and of cuBLASLt's, thousands of them, which may take more time than there is.
  sanitize train memcheck 120 carry/beamline_train_gpu_test '*' || bad=1
  sanitize oracle memcheck 120 carry/beamline_oracle_gpu_test '*' || bad=1
  sanitize algorithms memcheck 120 "$backend" "${sanitize_filters[algorithms]}" || bad=1
  [[ -n $said ]] || { detail="BEAMLINE_SANITIZE names no part"; return 1; }
  [[ -n $ran ]] || { detail=${said%; }; return 77; }
  detail="${said}left out by design: racecheck, initcheck and synccheck of all but the kernels' own tests"
  return $bad
}

# shellcheck disable=SC2086  # several parts
stage_sanitize() { sanitize_parts ${BEAMLINE_SANITIZE:-kernels backend ops lists}; }

stage_sanitize_engine() {
  [[ -n ${BEAMLINE_SANITIZE:-} ]] && detail="BEAMLINE_SANITIZE is for the stage sanitize" && return 77
  sanitize_parts model decode nccl rest train oracle algorithms
}
