#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds docker/Dockerfile where there is no Docker, and tries the image: buildah on a base made by debootstrap, then
# the image's root and entrypoint, read-only, as uid 65532 without capabilities, in network and process namespaces of its
# own.
#
#   docker/build-without-engine.sh              build target cpu from HEAD, and try it
#   docker/build-without-engine.sh --target cuda
#   docker/build-without-engine.sh --try-only   try what was built before
#
# Needs root and Debian 12; installs buildah and debootstrap. The base gets this machine's package sources. Compiling
# from nothing takes about ten minutes of two cores; the compiler cache of scripts/ is shared. BEAMLINE_IMAGES (default
# /var/tmp/beamline-images) holds base, image and containers.
set -euo pipefail
. "$(dirname "$0")/../scripts/usage.sh"
cd "$(dirname "$0")/.."

# In the namespaces: $1 is the image's root, what follows its entrypoint.
try_image() {
  local root=$1 container first server
  local entrypoint=("${@:2}")
  local failed=0
  expect() {  # expect TEXT COMMAND...: the command succeeds
    local text=$1
    shift
    if "$@"; then echo "ok: $text"; else echo "FAILED: $text"; failed=1; fi
  }
  refuse() { ! "$@" 2>/dev/null; }
  quietly() { "$@" >/dev/null; }
  # As the image says it runs, and as docker/k8s has it.
  local as_user=(env -i PATH=/usr/local/bin:/usr/bin:/bin /usr/sbin/chroot "$root" setpriv --reuid=65532 --regid=65532
    --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all)
  inside() { "${as_user[@]}" "$@"; }
  says_its_commit() { inside beamline --version | grep -E '^beamline [0-9.]+ \([0-9a-f]{12}\)$'; }
  # As a container's first process, which $first is then. Whom nothing handles SIGTERM for, the kernel keeps it from.
  start() {
    unshare --pid --fork --kill-child "${as_user[@]}" "${entrypoint[@]}" serve --config /etc/beamline/server.textproto &
    container=$!
    for ((i = 0; i < 100; ++i)); do
      read -r first <"/proc/$container/task/$container/children" || true
      [[ -n $first && $(cat "/proc/$first/comm") == "$(basename "${entrypoint[0]}")" ]] && return
      sleep 0.01
    done
  }
  status_of() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$server/status"; }
  # Addresses that something listens on at the port, in the kernel's hexadecimal.
  listens_on() {
    awk -v port="$(printf ':%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 4) == port {
      print substr($2, 1, length($2) - 5) }' /proc/net/tcp /proc/net/tcp6
  }

  ip link set lo up
  mount --bind "$root" "$root"
  mount --rbind /dev "$root/dev"
  mount -t proc proc "$root/proc"
  mount -t proc proc /proc
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -o remount,bind,ro "$root"

  for tool in gcc g++ cc ld python3 pip cmake git; do
    expect "no $tool in the image" refuse inside sh -c "command -v $tool"
  done
  expect "the root cannot be written" refuse inside touch /probe
  expect "beamline --version names a commit" says_its_commit
  expect "the licences of what it holds" quietly inside ls /opt/beamline/licenses/beamline.txt /opt/beamline/licenses/libcli11-dev.txt

  echo "-- a small model by the image's own verbs"
  inside beamline generate-data log --users 300 --seed 1 --out /tmp/data
  inside beamline tokenize --events /tmp/data --preset demo --seed 1 --out /tmp/tokenizer
  inside beamline train --data /tmp/data --tokenizer /tmp/tokenizer --preset demo --epochs 1 --seed 1 --out /tmp/model
  inside mkdir /tmp/models
  inside beamline pack --model /tmp/model --tokenizer /tmp/tokenizer --items /tmp/data/items.tsv.gz --out /tmp/models/1
  mount --bind "$root/tmp/models" "$root/srv/beamline/models"
  mount -o remount,bind,ro "$root/srv/beamline/models"
  umount "$root/tmp"

  echo "-- serve, with the image's configuration and nothing that can be written"
  expect "healthcheck says no while nothing runs" refuse inside /opt/beamline/bin/healthcheck
  start
  for ((i = 0; i < 300; ++i)); do
    inside /opt/beamline/bin/healthcheck 2>/dev/null && break
    sleep 0.1
  done
  expect "healthcheck says yes" inside /opt/beamline/bin/healthcheck
  read -r server <"/proc/$first/task/$first/children" || true
  expect "uid 65532" test "$(status_of Uid)" = 65532
  expect "no capability, effective or to be gained" test "$(status_of CapEff)$(status_of CapBnd)" = 00000000000000000000000000000000
  expect "no new privileges" test "$(status_of NoNewPrivs)" = 1
  expect "no core dumps" grep -qE '^Max core file size +0 +0 ' "/proc/$server/limits"
  expect "gRPC for everybody who reaches the container" test "$(listens_on 50051)" = 00000000
  expect "reloads from inside alone" test "$(listens_on 50052)" = 0100007F
  expect "admin pages for probes and scrapes" test "$(listens_on 50053)" = 00000000
  inside beamline recommend --items 5,17 --top-k 3
  expect "recommendations" quietly inside beamline recommend --items 5,17 --top-k 3 --json
  kill -TERM "$first"
  sleep 1
  expect "healthcheck says no while it drains" refuse inside /opt/beamline/bin/healthcheck
  local code=0
  wait "$container" || code=$?
  expect "SIGTERM ends it with 0" test "$code" = 0

  echo "-- stopped while its libraries are loaded"
  for delay in 0.02 0.05 0.1; do  # tini handles signals a moment after it has begun
    start
    sleep $delay
    kill -TERM "$first"
    expect "SIGTERM after $delay s ends it at once" timeout 5 tail -s 0.1 --pid="$container" -f /dev/null
    kill -KILL "$container" 2>/dev/null || true
    wait "$container" 2>/dev/null || true
  done
  return $failed
}

