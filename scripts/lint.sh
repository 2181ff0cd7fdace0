#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over every C++ source; any finding is an error.
#
#   scripts/lint.sh --format         clang-format only (seconds); --fix rewrites the files
#   scripts/lint.sh BUILD_DIR        both; BUILD_DIR holds compile_commands.json
#
# A file that was clean is not looked at again until it, a header of ours, .clang-tidy or clang-tidy itself changes: the
# keys of clean files are kept in the cache folder.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$root"

mapfile -t sources < <(git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh')
if [[ ${1:-} == --fix ]]; then
  clang-format -i "${sources[@]}"
  exit
fi
echo "clang-format: ${#sources[@]} files"
clang-format --dry-run --Werror "${sources[@]}"
[[ ${1:-} == --format ]] && exit

build=${1:?usage: scripts/lint.sh --format | --fix | BUILD_DIR}
[[ -f $build/compile_commands.json ]] || { echo "lint: $build/compile_commands.json is missing: configure first" >&2; exit 2; }
keys=$cache/tidy
mkdir -p "$keys"
find "$keys" -type f -mtime +30 -delete
shared_key=$({ clang-tidy --version; cat .clang-tidy; git ls-files -co --exclude-standard '*.h' '*.proto' | sort | xargs cat; } | sha256sum)
export build keys shared_key

tidy_one() {
  local file=$1 key log
  key=$({ echo "$shared_key"; echo "$file"; cat "$file"; } | sha256sum | cut -d' ' -f1)
  [[ -e $keys/$key ]] && return 0
  log=$(mktemp)
  if clang-tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-everything "$file" >"$log" 2>/dev/null; then
    touch "$keys/$key"
    rm -f "$log"
  else
    cat "$log"
    rm -f "$log"
    return 1
  fi
}
export -f tidy_one
mapfile -t units < <(printf '%s\n' "${sources[@]}" | grep -E '^(src|kernels)/.*\.cc$' |
  while read -r file; do grep -q "\"file\": \".*/$file\"" "$build/compile_commands.json" && echo "$file"; done)
echo "clang-tidy: ${#units[@]} translation units"
printf '%s\0' "${units[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'tidy_one {}'
