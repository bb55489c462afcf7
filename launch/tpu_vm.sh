#!/usr/bin/env bash
# Runs jaxlm on Cloud TPU VMs (v2 to v6e, one slice or several), over gcloud's queued resources.
#
#     ./launch/tpu_vm.sh create NAME --accelerator v5litepod-16 --spot      asks for the machines
#     ./launch/tpu_vm.sh setup NAME --bucket B                              once ACTIVE: project, Python, gs://B mounted
#     ./launch/tpu_vm.sh run NAME train configs/sst2.py ...                 starts it on all hosts, and returns
#     ./launch/tpu_vm.sh status NAME                                        the machines' state, and the run's on each host
#     ./launch/tpu_vm.sh logs NAME                                          follows the first host's log
#     ./launch/tpu_vm.sh delete NAME                                        gives all of it back
#     ./launch/tpu_vm.sh babysit NAME --accelerator v5litepod-16 --spot --bucket B train configs/sst2.py ...
#         does all of that, asks for new machines after a preemption, goes on, and gives them back at the end
#
#     --zone Z --project P    unless gcloud has a default (gcloud config set compute/zone Z)
#     --accelerator TYPE      v4-32, v5litepod-16, v5p-128, v6e-256, ...
#     --runtime VERSION       the VM image; unset: the one for that type
#     --spot | --reserved     cheap, and taken away at need | from your reservation; neither: on demand
#     --slices N              so many slices of that type, as one run
#     --create-flag FLAG      handed on to `queued-resources create`, such as --network=N; may be repeated
#     --connect-flag FLAG     handed on to `queued-resources ssh` and `scp`, such as --tunnel-through-iap, --internal-ip;
#                             may be repeated
#     --bucket B              mounted on every host as /mnt/jaxlm; runs go to /mnt/jaxlm/runs/NAME unless --workdir is
#                             given, so that NAME resumes on new machines
#     --poll S                seconds between two looks of babysit (60)
#     --failures N            how often babysit starts a run again that failed, other than by preemption (3); hosts that
#                             15 looks in a row did not reach count as a failure
#     --keep                  babysit leaves the machines there at the end
#     --dry-run               prints the commands instead
#
# All flags come before the verb of jaxlm. NAME is yours to choose; machines that `create` did not make are not deleted.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

usage() { sed -nE '2,/^set /s/^#( |$)//p' "${BASH_SOURCE[0]}"; }
case "${1:-}" in
  "" | -h | --help) usage; exit 0 ;;
  create | setup | run | status | logs | delete | babysit) verb=$1 ;;
  *) fail "$1 is none of create, setup, run, status, logs, delete, babysit" ;;
esac
name=${2:-}
case "$name" in
  -h | --help) usage; exit 0 ;;
esac
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || fail "NAME is '$name'; it must be letters a-z, digits and -, as in sst2-spot"
shift 2
accelerator='' runtime='' tier='' slices=1 bucket='' poll=60 failures=3 keep='' dry_run='' where=() create_flags=() connect_flags=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --dry-run) dry_run=1 ;;
    --keep) keep=1 ;;
    --spot | --reserved)
      [ -z "$tier" ] || [ "$tier" = "$1" ] || fail "--spot and --reserved exclude each other"
      tier=$1
      ;;
    --zone | --project | --accelerator | --runtime | --slices | --create-flag | --connect-flag | --bucket | --poll | --failures)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case "$1" in
        --zone | --project) where+=("$1=$2") ;;
        --accelerator) accelerator=$2 ;;
        --runtime) runtime=$2 ;;
        --slices) slices=$2 ;;
        --create-flag) create_flags+=("$2") ;;
        --connect-flag) connect_flags+=("$2") ;;
        --bucket)
          bucket=${2#gs://} bucket=${bucket%/}
          [[ $bucket =~ ^[a-z0-9][-_.a-z0-9]+$ ]] || fail "--bucket is '$2'; it must be a bucket's name, without a folder"
          ;;
        --poll) poll=$2 ;;
        --failures) failures=$2 ;;
      esac
      shift
      ;;
    --) shift; break ;;
    -*) fail "$1 is none of this script's flags; ./launch/tpu_vm.sh --help lists them" ;;
    *) break ;;
  esac
  shift
done
for number in "$slices" "$poll" "$failures"; do
  [[ $number =~ ^[0-9]+$ ]] || fail "'$number' is not a number; --slices, --poll and --failures are"
done
[ "$slices" -gt 0 ] || fail "--slices is 0; it must be at least 1"

# ---- what each verb needs, checked before anything is paid for
case "$verb" in
  create | babysit)
    [ -n "$accelerator" ] || fail "which TPU? --accelerator v5litepod-16, for example"
    if [ -z "$runtime" ]; then # https://cloud.google.com/tpu/docs/runtimes
      case "$accelerator" in
        v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
        v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
        v5p-*) runtime=v2-alpha-tpuv5 ;;
        v6e-*) runtime=v2-alpha-tpuv6e ;;
        *) fail "no image is known here for $accelerator; name one with --runtime" ;;
      esac
    fi
    ;;
