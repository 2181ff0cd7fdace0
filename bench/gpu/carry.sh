#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prepares carry/ (ignored by git) for a machine with a GPU: the CUDA test and bench binaries, built here with nvcc, and
# the commit they are of; and carry/ as one file, carry.tar.gz, which is what travels. bench/gpu/verify.sh takes them
# from there. The kernels' need a driver and glibc, nothing else.
#
#   bench/gpu/carry.sh [ARCHITECTURES]      default 90a-real; e.g. "80-real;90a-real"
#   BEAMLINE_BUILD=DIR bench/gpu/carry.sh   from a build of the preset cuda-release besides: the tests of the cuda backend,
#                                           of models, the search and training, random worlds beside a reference, the
#                                           engine's bench, Beamline as one of
#                                           bench/peers, and the beamline binary, with the libraries they need but for
#                                           libtorch's and glibc's, in carry/lib
#   BEAMLINE=none                           without the beamline binary, which with gRPC takes a third of the room; so
#                                           it is where the build has no gRPC (-DBEAMLINE_WITH_GRPC=OFF)
#   BEAMLINE=path bench/gpu/carry.sh        the beamline binary alone, with its libraries: there
#     LD_LIBRARY_PATH=carry/lib:TORCH/lib:NVIDIA/lib carry/beamline train --device cuda ...
#   BEAMLINE_BUNDLE, BEAMLINE_MODEL, BEAMLINE_DATA, BEAMLINE_TOKENIZER: folders copied to carry/bundle, carry/model,
#     carry/data and carry/tokenizer, for the stages engine and quality
set -euo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
cd "$(dirname "$0")/../.."
. scripts/lib.sh
[[ $# -le 1 && ${1:-} != -* ]] || other_argument "$*"
limit_mib=64
build=$build_root/cuda-carry
cmake -S kernels -B "$build" -G Ninja -DBEAMLINE_WITH_CUDA=ON -DBEAMLINE_CCACHE="$(command -v ccache || true)" \
  -DCMAKE_CUDA_ARCHITECTURES="${1:-90a-real}"
kernels=(beamline_kernels_cuda{,_unfenced}_{test,bench})
cmake --build "$build" -j "$jobs" --target "${kernels[@]}"
if [[ -n ${BEAMLINE_BUILD:-} ]]; then  # some are not of the build's `all`
  # Without gRPC there is no beamline binary.
  if grep -qE '^BEAMLINE_WITH_GRPC:BOOL=(OFF|0|NO|FALSE)$' "$BEAMLINE_BUILD/CMakeCache.txt"; then BEAMLINE=${BEAMLINE:-none}; fi
  binary=beamline
  [[ -z ${BEAMLINE:-} ]] || binary=
  cmake --build "$BEAMLINE_BUILD" -j "$jobs" --target $binary beamline_{backend,model,decode,train,oracle}_gpu_test \
    beamline_engine_gpu_bench beamline_peer
fi
rm -rf carry
mkdir carry
for name in "${kernels[@]}"; do strip -o "carry/$name" "$build/cuda/$name"; done
git describe --always --dirty >carry/COMMIT
echo "${1:-90a-real}" >carry/ARCHITECTURES

# carry_binary FILE: and the libraries of the system that it needs.
carry_binary() {
  strip -o "carry/$(basename "$1")" "$1"
  mkdir -p carry/lib
  ldd "$1" | awk '$3 ~ /^\/(usr\/)?lib/ {print $3}' |
    grep -vE '/lib(c|m|rt|dl|pthread|util|stdc\+\+|gcc_s)\.so' | xargs -I{} cp -L {} carry/lib/
}
if [[ -n ${BEAMLINE_BUILD:-} ]]; then
  for name in backend model decode train oracle; do
    binary=$BEAMLINE_BUILD/tests/$name/beamline_${name}_gpu_test
    [[ -x $binary ]] || { echo "$binary is not there: build the preset cuda-release" >&2; exit 1; }
    carry_binary "$binary"
  done
  carry_binary "$BEAMLINE_BUILD/bench/engine/beamline_engine_gpu_bench"
  carry_binary "$BEAMLINE_BUILD/bench/peers/beamline_peer"
  BEAMLINE=${BEAMLINE:-$(find "$BEAMLINE_BUILD" -maxdepth 3 -type f -name beamline -perm -u+x | head -n 1)}
fi
if [[ -n ${BEAMLINE:-} && $BEAMLINE != none ]]; then carry_binary "$BEAMLINE"; fi
for folder in bundle model data tokenizer; do
  from=BEAMLINE_${folder^^}
  if [[ -n ${!from:-} ]]; then cp -rL "${!from}" "carry/$folder"; fi
done
# Should the binaries not start there, verify.sh builds them; the tests then need GoogleTest's sources.
for sources in /usr/src/googletest "${BEAMLINE_GOOGLETEST:-}"; do
  if [[ -f $sources/CMakeLists.txt && ! -d carry/googletest ]]; then cp -r "$sources" carry/googletest; fi
done
tar -czf carry.tar.gz carry
size=$(du -sm carry.tar.gz | cut -f1)
((size < limit_mib)) || { echo "carry.tar.gz has $size MiB, the limit is $limit_mib" >&2; exit 1; }
echo "carry.tar.gz: $size MiB, commit $(cat carry/COMMIT)"
