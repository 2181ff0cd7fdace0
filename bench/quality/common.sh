# SPDX-License-Identifier: Apache-2.0
# Sourced first by the scripts of this folder, whose arguments are INPUT OUT ...: help, the binary, and steps that an
# earlier call's output spares where it was made of the same input by the same options.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/usage.sh"
for argument in "$@"; do
  [[ $argument != -h && $argument != --help ]] || other_argument "$argument"
done
[[ ${1:-} != -* ]] || other_argument "$1"
(($# >= 2)) || { usage >&2; exit 2; }
input=$1 out=$2
shift 2
script=$(basename "$self" .sh)
[[ -e $input ]] || { echo "$script: $input is not there" >&2; exit 2; }

beamline=${BEAMLINE:-beamline}
command -v "$beamline" >/dev/null || {
  echo "$script: no program '$beamline'; name it: BEAMLINE=build/cpu-release/bin/beamline (README.md says how to build it)" >&2
  exit 2
}
mkdir -p "$out"

run() {
  echo "\$ beamline $*"
  "$beamline" "$@"
}

# bytes PATH: a digest of the file, or of the folder's files.
bytes() { find -L "$1" -maxdepth 1 -type f | sort | xargs -rd '\n' cat | sha256sum | cut -c1-16; }

# described ARGUMENT...: a command as it is kept, an option a line. Files and folders that were given count by their bytes,
# what earlier steps made by what made it; the place of OUT, threads and minutes do not count.
described() {
  local words=() before= made_by
  while (($#)); do
    if [[ $1 == "$input" ]]; then
      words+=("$(basename "$1") $(bytes "$1")")
    elif [[ $1 == --threads || $1 == --max-minutes ]]; then
      shift
    elif [[ $1 == "$out"/* ]]; then
      words+=("OUT${1#"$out"}")
      if [[ $before != --out && -e $1 ]]; then
        made_by=$({ find "$1" "$1.made-by" -maxdepth 1 -name '*.made-by' 2>/dev/null || true; } | sort)
        words+=("$(if [[ -n $made_by ]]; then xargs -d '\n' cat <<<"$made_by" | sha256sum | cut -c1-16; else bytes "$1"; fi)")
      fi
    elif [[ $before == --@(from|from-index|config|data|tokenizer|vectors|items|model) && -e $1 ]]; then
      words+=("$(basename "$1") $(bytes "$1")")
    elif [[ $1 != --threads=* && $1 != --max-minutes=* ]]; then
      words+=("$1")
    fi
    before=${1:-}
    shift
  done
  echo "${words[*]}" | sed 's/ --/\n--/g'
}

# made OUTPUT ARGUMENT...: whether an earlier call made OUTPUT by this command. One that another made ends the script.
made() {
  local output=$1 now
  shift
  [[ -e $output ]] || return
  now=$(described "$@")
  [[ -e $output.made-by ]] || {
    echo "$script: $output is there, but not what made it; name another OUT, or remove this one" >&2
    exit 2
  }
  [[ $now != "$(<"$output.made-by")" ]] || return 0
  {
    echo "$script: $output was made otherwise (<) than this call would (>):"
    diff "$output.made-by" - <<<"$now" | grep '^[<>]' || true
    echo "Name another OUT, or remove this one."
  } >&2
  exit 2
}

# step OUTPUT ARGUMENT...: runs the verb unless an earlier call made OUTPUT.
step() {
  local output=$1
  shift
  made "$output" "$@" && return
  run "$@" || return
  described "$@" >"$output.made-by"
}