if [[ ${1:-} == --inside ]]; then
  try_image "${@:2}"
  exit
fi

target=cpu build=yes
while (($#)); do
  case $1 in
    --target) target=$2; shift 2 ;;
    --try-only) build=no; shift ;;
    *) other_argument "$1" ;;
  esac
done
[[ $(id -u) == 0 ]] || { echo "build-without-engine: needs root" >&2; exit 2; }
. scripts/lib.sh
images=${BEAMLINE_IMAGES:-/var/tmp/beamline-images}
base=localhost/beamline-base image=localhost/beamline:$target
mkdir -p "$images" "$CCACHE_DIR"
missing=()
for package in buildah debootstrap; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# Layers by overlayfs where the kernel mounts one there (not upon another overlay), else a copy of all files per stage.
storage_driver() {
  local trial driver=vfs
  trial=$(mktemp -d -p "$images")
  mkdir "$trial"/{lower,upper,work,merged}
  if mount -t overlay -o "lowerdir=$trial/lower,upperdir=$trial/upper,workdir=$trial/work" overlay "$trial/merged" 2>/dev/null; then
    umount "$trial/merged"
    driver=overlay
  fi
  rm -rf --one-file-system "$trial"
  echo $driver
}
driver=$(storage_driver)
b() { buildah --storage-driver "$driver" --root "$images/$driver" --runroot "$images/run" "$@"; }

make_base() {
  local dir=$images/base container uri
  uri=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk '/^(URIs:|deb )/ { for (i = 2; i <= NF; ++i) if ($i ~ /:\/\//) { print $i; exit } }' || true)
  say "Base: debootstrap"
  rm -rf --one-file-system "$dir"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$dir" "$uri" >"$dir.log" 2>&1 || { tail "$dir.log" >&2; exit 1; }
  if cp /etc/apt/sources.list.d/debian.sources "$dir/etc/apt/sources.list.d/" 2>/dev/null; then rm -f "$dir/etc/apt/sources.list"; fi
  grep -l '^Acquire' /etc/apt/apt.conf.d/* 2>/dev/null | xargs -r cp -t "$dir/etc/apt/apt.conf.d/"
  tar -C /etc/ssl/certs -chf - . | tar -C "$dir/etc/ssl/certs" --unlink-first -xf -
  [[ -f /etc/pip.conf ]] && cp /etc/pip.conf "$dir/etc/pip.conf"
  container=$(b from scratch)
  b add --quiet "$container" "$dir" / >/dev/null
  b commit --quiet "$container" $base >/dev/null
  b rm "$container" >/dev/null
  rm -rf --one-file-system "$dir"
}

if [[ $build == yes ]]; then
  b images --quiet $base >/dev/null 2>&1 || make_base
  context=$(mktemp -d)
  trap 'rm -rf "$context"' EXIT
  git archive HEAD | tar -x -C "$context"
  say "Build: docker/Dockerfile, target $target"
  start=$SECONDS
  b build --isolation chroot --format docker --layers=false --file "$context/docker/Dockerfile" --target "$target" \
    --ignorefile "$context/.dockerignore" --build-arg "BASE=$base" --build-arg "REVISION=$(git rev-parse HEAD)" \
    --build-arg CCACHE_DIR=/ccache --build-arg "JOBS=$jobs" --volume "$CCACHE_DIR:/ccache" --tag "$image" "$context"
  echo "built in $((SECONDS - start)) s"
fi
say "Image"
config() { b inspect --type image "$image" | python3 -c "import json, sys; c = json.load(sys.stdin)['Docker']['config']; $1"; }
config 'print(*(f"{k}: {c[k]}" for k in ("User", "Entrypoint", "Cmd", "ExposedPorts", "Healthcheck", "Labels")), sep="\n")'
mapfile -t entrypoint < <(config 'print(*c["Entrypoint"], sep="\n")')
container=$(b from "$image")
trap 'b umount "$container" >/dev/null; b rm "$container" >/dev/null; rm -rf "${context:-/nonexistent}"' EXIT
root=$(b mount "$container")
echo "size: $(du -sh --one-file-system "$root" | cut -f1), of it /opt/beamline: $(du -sh "$root/opt/beamline" | cut -f1)"
echo "packages for it: $(tr '\n' ' ' <"$root/opt/beamline/packages.txt")"
say "Try it"
unshare --mount --net --pid --fork --kill-child bash docker/build-without-engine.sh --inside "$root" "${entrypoint[@]}"
