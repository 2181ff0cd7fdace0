#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes, once, the Python environment that writes the goldens of family t5, outside the source tree, and prints how to
# start its interpreter: $(tests/golden/venv.sh) script.py. Needs what scripts/setup.sh installs.
#
# torch is the wheel that scripts/setup.sh fetched for its C++ libraries, without the 3 GB of CUDA libraries that it names
# but does not need on a CPU: empty stand-ins satisfy the loader, and symbols are bound when first called, which is never.
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib.sh"
requirements=(transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6 sympy==1.14.0 networkx==3.6.1
  filelock==4.3.1 jinja2==3.1.6 fsspec==2026.9.0 typing_extensions==4.16.0)
key=$(sha256sum <"${BASH_SOURCE[0]}" | cut -c1-12)
venv=$cache/golden-$key
site=$venv/lib/python3.11/site-packages
torch=${BEAMLINE_TORCH_ROOT:?run scripts/setup.sh first}

if [[ ! -f $venv/complete ]]; then
  echo "golden: installing transformers into $venv" >&2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]}" >&2
  dirname "$torch" >"$site/beamline_torch.pth"
  mkdir "$venv/stubs"
  system=$(/sbin/ldconfig -p)
  have() { compgen -G "$torch/lib/$1" || compgen -G "$torch/../nvidia/*/lib/$1" || grep "[[:space:]]$1 " <<<"$system"; }
  for library in "$torch"/lib/lib{torch,c10}*.so; do
    readelf -d "$library" | sed -n 's/.*NEEDED.*\[\(lib[^]]*\)\].*/\1/p'
  done | sort -u | while read -r needed; do
    have "$needed" >/dev/null || gcc -shared -x c -o "$venv/stubs/$needed" -Wl,-soname,"$needed" - </dev/null
  done
  touch "$venv/complete"
fi
echo "env TORCH_USE_RTLD_GLOBAL=1 LD_LIBRARY_PATH=$venv/stubs PYTHONDONTWRITEBYTECODE=1 $venv/bin/python"
