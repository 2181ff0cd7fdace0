# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts of this folder: builds the binary, makes a bundle, runs a server on core 0 and leaves core 1 to
# the load (overload.sh gives the server a second one). REQUIRES: scripts/lib.sh was sourced.

server_core=0 load_core=$(($(nproc) > 1 ? 1 : 0))
work=$(mktemp -d)
server=
stop_server() {
  if [[ -n $server ]]; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  server=
}
trap 'stop_server; rm -rf "$work"' EXIT

build_beamline() {
  if [[ -n ${BEAMLINE_BINARY:-} ]]; then
    beamline=$BEAMLINE_BINARY  # one that was built already
    return
  fi
  configure cpu-release "$build_root/cpu-release"
  cmake --build "$build_root/cpu-release" -j "$jobs" --target beamline >&2
  beamline=$build_root/cpu-release/bin/beamline
}

# small_bundle SEED [PRESET]: prints the folder of a small trained model's bundle, made once and kept in the build folder.
small_bundle() {
  local made=$build_root/server-bench preset=${2:-demo}
  local model=$made/model-$preset-$1 bundle=$made/bundle-$preset-$1
  if [[ ! -e $bundle/bundle.json ]]; then
    echo "making a small model in $made" >&2
    mkdir -p "$made"
    rm -rf "$model" "$bundle"
    {
      [[ -e $made/data ]] || "$beamline" generate-data log --users 500 --seed 1 --out "$made/data"
      [[ -e $made/tokenizer ]] || "$beamline" tokenize --events "$made/data" --preset demo --seed 1 --out "$made/tokenizer"
      "$beamline" train --data "$made/data" --tokenizer "$made/tokenizer" --preset "$preset" --epochs 1 \
        --validation-users 0 --seed "$1" --out "$model"
      "$beamline" pack --model "$model" --tokenizer "$made/tokenizer" --items "$made/data/items.tsv.gz" \
        --out "$bundle"
    } >"$bundle.log" 2>&1 || { tail -n 20 "$bundle.log" >&2; return 1; }
  fi
  echo "$bundle"
}

# start_server BUNDLE [ENGINE-SETTINGS [OTHER-SECTIONS]]: on free ports, $port and, with with_admin=yes, $admin_port and
# $http_port.
start_server() {
  stop_server
  read -r port admin_port http_port < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(3)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
  cat >"$work/server.textproto" <<CONFIG
listen { port: $port }
$([[ ${with_admin:-no} != yes ]] || echo "admin { port: $admin_port http_port: $http_port }")
engine { backend: "cpu" threads: 1 workers: 1 context_cache_bytes: 0 ${2:-} }
${3:-}
CONFIG
  taskset -c $server_core "$beamline" serve --config "$work/server.textproto" --bundle "$1" >"$work/server.log" 2>&1 &
  server=$!
  for _ in $(seq 600); do
    "$beamline" recommend --target "127.0.0.1:$port" --status >/dev/null 2>&1 && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  cat "$work/server.log" >&2
  exit 1
}

# load ARGUMENTS...: beamline bench against the server.
load() { taskset -c "$load_core" "$beamline" bench --server "127.0.0.1:$port" --server-pid "$server" "$@"; }

machine_line() {
  echo "load average $(cut -d' ' -f1 /proc/loadavg); the server on cores $server_core, the load on $load_core" >&2
}