esac
case "$verb" in
  run | babysit)
    [ $# -gt 0 ] || fail "what is to be run? ./launch/tpu_vm.sh $verb NAME ... train configs/sst2.py, for example"
    if [ "$1" = train ] && [[ " $* " != *" --workdir"[\ =]* ]]; then
      set -- "$@" --workdir "/mnt/jaxlm/runs/$name"
    fi
    ;;
  *) [ $# -eq 0 ] || fail "$verb takes no $1" ;;
esac
[ "$verb" != setup ] || [ -n "$bucket" ] || echo "no --bucket: what the run writes stays on the machines, and goes with them" >&2
[ "$verb" != babysit ] || [ -n "$bucket" ] || fail "babysit needs --bucket: what is on the machines goes with them"

queue=(gcloud compute tpus queued-resources)
reach=(${where[@]+"${where[@]}"} ${connect_flags[@]+"${connect_flags[@]}"})
everywhere=(--worker=all --node=all)
there=jaxlm # the project, in the home directory of each host

# Prints a command in a dry run, and does it otherwise. gcloud would read what is meant for this script's standard input.
step() {
  if [ -n "$dry_run" ]; then quoted "$@"; else "$@" </dev/null; fi
}

# Prints "STATE OWNER", or "ABSENT" where there is no such request. OWNER is NAME where `create` made it.
look() {
  local found code=0
  found=$("${queue[@]}" describe "$name" ${where[@]+"${where[@]}"} \
    --format='value[separator=" "](state.state,tpu.nodeSpec[0].node.labels.jaxlm_run)' 2>&1 </dev/null) || code=$?
  if [ "$code" != 0 ]; then
    case "$found" in
      *NOT_FOUND* | *"was not found"*) echo ABSENT; return ;;
    esac
    echo "$found" >&2
    return "$code"
  fi
  echo "$found" | tail -n 1
}

create() {
  local nodes=(--node-id="$name")
  [ "$slices" = 1 ] || nodes=(--node-count="$slices" --node-prefix="$name")
  step "${queue[@]}" create "$name" ${where[@]+"${where[@]}"} --accelerator-type="$accelerator" \
    --runtime-version="$runtime" "${nodes[@]}" ${tier:+"$tier"} --labels=jaxlm_run="$name" \
    ${create_flags[@]+"${create_flags[@]}"} --quiet
}

delete() {
  local found
  if [ -z "$dry_run" ]; then
    found=$(look) || return
    case "$found" in
      ABSENT) echo "there is no $name; nothing to delete" >&2; return ;;
      *" $name") ;;
      *) fail "$name was not made by this script (it has no label jaxlm_run=$name); it stays. gcloud deletes it" ;;
    esac
  fi
  step "${queue[@]}" delete "$name" ${where[@]+"${where[@]}"} --force --quiet
}

on_hosts() { # COMMAND, on every host
  step "${queue[@]}" ssh "$name" ${reach[@]+"${reach[@]}"} "${everywhere[@]}" --quiet --command="$1"
}

send() { # FILE DESTINATION, to every host
  step "${queue[@]}" scp "$1" "$name:$2" ${reach[@]+"${reach[@]}"} "${everywhere[@]}" --quiet
}

setup() {
  local pack="$scratch/jaxlm.tar.gz"
  if [ -n "$dry_run" ]; then echo "$(pack quoted) >$pack"; else pack >"$pack" || return; fi
  send "$pack" jaxlm.tar.gz || return
  on_hosts "mkdir -p $there && tar -xzf jaxlm.tar.gz -C $there && $there/launch/tpu_host.sh setup $bucket"
}

run() {
  # Tokens travel in a file that only their owner reads, and on no command line.
  local environment="$scratch/environment"
  if [ -n "$dry_run" ]; then
    echo "# in $environment, not shown:$(passed_names)"
  else
    (umask 077 && passed_environment >"$environment") || return
  fi
  send "$environment" .jaxlm_environment || return
  on_hosts "$there/launch/tpu_host.sh start $name $(quoted "$@")"
}

# A line a host: "jaxlm-run HOST running", "... exit CODE", or "... absent" where nothing was started.
states() {
  on_hosts "if [ -x $there/launch/tpu_host.sh ]; then $there/launch/tpu_host.sh state $name; else echo jaxlm-run \$(hostname) absent; fi"
}

status() {
  local found
  if [ -n "$dry_run" ]; then
    quoted "${queue[@]}" describe "$name" ${where[@]+"${where[@]}"} '--format=value[separator=" "](state.state,tpu.nodeSpec[0].node.labels.jaxlm_run)'
    states
    return
  fi
  found=$(look) || exit 1
  echo "$name ${found%% *}"
  [ "${found%% *}" != FAILED ] || why_failed
  [ "${found%% *}" != ACTIVE ] || states
}

why_failed() {
  "${queue[@]}" describe "$name" ${where[@]+"${where[@]}"} --format='value(state.failedData.error.message)' </dev/null
}

scratch=/tmp/jaxlm
if [ -z "$dry_run" ]; then
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
fi
case "$verb" in
  create) create ;;
  setup) setup ;;
  run) run "$@" ;;
  status) status ;;
  logs)
    step "${queue[@]}" ssh "$name" ${reach[@]+"${reach[@]}"} --worker=0 --node=0 --quiet --command="tail -n 100 -F jaxlm-$name.log"
    ;;
  delete) delete ;;
  babysit)
    # shellcheck source=launch/babysit.sh
    . "$root/launch/babysit.sh"
    babysit "$@"
    ;;
esac
