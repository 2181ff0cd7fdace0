#!/usr/bin/env bash
# A libtorch of the user's own is what is configured with, whichever way it is named, though scripts/setup.sh has installed
# another; and nothing else is taken from it: own_libtorch_test.sh CMAKE SOURCE_DIR
set -euo pipefail
cmake=$1 source=$2
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT
unset Torch_DIR BEAMLINE_TORCH_ROOT
# Without what whoever runs this builds with.
CMAKE_PREFIX_PATH=$(tr : '\n' <<<"${CMAKE_PREFIX_PATH:-}" | while read -r prefix; do
  [[ -e $prefix/include/ATen ]] || echo "$prefix"
done | paste -sd:)
export CMAKE_PREFIX_PATH
fail() { echo "$*"; exit 1; }

# A wheel has a compiler and headers of an old protobuf beside its own.
libtorch() {
  mkdir -p "$1"/{bin,lib,share/cmake/Torch,include/ATen/core,include/google/protobuf/stubs}
  touch "$1"/include/{ATen/core/Tensor.h,google/protobuf/service.h} "$1"/lib/lib{torch_cpu,c10}.so
  echo '#define GOOGLE_PROTOBUF_VERSION 3013000' >"$1/include/google/protobuf/stubs/common.h"
  printf '#!/bin/sh\necho libprotoc 3.13.0\n' >"$1/bin/protoc"
  chmod +x "$1/bin/protoc"
}
export BEAMLINE_CACHE=$work/cache
libtorch "$work/cache/venv/lib/python3.11/site-packages/torch"
libtorch "$work/own"
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<EOT
cmake_minimum_required(VERSION 3.25)
project(check CXX)
list(APPEND CMAKE_MODULE_PATH $source/cmake)
set(BEAMLINE_WITH_TORCH ON)
set(BEAMLINE_WITH_GRPC ON)
include(BeamlineDependencies)
message(STATUS "protobuf: \${Protobuf_PROTOC_EXECUTABLE} \${Protobuf_INCLUDE_DIRS}")
EOT

# configured LIBTORCH [CMake arguments]
configured() {
  local log
  rm -rf "$work/build"
  log=$(. "$source/scripts/lib.sh" && "$cmake" -G Ninja -S "$work/project" -B "$work/build" "${@:2}" 2>&1) || fail "$log"
  grep -qxF -- "-- libtorch: $1" <<<"$log" || fail "expected $1: $(grep -- '-- libtorch' <<<"$log")"
  grep -- '-- protobuf: /' <<<"$log" | grep -vqF "$work" || fail "$(grep -- '-- protobuf: ' <<<"$log")"
}
configured "$work/cache/venv/lib/python3.11/site-packages/torch"
BEAMLINE_TORCH_ROOT=$work/own configured "$work/own"
cd "$work"  # a path from where one is
BEAMLINE_TORCH_ROOT=own configured "$work/own"
rm -rf "$work/build"
said=$(BEAMLINE_TORCH_ROOT=own "$cmake" -G Ninja -S "$work/project" -B "$work/build") || fail "$said"
[[ $said == *"-- libtorch: $work/own"* ]] || fail "CMake alone: $(grep -- '-- libtorch' <<<"$said")"
Torch_DIR=$work/own/share/cmake/Torch configured "$work/own"
Torch_DIR=$work/own configured "$work/own"
CMAKE_PREFIX_PATH=$work/own${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH} configured "$work/own"
configured "$work/own" "-DCMAKE_PREFIX_PATH=$work/own/"

error=$(Torch_DIR=$work/none; . "$source/scripts/lib.sh" 2>&1) && fail "a Torch_DIR that is not there was passed over"
[[ $error == "Torch_DIR: no libtorch in $work/none" ]] || fail "$error"
error=$(BEAMLINE_TORCH_ROOT=$work/none; . "$source/scripts/lib.sh" 2>&1) && fail "a BEAMLINE_TORCH_ROOT that is not there was passed over"
[[ $error == "BEAMLINE_TORCH_ROOT: no libtorch in $work/none" ]] || fail "$error"
rm -rf "$work/build"
error=$(BEAMLINE_TORCH_ROOT=$work/none "$cmake" -G Ninja -S "$work/project" -B "$work/build" 2>&1) &&
  fail "CMake passed over a BEAMLINE_TORCH_ROOT that is not there"
[[ $error == *"BEAMLINE_TORCH_ROOT: no libtorch in $work/none"* ]] || fail "$error"
