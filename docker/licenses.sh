#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The licences of what Beamline is handed on with.
#
#   docker/licenses.sh SITE_PACKAGES DIR
#
# Copies to DIR ours, those of the headers that are compiled in, and those of the wheels in SITE_PACKAGES whose libraries
# are gathered (libtorch's and NVIDIA's). The Debian packages of an image have theirs in /usr/share/doc.
set -euo pipefail
. "$(dirname "$0")/../scripts/usage.sh"
[[ ${1:-} != -* ]] || other_argument "$1"
if (($# != 2)); then usage >&2; exit 2; fi
site=$1 out=$2
mkdir -p "$out"
cp "$(dirname "$0")/../LICENSE" "$out/beamline.txt"
for package in nlohmann-json3-dev libcli11-dev; do
  cp "/usr/share/doc/$package/copyright" "$out/$package.txt"
done
found=0
for file in "$site"/torch-*.dist-info/licenses/* "$site"/nvidia_*.dist-info/licenses/*; do
  [[ -f $file ]] || continue
  wheel=${file#"$site/"}
  cp "$file" "$out/${wheel%%.dist-info/*}-$(basename "$file")"
  found=1
done
((found)) || { echo "licenses: $site has no wheel of libtorch" >&2; exit 1; }
