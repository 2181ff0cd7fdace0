#!/usr/bin/env bash
# cmake/WriteCommit.cmake over a repository, a tree without one, and one inside another's; and that versions and commits
# which are written by hand elsewhere are the build's: write_commit_test.sh CMAKE SOURCE_DIR VERSION
set -euo pipefail
cmake=$1 source=$2 version=$3
work=$(realpath "$(mktemp -d)")
trap 'rm -rf "$work"' EXIT
unset BEAMLINE_COMMIT GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1  # no signatures and hooks of whoever runs this
fail() { echo "$*"; exit 1; }
write() { "$cmake" -DSOURCE="$1" -DOUT="$work/out.cc" "${@:2}" -P "$source/cmake/WriteCommit.cmake"; }
# said TEXT TREE [OPTIONS]
said() {
  local text=$1
  write "${@:2}"
  grep -qF "kProgramCommit[] = \"$text\";" "$work/out.cc" || fail "expected $text of $2, got: $(cat "$work/out.cc")"
}

tree=$work/tree
mkdir "$tree"
cd "$tree"
git init -q
git config user.name test
git config user.email test@example.com
echo 1 >file
git add file
git commit -q -m one
commit=$(git rev-parse HEAD)
said "${commit:0:12}" "$tree"
said "${commit:0:12}" "$tree" -DGIVEN=given  # git knows better
git tag -a -m tag v9
said "${commit:0:12}" "$tree"
touch -d 2020-01-01 "$work/out.cc"
write "$tree"
[[ $(stat -c %Y "$work/out.cc") == "$(date -d 2020-01-01 +%s)" ]] || fail "the same text was written again"
echo 2 >file
said "${commit:0:12}-dirty" "$tree"

mkdir "$tree/tarball" "$work/alone"
for place in "$tree/tarball" "$work/alone"; do
  said unknown "$place"
  GIT_DIR=$tree/.git said unknown "$place"
  said given-1.2 "$place" -DGIVEN=given-1.2
  BEAMLINE_COMMIT=environment said environment "$place"
  BEAMLINE_COMMIT=environment said given "$place" -DGIVEN=given
  said "${commit:0:12}" "$place" "-DGIVEN=$commit"  # as where git is asked
done
for bad in 'a"b' 'a b' "$(printf 'x%.0s' {1..65})"; do
  error=$(write "$work/alone" "-DGIVEN=$bad" 2>&1) && fail "'$bad' was taken"
  grep -q "BEAMLINE_COMMIT: must be 1..64" <<<"$error" || fail "'$bad': $error"
done

# The image: its label, and what its build is told, since it gets no .git.
grep -qx "ARG VERSION=$version" "$source/docker/Dockerfile" || fail "docker/Dockerfile: ARG VERSION is not CMakeLists.txt's $version"
builds=$(grep -c 'bash docker/install.sh' "$source/docker/Dockerfile")
told=$(grep -c 'BEAMLINE_COMMIT="\?[$]{\?REVISION}\?"\? .*bash docker/install.sh' "$source/docker/Dockerfile") || true
[[ $builds == 2 && $told == 2 ]] || fail "docker/Dockerfile: $told of $builds builds are told REVISION as BEAMLINE_COMMIT"
awk '/^FROM/ { known = 0 } /^ARG REVISION/ { known = 1 } /BEAMLINE_COMMIT=/ && !known { exit 1 }' "$source/docker/Dockerfile" ||
  fail "docker/Dockerfile: a stage uses REVISION and does not declare it"
