#!/usr/bin/env bash
# What tpu_vm.sh does on each host of a TPU slice; run there, by it.
#
#     tpu_host.sh setup [BUCKET]             Python by uv, the project's environment, the bucket mounted as /mnt/jaxlm;
#                                            without one that is a directory of the host
#     tpu_host.sh start NAME VERB ...        starts the run NAME as a systemd unit, which outlives the ssh session
#     tpu_host.sh state NAME                 prints "jaxlm-run HOST running", "... exit CODE" or "... absent"
#     tpu_host.sh stop NAME                  SIGTERM: the run saves itself
#     tpu_host.sh exec VERB ...              what the unit runs
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"
export PATH="$HOME/.local/bin:$PATH"
shared=/mnt/jaxlm # the bucket, at the same place on every machine
bucket_file=$HOME/.jaxlm_bucket
bucket_unit=jaxlm_bucket # no run's: names of runs have no _

mount_bucket() {
  if [ -s "$bucket_file" ] && mountpoint -q "$shared"; then return; fi
  sudo fusermount -uz "$shared" 2>/dev/null || true # what a gcsfuse that died has left
  sudo install -d -o "$(id -u)" -g "$(id -g)" "$shared"
  [ -s "$bucket_file" ] || return 0
  if ! command -v gcsfuse >/dev/null; then # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq gcsfuse
  fi
  # A unit of its own: it outlives this login, and at a shutdown it ends after the run (After= of start), which saves
  # itself into the bucket until then. A checkpoint is written beside its place and renamed: in a bucket without
  # hierarchical namespace gcsfuse renames directories only up to this many files, and by default none.
  fresh_unit "$bucket_unit" --property=After=network-online.target \
    "$(command -v gcsfuse)" --foreground --implicit-dirs --rename-dir-limit=100000 "$(cat "$bucket_file")" "$shared"
  for _ in $(seq 60); do
    ! mountpoint -q "$shared" || return 0
    sleep 1
  done
  fail "the bucket $(cat "$bucket_file") is not mounted on $(hostname) after a minute; journalctl -u $bucket_unit says why"
}

fresh_unit() { # NAME ARGUMENTS of systemd-run
  sudo systemctl stop "$1" 2>/dev/null || true # one that ended keeps its exit code, and its name, until now
  sudo systemctl reset-failed "$1" 2>/dev/null || true
  sudo systemd-run --quiet --unit="$1" --uid="$(id -u)" --gid="$(id -g)" --setenv=HOME="$HOME" "${@:2}"
}

case "${1:-}" in
  setup)
    if [ -n "${2:-}" ]; then echo "$2" >"$bucket_file"; else rm -f "$bucket_file"; fi
    command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
    uv python install --quiet 3.12 # the image's own is 3.10
    mount_bucket
    JAXLM_PLATFORM=tpu PYTHON=$(uv python find --no-project 3.12) "$root/launch/local.sh" setup
    # The TPU runtime starts and stops faster with huge pages (jax says so where they are off).
    echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null
    ;;
  start)
    unit=jaxlm-$2
    log=$HOME/$unit.log
    name=$2
    shift 2
    if [ "$(systemctl show "$unit" --property=SubState --value)" = running ]; then
      echo "$name is running on $(hostname)"
      exit 0
    fi
    mount_bucket # again after a reboot
    # mixed: SIGTERM goes to the main process alone, which saves and then ends its own workers.
    fresh_unit "$unit" --working-directory="$root" \
      --property=After="network-online.target $bucket_unit.service mnt-jaxlm.mount" \
      --property=RemainAfterExit=yes --property=KillMode=mixed --property=TimeoutStopSec=300 \
      --property=StandardOutput=append:"$log" --property=StandardError=append:"$log" \
      "$root/launch/tpu_host.sh" exec "$@"
    echo "$name started on $(hostname)"
    ;;
  state)
    unit=jaxlm-$2
    show() { systemctl show "$unit" --property="$1" --value; }
    case "$(show LoadState) $(show SubState)" in
      not-found*) state=absent ;;
      *" exited" | *" failed")
        code=$(show ExecMainStatus)
        [ "$(show ExecMainCode)" = 1 ] || code=$((128 + code)) # CLD_EXITED, or killed by that signal
        state="exit $code"
        ;;
      *) state=running ;;
    esac
    echo "jaxlm-run $(hostname) $state"
    ;;
  stop) sudo systemctl stop "jaxlm-$2" ;;
  exec)
    shift
    # shellcheck source=/dev/null
    [ ! -f "$HOME/.jaxlm_environment" ] || . "$HOME/.jaxlm_environment"
    [ ! -s "$bucket_file" ] || export JAXLM_SHARED=$shared
    export JAXLM_PLATFORM=tpu
    exec "$root/launch/local.sh" "$@"
    ;;
  "" | -h | --help) sed -nE '2,/^set /s/^#( |$)//p' "${BASH_SOURCE[0]}" ;;
  *) fail "$1 is none of setup, start, state, stop, exec" ;;
esac
