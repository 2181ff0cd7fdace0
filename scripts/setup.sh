#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Beamline needs to build, on Debian 12, and nothing that is already there:
#   - compiler, CMake, gRPC, protobuf, abseil, ... from Debian (needs root or sudo)
#   - libtorch, CPU only, from the pip wheel in a virtual environment outside the source tree
# CUDA is never required, and installed only where asked for. A libtorch of your own is used instead when Torch_DIR, CMAKE_PREFIX_PATH or
# BEAMLINE_TORCH_ROOT points at one.
#
#   scripts/setup.sh          what the demo needs
#   scripts/setup.sh --dev    and what the tests, the linters and the sanitizers need, with Kubernetes' schemas
#   scripts/setup.sh --cuda   and nvcc with what compiles the preset cuda-release, from NVIDIA's wheels (about 300 MB); where
#                             there is no nvcc on the PATH, scripts/lib.sh takes that one
set -euo pipefail
. "$(dirname "$0")/usage.sh"
dev=no cuda=no
for argument in "$@"; do
  case $argument in
    --dev) dev=yes ;;
    --cuda) cuda=yes ;;
    *) other_argument "$argument" ;;
  esac
done

torch_version=2.11.0
cache=${BEAMLINE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/beamline}
packages=(g++ cmake ninja-build ccache lld git ca-certificates
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev libspdlog-dev libfmt-dev
  nlohmann-json3-dev libcli11-dev zlib1g-dev libssl-dev pkg-config libre2-dev libc-ares-dev prometheus-cpp-dev libcpp-httplib-dev python3 python3-venv)
[[ $dev == yes ]] && packages+=(libgtest-dev libgmock-dev libbenchmark-dev clang-format prometheus haproxy chromium fonts-dejavu-core)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "setup: installing ${#missing[@]} Debian packages: ${missing[*]}"
  sudo=; [[ $(id -u) == 0 ]] || sudo=sudo
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [[ -n ${Torch_DIR:-}${BEAMLINE_TORCH_ROOT:-} || ${CMAKE_PREFIX_PATH:-} == *torch* ]]; then
  echo "setup: using the libtorch that the environment names"
elif [[ ! -f $cache/venv/torch-$torch_version.ok ]]; then
  echo "setup: installing libtorch $torch_version (CPU only, about 550 MB) into $cache/venv"
  rm -rf "$cache/venv"
  mkdir -p "$cache"
  /usr/bin/python3 -m venv "$cache/venv"
  # The wheel links the CUDA runtime and CUPTI by name but needs neither at run time on the CPU; --no-deps leaves out the
  # 3 GB of CUDA libraries that it would otherwise bring.
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    "torch==$torch_version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
  touch "$cache/venv/torch-$torch_version.ok"
fi

# clang-tidy from the wheel: three times as fast as Debian's 14, which looks at every line of every system header.
tools=(kubernetes-validate==1.37.0 clang-tidy==23.1.4)
installed=$cache/tools/$(IFS=,; echo "${tools[*]}").ok
if [[ $dev == yes && ! -f $installed ]]; then
  echo "setup: installing ${tools[*]} into $cache/tools"
  rm -rf "$cache/tools"
  mkdir -p "$cache"
  /usr/bin/python3 -m venv "$cache/tools"
  "$cache/tools/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"
  touch "$installed"
fi

wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-nccl-cu13==2.28.9)
installed=$cache/cuda/$(IFS=,; echo "${wheels[*]}").ok
if [[ $cuda == yes && ! -f $installed ]]; then
  echo "setup: installing ${wheels[*]} into $cache/cuda"
  rm -rf "$cache/cuda"
  mkdir -p "$cache"
  /usr/bin/python3 -m venv "$cache/cuda"
  "$cache/cuda/bin/pip" install --quiet --disable-pip-version-check --no-deps "${wheels[@]}"
  # The wheels' folder as nvcc and CMake expect a toolkit.
  toolkit=$(echo "$cache"/cuda/lib/python3*/site-packages/nvidia/cu13)
  ln -s lib "$toolkit/lib64"
  for library in "$toolkit"/lib/lib*.so.*; do ln -s "$(basename "$library")" "${library%.so.*}.so"; done
  ln -s "$toolkit" "$cache/cuda/toolkit"
  touch "$installed"
fi
