#!/usr/bin/env bash
# Sets this machine up and runs a verb here.
#
#     ./launch/local.sh train configs/quickstart.py     any verb of `python -m jaxlm`
#     ./launch/local.sh test                            the project's tests
#
# The first run makes a virtual environment in .venv and installs what the machine needs; later runs reuse it for as
# long as the requirements do not change. Environment variables:
#     JAXLM_PLATFORM   cpu, cuda or tpu, instead of what is detected
#     JAXLM_VENV       where the virtual environment lies (.venv)
#     PYTHON           the Python to make it with (3.11 or later)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  "" | -h | --help) usage; exit 0 ;;
esac

find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: Python 3.11 or later is needed${PYTHON:+, and $PYTHON is none}; name one with PYTHON=/path/to/python" >&2
  exit 2
}

detect_platform() {
  if compgen -G '/dev/accel*' >/dev/null || [ -n "${TPU_NAME:-}" ]; then
    echo tpu
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo cuda
  else
    echo cpu
  fi
}

platform=${JAXLM_PLATFORM:-$(detect_platform)}
extras=()
case "$platform" in
  cpu) ;;
  cuda | tpu) extras+=("$platform") ;;
  *) echo "error: JAXLM_PLATFORM is '$platform'; it must be cpu, cuda or tpu" >&2; exit 2 ;;
esac
[ "$1" = test ] && extras+=(dev)

venv=${JAXLM_VENV:-$root/.venv}
if [ ! -x "$venv/bin/python" ]; then
  python=$(find_python)
  echo "making a virtual environment in $venv with $("$python" --version)" >&2
  "$python" -m venv "$venv"
fi
# Each extra installed leaves a stamp with the hash of the requirements that it was installed for.
wanted=$(cat "$root/requirements.txt" "$root/pyproject.toml" | "$venv/bin/python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')
for part in base ${extras[@]+"${extras[@]}"}; do
  stamp="$venv/.installed-$part"
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    target=$root
    [ "$part" = base ] || target="$root[$part]"
    echo "installing jaxlm ($part) into $venv; the first time takes minutes" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$target"
    echo "$wanted" >"$stamp"
  fi
done

# Without huge pages glibc hands a step's memory back and gets it again in pieces of 4 KiB: a CPU step takes 14 % longer.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

if [ "$1" = test ]; then
  shift
  cd "$root"
  exec "$venv/bin/python" -m pytest -n "${JAXLM_TEST_WORKERS:-2}" "$@"
fi
exec "$venv/bin/python" -m jaxlm "$@"
