#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the large set of tests/golden/t5_parity.py once per version of that script, outside the source tree, and prints
# its folder. About five minutes of one core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
key=$(cat "$here/t5_parity.py" "$here/venv.sh" | sha256sum | cut -c1-16)
set=$cache/t5-parity-$key
if [[ ! -d $set ]]; then
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/t5-parity.tmp-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  $("$here/venv.sh") "$here/t5_parity.py" --jobs "$jobs" --out "$work" >&2
  [[ -d $set ]] || mv -T "$work" "$set" || [[ -d $set ]]  # another run may have made it meanwhile
fi
echo "$set"
