#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over every C++ source; any finding is an error.
#
#   scripts/lint.sh --format             clang-format only (seconds); --fix rewrites the files
#   scripts/lint.sh BUILD_DIR [FILE...]  both, of these sources or of all; BUILD_DIR is a finished Ninja build
#
# A source that was clean is not looked at again until it, a header of ours that it includes, .clang-tidy or clang-tidy
# itself changes (a folder's own .clang-tidy counts, too): the keys of clean sources are kept in the cache folder.
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

build=$(cd "${1:?usage: scripts/lint.sh --format | --fix | BUILD_DIR [FILE...]}" && pwd)
shift
[[ -f $build/compile_commands.json ]] || { echo "lint: $build/compile_commands.json is missing: configure first" >&2; exit 2; }
clang_tidy=$cache/tools/bin/clang-tidy
[[ -x $clang_tidy ]] || { echo "lint: $clang_tidy is missing: run scripts/setup.sh --dev" >&2; exit 2; }
keys=$cache/tidy
mkdir -p "$keys"
find "$keys" -type f -mtime +30 -delete

# The build's compile commands without its precompiled headers, and for each source of those that it compiles together.
commands=$(mktemp -d)
included=$commands/included
trap 'rm -rf "$commands"' EXIT
python3 -c '
import json, re, sys
units = []
for unit in json.load(open(sys.argv[1])):
    command = re.sub(r" -(Winvalid-pch|fpch-preprocess)\b| -include \S*cmake_pch\.hxx", "", unit["command"])
    together = "/Unity/unity_" in unit["file"]
    for file in re.findall(r"^#include \"(.*)\"$", open(unit["file"]).read(), re.M) if together else [unit["file"]]:
        units.append({**unit, "file": file, "command": command.replace(unit["file"], file)})
json.dump(units, open(sys.argv[2], "w"))
' "$build/compile_commands.json" "$commands/compile_commands.json"

# What each source includes of ours, directly or not: "SOURCE HEADER..." per line.
python3 -c '
import functools, os, re, sys
build, *sources = sys.argv[1:]
roots = ["include", "src", "tests", "kernels", os.path.join(build, "src/server/proto")]
@functools.cache
def included(file):
    names = re.findall(r"^ *#include \"(.*?)\"", open(file, errors="replace").read(), re.M)
    places = ([os.path.join(root, name) for root in [os.path.dirname(file), *roots]] for name in names)
    return [path for path in (next(filter(os.path.isfile, paths), None) for paths in places) if path]
for source in sources:
    seen, left = {source: None}, [source]
    while left:
        new = [path for path in included(left.pop()) if path not in seen]
        seen.update(dict.fromkeys(new))
        left += new
    print(*seen)
' "$build" "${sources[@]}" >"$included"
shared_key=$({ "$clang_tidy" --version; cat .clang-tidy; } | sha256sum)
export clang_tidy commands keys included shared_key

tidy_one() {
  local file=$1 key log headers
  headers=$(grep -m1 -E -- "^$file( |\$)" "$included")
  # shellcheck disable=SC2086
  key=$({ echo "$shared_key"; [[ $file != tests/* ]] || cat tests/.clang-tidy; echo "$file"; cat "$file"; cat $headers 2>/dev/null; } |
    sha256sum | cut -d' ' -f1)
  [[ -e $keys/$key ]] && return 0
  log=$(mktemp)
  if "$clang_tidy" -p "$commands" --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-everything "$file" >"$log" 2>&1; then
    touch "$keys/$key"
    rm -f "$log"
  else
    cat "$log"
    rm -f "$log"
    return 1
  fi
}
export -f tidy_one
mapfile -t units < <(printf '%s\n' "${sources[@]}" | grep -E '\.cc$' |
  while read -r file; do grep -q "\"file\": \"[^\"]*/$file\"" "$commands/compile_commands.json" && echo "$file"; done)
(($# > 0)) && units=("$@")
echo "clang-tidy: ${#units[@]} translation units"
printf '%s\0' "${units[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'tidy_one {}'
