#!/usr/bin/env bash
# cmake/precompile.sh over a compiler that writes headers it can or cannot read: precompile_launcher_test.sh LAUNCHER
set -euo pipefail
launcher=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The compiler: takes the next word of `plan` as what it writes (a file, or nothing and status 7), reads only "good".
cat >compiler <<'EOF'
#!/usr/bin/env bash
if [[ " $* " == *" -fsyntax-only "* ]]; then
  [[ " $* " == *" -include h "* && " $* " != *" -o "* && " $* " != *" -x c++-header "* ]] || exit 9
  exec grep -q good h.gch
fi
[[ ! -e h.gch ]] || exit 8
echo "${CCACHE_RECACHE:-0}" >>recached
read -r first rest <plan || exit 6
echo "$rest" >plan
[[ $first != fails ]] || exit 7
echo "$first" >h.gch
EOF
chmod +x compiler

check() {  # check PLAN STATUS CONTENT RECACHED MESSAGE: an output was there before
  echo "$1" >plan
  echo old >h.gch
  rm -f recached
  local status=0 said
  said=$(bash "$launcher" ./compiler -O2 -x c++-header -include h -MD -MT h.gch -MF h.d -o h.gch -c h.cxx 2>&1) || status=$?
  local got="$status $(cat h.gch 2>/dev/null || echo none) $(paste -sd, recached)"
  [[ $got == "$2 $3 $4" && $said == *"$5"* ]] || { echo "after '$1': '$got', expected '$2 $3 $4', said: $said"; exit 1; }
}
check "good" 0 good 0 ""
check "bad good" 0 good 0,1 "once more"
check "bad bad" 1 none 0,1 "-DBEAMLINE_PRECOMPILE=OFF"
check "fails" 7 none 0 ""
check "bad fails" 7 none 0,1 "once more"
