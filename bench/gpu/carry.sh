#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prepares carry/ (ignored by git) for a machine with a GPU: the CUDA test and bench binaries, built here with nvcc, and
# the commit they are of. They need a driver and glibc, nothing else; bench/gpu/verify.sh takes them from there.
#
#   bench/gpu/carry.sh [ARCHITECTURES]      default 90a-real; e.g. "80-real;90a-real"
#   BEAMLINE=path bench/gpu/carry.sh        the beamline binary, too, with the libraries it needs but for libtorch's and
#                                           glibc's, in carry/lib: there
#     LD_LIBRARY_PATH=carry/lib:TORCH/lib:NVIDIA/lib carry/beamline train --device cuda ...
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/lib.sh
limit_mib=64
build=$build_root/cuda-carry
cmake -S kernels -B "$build" -G Ninja -DBEAMLINE_WITH_CUDA=ON -DBEAMLINE_CCACHE="$(command -v ccache || true)" \
  -DCMAKE_CUDA_ARCHITECTURES="${1:-90a-real}"
cmake --build "$build" -j "$jobs" --target beamline_kernels_cuda_test beamline_kernels_cuda_bench
rm -rf carry
mkdir carry
strip -o carry/beamline_kernels_cuda_test "$build/cuda/beamline_kernels_cuda_test"
strip -o carry/beamline_kernels_cuda_bench "$build/cuda/beamline_kernels_cuda_bench"
git describe --always --dirty >carry/COMMIT
if [[ -n ${BEAMLINE:-} ]]; then
  strip -o carry/beamline "$BEAMLINE"
  mkdir carry/lib
  ldd "$BEAMLINE" | awk '$3 ~ /^\/(usr\/)?lib/ {print $3}' |
    grep -vE '/lib(c|m|rt|dl|pthread|util|stdc\+\+|gcc_s)\.so' | xargs -I{} cp -L {} carry/lib/
fi
# Should the binaries not start there, verify.sh builds them; the tests then need GoogleTest's sources.
for sources in /usr/src/googletest "${BEAMLINE_GOOGLETEST:-}"; do
  if [[ -f $sources/CMakeLists.txt && ! -d carry/googletest ]]; then cp -r "$sources" carry/googletest; fi
done
size=$(du -sm carry | cut -f1)
((size < limit_mib)) || { echo "carry/ has $size MiB, the limit is $limit_mib" >&2; exit 1; }
echo "carry/: $size MiB, commit $(cat carry/COMMIT)"
