#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole path on generated data: events -> semantic IDs -> trained model -> bundle -> gRPC server -> ranked videos.
# Installs what it needs (Debian packages, CPU-only libtorch), builds only the binary, keeps every artefact so that the
# second run takes seconds.
#
#   scripts/demo.sh            run it
#   scripts/demo.sh --keep     and leave the server running
#   scripts/demo.sh --fresh    forget the artefacts of earlier runs first
#
# BEAMLINE_DEMO=DIR keeps the artefacts elsewhere (default: out/demo), BEAMLINE_DEMO_PORT picks the port (default 50051).
set -euo pipefail
. "$(dirname "$0")/usage.sh"
keep=no fresh=no
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    --fresh) fresh=yes ;;
    *) other_argument "$argument" ;;
  esac
done
port=${BEAMLINE_DEMO_PORT:-50051}
# Asked before the work: whoever listens there, an earlier --keep perhaps, would answer in place of our server.
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "demo: port $port is taken (a server that an earlier --keep left?). Stop it, or pick another: BEAMLINE_DEMO_PORT=50052" >&2
  exit 1
fi
caller=$PWD
cd "$(dirname "$0")/.."
bash scripts/setup.sh
. scripts/lib.sh
out=${BEAMLINE_DEMO:-$root/out/demo}
[[ $out == /* ]] || out=$caller/$out
users=3000 seed=1
if [[ $fresh == yes && -e $out ]]; then
  if [[ $out != "$root/out/demo" && ! -e $out/.beamline-demo ]]; then
    echo "demo: BEAMLINE_DEMO: $out was not made by the demo, so --fresh does not remove it; name another folder" >&2
    exit 2
  fi
  rm -rf "$out"
fi
mkdir -p "$out"
touch "$out/.beamline-demo"
# A path as the caller may type it.
path() { [[ $1 == "$caller"/* ]] && echo "${1#"$caller"/}" || echo "$1"; }
start=$SECONDS

say "Build (only what the demo runs)"
configure cpu-release "$build_root/demo" -DBEAMLINE_BUILD_TESTS=OFF
if [[ -t 1 ]]; then
  cmake --build "$build_root/demo" -j "$jobs" --target beamline  # one line that counts
else
  cmake --build "$build_root/demo" -j "$jobs" --target beamline | tail -n 3
fi
beamline=$build_root/demo/bin/beamline
echo "built in $((SECONDS - start)) s"

# step NAME OUTPUT COMMAND...: runs COMMAND unless an earlier run left OUTPUT; every verb writes its output atomically.
step() {
  local title=$1 output=$2
  shift 2
  say "$title"
  if [[ -e $output ]]; then
    echo "kept from an earlier run: $(path "$output")  (--fresh makes it anew)"
    return
  fi
  echo "\$ beamline $*"
  "$beamline" "$@"
}

step "1. A short-video log with KuaiRand's shape: $users users" "$out/data/events.tsv.gz" \
  generate-data log --users $users --seed $seed --out "$out/data"
step "2. Semantic IDs: collaborative embedding, residual k-means" "$out/tokenizer/sids.tsv" \
  tokenize --events "$out/data" --preset demo --seed $seed --out "$out/tokenizer"
step "3. Train the encoder-decoder" "$out/model/model.safetensors" \
  train --data "$out/data" --tokenizer "$out/tokenizer" --preset demo --seed $seed --out "$out/model"
step "4. Pack model, codebook and catalogue into a bundle" "$out/bundle/bundle.json" \
  pack --model "$out/model" --tokenizer "$out/tokenizer" --items "$out/data/items.tsv.gz" --out "$out/bundle"

say "5. Serve it"
"$beamline" serve --config configs/demo.textproto --bundle "$out/bundle" --port "$port" >"$out/server.log" 2>&1 &
server=$!
stop_server() {
  if kill -0 "$server" 2>/dev/null; then
    kill -TERM "$server"
    wait "$server" || true
  fi
}
trap stop_server EXIT
serving=no
for attempt in $(seq 100); do
  if ! kill -0 "$server" 2>/dev/null; then
    cat "$out/server.log" >&2
    exit 1
  fi
  "$beamline" recommend --target "127.0.0.1:$port" --status >"$out/status.txt" 2>/dev/null && serving=yes && break
  sleep 0.1
done
if [[ $serving == no ]]; then
  echo "the server does not answer on 127.0.0.1:$port; the end of $out/server.log:" >&2
  tail -n 20 "$out/server.log" >&2
  exit 1
fi
cat "$out/status.txt"

say "6. Ask it, over gRPC, for a few users"
for user in u4 u42 u1234; do
  "$beamline" recommend --target "127.0.0.1:$port" --user "$user" --data "$out/data" --top-k 5 --beam 64 \
    --exclude-history
done

evaluated=no
[[ -e $out/evaluation.json ]] && evaluated=yes
step "7. How good is it? The last event of every user, ranked among all videos" "$out/evaluation.json" \
  evaluate --model "$out/model" --data "$out/data" --tokenizer "$out/tokenizer" --out "$out/evaluation.json"
[[ $evaluated == yes ]] && "$beamline" evaluate --show "$out/evaluation.json"

say "Done in $((SECONDS - start)) s after the installation"
if [[ $keep == yes ]]; then
  trap - EXIT
  cat <<EOT
The server stays up on 127.0.0.1:$port (log: $(path "$out/server.log"); stop it with: kill $server). Call it:
  $(path "$beamline") recommend --target 127.0.0.1:$port --user u99 --data $(path "$out/data") --top-k 10
  grpcurl -plaintext -d '{"user_id": "u99", "history": [{"item_id": 5}, {"item_id": 17}], "top_k": 10}' 127.0.0.1:$port beamline.v1.RecommendService/Recommend
EOT
fi
