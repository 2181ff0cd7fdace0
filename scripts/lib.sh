# SPDX-License-Identifier: Apache-2.0
# Sourced by the other scripts: where things are and how to configure a build.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BEAMLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/beamline}
build_root=${BEAMLINE_BUILD_ROOT:-$root/build}
jobs=${BEAMLINE_JOBS:-$(nproc)}
export CCACHE_DIR=${CCACHE_DIR:-$cache/ccache} CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G} CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=$root
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
if [[ -n ${BEAMLINE_TORCH_ROOT:-} ]]; then
  [[ -e $BEAMLINE_TORCH_ROOT/include/ATen/core/Tensor.h ]] ||
    { echo "BEAMLINE_TORCH_ROOT: no libtorch in $BEAMLINE_TORCH_ROOT" >&2; return 1; }
  BEAMLINE_TORCH_ROOT=$(realpath "$BEAMLINE_TORCH_ROOT")  # scripts configure in the folder of the checkout
  export BEAMLINE_TORCH_ROOT
elif [[ -n ${Torch_DIR:-} ]]; then
  # TORCH/share/cmake/Torch, as CMake means it, or TORCH: what setup.sh installed earlier must not come before it.
  for candidate in "$Torch_DIR" "$Torch_DIR/../../.."; do
    [[ -d $candidate/include/ATen ]] && BEAMLINE_TORCH_ROOT=$(realpath "$candidate") && export BEAMLINE_TORCH_ROOT
  done
  [[ -n ${BEAMLINE_TORCH_ROOT:-} ]] || { echo "Torch_DIR: no libtorch in $Torch_DIR" >&2; return 1; }
else
  for candidate in "$cache"/venv/lib/python3*/site-packages/torch; do
    [[ -d $candidate ]] && export BEAMLINE_TORCH_ROOT=$candidate
  done
fi

if [[ -z ${CUDACXX:-} ]] && ! command -v nvcc >/dev/null && [[ -x $cache/cuda/toolkit/bin/nvcc ]]; then
  export CUDACXX=$cache/cuda/toolkit/bin/nvcc CUDAToolkit_ROOT=$cache/cuda/toolkit  # CMake reads either for some part
fi

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# OpenMP threads that wait for each other sleep instead of spinning: on a machine that does other work too, spinning
# makes two threads many times slower than one.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

# configure PRESET DIR [cmake arguments]: quiet unless it fails. How many processes share the cases of a test executable is
# not remembered from the call before: `ctest -R NAME` finds cases by name only where each is a test of its own.
configure() {
  local preset=$1 dir=$2
  shift 2
  mkdir -p "$dir"
  (cd "$root" && cmake --preset "$preset" -B "$dir" -UBEAMLINE_TEST_SHARDS "$@" >"$dir.configure.log" 2>&1) || {
    cat "$dir.configure.log" >&2
    return 1
  }
}
