#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Beamline beside its peers, in one command: builds Beamline, makes the Python environments and the models once, outside
# the source tree, measures, and reports. bench/peers/run.sh --help; bench/README.md.
#
# --no-install as first argument: exit status 77 instead of making an environment or building anything.
# BEAMLINE_PEERS_BUILD is a build folder whose binaries are taken as they are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
install=1
if [[ ${1:-} == --no-install ]]; then
  install=0
  shift
  export BEAMLINE_PEERS_NO_INSTALL=1
fi

# What asks for no measurement, or for one that there is not, builds and installs nothing.
unbuilt=(/usr/bin/python3 -B "$here/run.py" --beamline none --peer-binary none)
for argument in "$@"; do
  [[ $argument == --plan || $argument == --help || $argument == -h ]] || continue
  exec "${unbuilt[@]}" "$@"
done
"${unbuilt[@]}" "$@" --plan >/dev/null || exit $?

command=$(bash "$here/environment.sh" main) || exit $?
build=${BEAMLINE_PEERS_BUILD:-$build_root/cpu-release}
if [[ -z ${BEAMLINE_PEERS_BUILD:-} && $install == 1 ]]; then
  say "building Beamline" >&2
  configure cpu-release "$build"
  cmake --build "$build" -j "$jobs" --target beamline beamline_peer >&2
fi
binaries=(--beamline "$build/bin/beamline" --peer-binary "$build/bench/peers/beamline_peer")
for binary in "${binaries[1]}" "${binaries[3]}"; do
  [[ -x $binary ]] || { echo "peers: $binary is not built" >&2; exit 77; }
done
exec "${command##* }" "$here/run.py" "${binaries[@]}" "$@"
