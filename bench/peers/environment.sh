#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# environment.sh main | optimum: makes that Python environment once, outside the source tree, from its requirements file,
# and prints how to start its interpreter. Torch is the wheel that scripts/setup.sh fetched, started as
# tests/golden/venv.sh says. With BEAMLINE_PEERS_NO_INSTALL set: exit status 77 where it is not there.
set -euo pipefail
. "$(dirname "$0")/../../scripts/usage.sh"
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../../scripts/lib.sh"
case ${1:-} in
  main) requirements=$here/requirements.txt ;;
  optimum) requirements=$here/requirements-optimum.txt ;;
  *) other_argument "${1:-}" ;;
esac
venv=$cache/peers-$1-$(sha256sum <"$requirements" | cut -c1-12)

if [[ ! -f $venv/complete ]]; then
  if [[ -n ${BEAMLINE_PEERS_NO_INSTALL:-} ]]; then
    echo "peers: skipped, the Python environment $venv is not there; bench/peers/run.sh makes it (some 300 MB)" >&2
    exit 77
  fi
  echo "peers: installing $(basename "$requirements") into $venv" >&2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$requirements" >&2
  dirname "${BEAMLINE_TORCH_ROOT:?run scripts/setup.sh first}" >"$venv/lib/python3.11/site-packages/beamline_torch.pth"
  touch "$venv/complete"
fi
golden=$(bash "$here/../../tests/golden/venv.sh")
echo "${golden% *} $venv/bin/python"
