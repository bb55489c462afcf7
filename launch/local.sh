#!/usr/bin/env bash
# Sets this machine up and runs a verb here.
#
#     ./launch/local.sh train configs/quickstart.py     any verb of `python -m jaxlm`
#     ./launch/local.sh test                            the project's tests
#     ./launch/local.sh setup                           sets up, and that is all
#     ./launch/local.sh --dry-run train ...             prints the commands instead
#
# The first run makes a virtual environment in .venv and installs what the machine needs; later runs reuse it for as
# long as the requirements do not change. Environment variables:
#     JAXLM_PLATFORM   cpu, cuda or tpu, instead of what is detected
#     JAXLM_VENV       where the virtual environment lies (.venv)
#     PYTHON           the Python to make it with (3.11 or later); unset: found, also among those of uv
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

usage() { sed -nE '2,/^set /s/^#( |$)//p' "${BASH_SOURCE[0]}"; }
dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
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
  # TPU VM images come with Python 3.10; uv brings others.
  if [ -z "${PYTHON:-}" ] && command -v uv >/dev/null && uv python find --no-project '>=3.11' 2>/dev/null; then
    return
  fi
  fail "Python 3.11 or later is needed${PYTHON:+, and $PYTHON is none}; name one with PYTHON=/path/to/python"
}

# v5e and later show up under /dev/vfio, as other devices do; their numbers on the PCI bus tell them apart, v4 to v7x
# (jax/_src/hardware_utils.py).
has_tpu() {
  local device vendor kind
  compgen -G '/dev/accel[0-9]*' >/dev/null && return
  for device in /sys/bus/pci/devices/*; do
    { read -r vendor <"$device/vendor" && read -r kind <"$device/device"; } 2>/dev/null || continue
    case "$vendor $kind" in
      "0x1ae0 0x005e" | "0x1ae0 0x0062" | "0x1ae0 0x0063" | "0x1ae0 0x006f" | "0x1ae0 0x0076") return ;;
    esac
  done
  return 1
}

detect_platform() {
  if [ -n "${TPU_NAME:-}" ] || has_tpu; then
    echo tpu
  elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
    echo cuda
  else
    echo cpu
  fi
}

# Prints a command in a dry run, and does it otherwise.
step() {
  if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi
}

platform=${JAXLM_PLATFORM:-$(detect_platform)}
extras=()
case "$platform" in
  cpu) ;;
  cuda | tpu) extras+=("$platform") ;;
  *) fail "JAXLM_PLATFORM is '$platform'; it must be cpu, cuda or tpu" ;;
esac
[ "$1" = test ] && extras+=(dev)

venv=${JAXLM_VENV:-$root/.venv}
requirements_hash() {
  cat "$root/requirements.txt" "$root/pyproject.toml" | "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# Makes the environment and installs into it what its stamps do not say is there for these very requirements.
set_up() {
  local python part target stamp wanted
  python=$venv/bin/python
  # Without its package python3-venv, a Debian leaves an environment without pip behind.
  if [ ! -x "$python" ] || { [ ! -e "$venv/.installed-base" ] && ! "$python" -m pip --version >/dev/null 2>&1; }; then
    python=$(find_python)
    [ -n "$dry_run" ] || echo "making a virtual environment in $venv with $("$python" --version)" >&2
    step "$python" -m venv "$venv"
    [ -n "$dry_run" ] || python=$venv/bin/python
  fi
  wanted=$(requirements_hash "$python")
  for part in base ${extras[@]+"${extras[@]}"}; do
    stamp="$venv/.installed-$part"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
      target=$root
      [ "$part" = base ] || target="${root}[$part]"
      [ -n "$dry_run" ] || echo "installing jaxlm ($part) into $venv; the first time takes minutes" >&2
      # A pip before 23.1, such as Debian 12's, would else run seqeval's setup.py beside whatever setuptools is there.
      step env PIP_USE_PEP517=1 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$target"
      [ -n "$dry_run" ] || echo "$wanted" >"$stamp"
    fi
  done
}
set_up
[ "$1" != setup ] || exit 0

set_environment "$platform"
if [ -n "$dry_run" ]; then
  for name in $settings; do
    [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
  done
fi
# A signal must reach Python, so Python takes this shell's place.
run=(exec)
[ -z "$dry_run" ] || run=(quoted)
if [ "$1" = test ]; then
  shift
  step cd "$root"
  "${run[@]}" "$venv/bin/python" -m pytest -n "${JAXLM_TEST_WORKERS:-2}" "$@"
else
  "${run[@]}" "$venv/bin/python" -m jaxlm "$@"
fi
