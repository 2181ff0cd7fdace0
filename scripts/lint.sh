#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format and clang-tidy over every C++ source; any finding is an error.
#
#   scripts/lint.sh --format             clang-format only (seconds); --fix rewrites the files
#   scripts/lint.sh BUILD_DIR            both, of all sources, those of a folder together and those that the last ten
#                                        commits changed by themselves, too; BUILD_DIR is a finished Ninja build
#   scripts/lint.sh BUILD_DIR FILE...    both, of these sources, each by itself: it must include what it uses, too
#
# A source that was clean is not looked at again until it, a header of ours that it includes, .clang-tidy or clang-tidy
# itself changes (a folder's own .clang-tidy counts, too): the keys of clean sources are kept in the cache folder.
set -euo pipefail
. "$(dirname "$0")/usage.sh"
case ${1:-} in
  --format | --fix) ;;
  "") usage >&2; exit 2 ;;
  -*) other_argument "$1" ;;
esac
. "$(dirname "$0")/lib.sh"
cd "$root"

listed=$(git ls-files -co --exclude-standard '*.h' '*.cc' '*.cu' '*.cuh') && [[ -n $listed ]] || {
  echo "lint: git lists no sources here, so nothing would be checked" >&2
  exit 2
}
mapfile -t sources <<<"$listed"
if [[ $1 == --fix ]]; then
  clang-format -i "${sources[@]}"
  exit
fi
echo "clang-format: ${#sources[@]} files"
clang-format --dry-run --Werror "${sources[@]}"
[[ $1 == --format ]] && exit

build=$(cd "$1" && pwd)
shift
[[ -f $build/compile_commands.json ]] || { echo "lint: $build/compile_commands.json is missing: configure first" >&2; exit 2; }
clang_tidy=$cache/tools/bin/clang-tidy
[[ -x $clang_tidy ]] || { echo "lint: $clang_tidy is missing: run scripts/setup.sh --dev" >&2; exit 2; }
keys=$cache/tidy
mkdir -p "$keys"
find "$keys" -type f -mtime +30 -delete

# The build's compile commands without its precompiled headers, for each source by itself and, as reading headers is most
# of the work, for up to twelve sources together of a target that is compiled a few at a time.
commands=$(mktemp -d)
included=$commands/included
trap 'rm -rf "$commands"' EXIT
mkdir "$commands/tests"
cp .clang-tidy "$commands"
cp tests/.clang-tidy "$commands/tests"
python3 -c '
import collections, json, os, re, sys
build, out, *sources = sys.argv[1:]
sources = set(map(os.path.abspath, sources))
units, alike = {}, collections.defaultdict(list)
for unit in json.load(open(os.path.join(build, "compile_commands.json"))):
    target = re.search(r" -o (\S+)\.dir/", unit["command"])[1]
    command = re.sub(r" -(Winvalid-pch|fpch-preprocess)\b| -include \S*cmake_pch\.hxx| -o \S+", "", unit["command"])
    together = "/Unity/unity_" in unit["file"]
    for file in re.findall(r"^#include \"(.*)\"$", open(unit["file"]).read(), re.M) if together else [unit["file"]]:
        if file in sources and file not in units:
            units[file] = {**unit, "file": file, "command": command.replace(unit["file"], file)}
            alike[target if together else file, os.path.dirname(file), command.replace(unit["file"], "")].append(units[file])
for same in alike.values():
    for first in range(0, len(same), 12):
        part = same[first : first + 12]
        folder = "tests" if part[0]["file"].startswith(os.path.abspath("tests") + "/") else ""
        group = os.path.join(out, folder, "group_{}.cc".format(len(units)))
        with open(group, "w") as file:
            file.writelines("#include \"{file}\"\n".format(**unit) for unit in part)
        units[group] = {**part[0], "file": group, "command": part[0]["command"].replace(part[0]["file"], group)}
json.dump(list(units.values()), open(os.path.join(out, "compile_commands.json"), "w"))
' "$build" "$commands" $(printf '%s\n' "${sources[@]}" | grep '[.]cc$')

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

# tidy SOURCE...: together, or the only one by itself.
tidy() {
  local key log unit=$1 more=()
  key=$(for file; do
    headers=$(grep -m1 -E -- "^$file( |\$)" "$included")
    [[ $file != tests/* ]] || cat tests/.clang-tidy
    # shellcheck disable=SC2086
    { echo "$file"; cat "$file"; cat $headers 2>/dev/null; }
  done | { echo "$shared_key"; cat; } | sha256sum | cut -d' ' -f1)
  [[ -e $keys/$key ]] && return 0
  if (($# > 1)); then
    unit=$(grep -lxF "#include \"$PWD/$1\"" "$commands"/{,tests/}group_*.cc)
    more=(--checks=-bugprone-suspicious-include --header-filter='/(include/beamline|src|kernels|tests|bench)/.*[.](h|cc)$')
  fi
  log=$(mktemp)
  if "$clang_tidy" -p "$commands" --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-everything "${more[@]}" \
    "$unit" >"$log" 2>&1; then
    touch "$keys/$key"
    rm -f "$log"
  else
    cat "$log"
    rm -f "$log"
    return 1
  fi
}
export -f tidy
if (($# > 0)); then
  units=("$@")
else
  mapfile -t units < <(for group in "$commands"/{,tests/}group_*.cc; do sed "s|^#include \"$PWD/\(.*\)\"$|\1|" "$group" | xargs; done)
  # Reading everything by itself takes more than twice as long. A clone without history cannot tell what is new.
  if git rev-parse --quiet --verify HEAD^ >/dev/null; then
    mapfile -t -O ${#units[@]} units < <(comm -12 <(git log --max-count=10 --format= --name-only | sort -u) \
      <(printf '%s\n' "${units[@]}" | xargs -n1 | sort -u))
  fi
fi
echo "clang-tidy: ${#units[@]} translation units"
printf '%s\0' "${units[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'tidy {}'
