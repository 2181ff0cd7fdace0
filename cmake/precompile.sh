#!/usr/bin/env bash
# The compiler launcher of precompiled headers: precompile.sh [ccache] COMPILER ARGUMENTS
#
# g++ 12 once in a while writes precompiled headers that it cannot read: a source that includes them takes memory without
# end. A compiler cache would hand such a file to every build from then on. So what was written, or came from the cache,
# is read once, with little memory; where that fails it is compiled again, past the cache and into it.
set -euo pipefail

# The same command over an empty source, without the cache and without what names outputs.
reader=() output=
for ((i = 1; i <= $#; ++i)); do
  next=$((i + 1))
  case ${!i} in
    *ccache) ((i == 1)) || reader+=("${!i}") ;;
    -MD) ;;
    -o) output=${!next} i=$next ;;
    -x | -MT | -MF | -c) i=$next ;;
    *) reader+=("${!i}") ;;
  esac
done
: "${output:?precompile.sh: no -o in the command}"

# An older output would become part of the cache's key.
compile() { rm -f "$output" && "$@"; }
can_read() { (ulimit -v 4000000 -t 120 && exec "${reader[@]}" -fsyntax-only -x c++ /dev/null) 2>&1; }

compile "$@" || exit
can_read >/dev/null && exit
echo "precompile.sh: the compiler cannot read what it precompiled; once more" >&2
CCACHE_RECACHE=1 compile "$@" || exit
said=$(can_read) && exit
rm -f "$output"
printf '%s\nprecompile.sh: the compiler cannot read what it precompiled; -DBEAMLINE_PRECOMPILE=OFF builds without\n' "$said" >&2
exit 1
