#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the binary and gathers what it needs at run time into one folder; the Dockerfile's work, as a script.
#
#   docker/install.sh DIR [PRESET]     PRESET: cpu-release (default) or cuda-release
#
# DIR/bin/beamline; DIR/lib: the shared libraries of libtorch that it loads, by their place beside bin, so that DIR may be
# moved; DIR/packages.txt: the Debian packages that the others are in; DIR/licenses: docker/licenses.sh.
set -euo pipefail
. "$(dirname "$0")/../scripts/usage.sh"
if (($# == 0)); then usage >&2; exit 2; fi
[[ $1 != -* ]] || other_argument "$1"
preset=${2:-cpu-release}
[[ $preset == cpu-release || $preset == cuda-release ]] || other_argument "$preset"
(($# <= 2)) || other_argument "$3"
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."
. scripts/lib.sh
build=$build_root/image-$preset
configure "$preset" "$build" -DBEAMLINE_BUILD_TESTS=OFF
cmake --build "$build" -j "$jobs" --target beamline
mkdir -p "$out/bin" "$out/lib"
install --strip "$build/bin/beamline" "$out/bin/beamline"

# The package of a library; the loader and dpkg may call the same folder /lib and /usr/lib.
owner() {
  { dpkg-query -S "$1" || dpkg-query -S "/usr$1" || dpkg-query -S "${1#/usr}"; } 2>/dev/null | head -n 1 | cut -d: -f1
}

: >"$out/packages.all"
# Of the one that was built: what was gathered before is the other's.
libraries=$(ldd "$build/bin/beamline" | awk '$2 == "=>" { if ($3 == "not") { print "missing: " $1 >"/dev/stderr"; exit 1 } print $3 }')
while read -r library; do
  case $library in
    */site-packages/*) cp -L "$library" "$out/lib/" && site=${library%%/site-packages/*}/site-packages ;;
    *) owner "$library" >>"$out/packages.all" ;;
  esac
done <<<"$libraries"
sort -u "$out/packages.all" >"$out/packages.txt"
rm "$out/packages.all"
[[ -s $out/packages.txt && -e $out/lib/libtorch_cpu.so ]] || { echo "install: found no libraries" >&2; exit 1; }
bash docker/licenses.sh "$site" "$out/licenses"
