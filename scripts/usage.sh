# SPDX-License-Identifier: Apache-2.0
# Sourced first by the scripts here and in bench/: what --help says, and what an option that there is not gets.
self=$(realpath "$0")

# The script's header comment.
usage() { sed -n '3,/^[^#]/{s/^# \{0,1\}//p}' "$self"; }

# other_argument ARGUMENT: of an argument that a script does not know itself. Help is given, all else is refused by name.
other_argument() {
  if [[ $1 == -h || $1 == --help ]]; then
    usage
    exit 0
  fi
  echo "$(basename "$self" .sh): unknown argument '$1'; $self --help says which there are" >&2
  exit 2
}
