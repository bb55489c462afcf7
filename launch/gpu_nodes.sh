#!/usr/bin/env bash
# Runs a verb on several machines that ssh reaches, as one run: a process a machine, or a process a GPU.
#
#     ./launch/gpu_nodes.sh --hosts gpu1,gpu2 --setup               copies the project there and sets it up
#     ./launch/gpu_nodes.sh --hosts gpu1,gpu2 train configs/pretrain_bert_large.py --workdir /shared/runs/large ...
#     ./launch/gpu_nodes.sh --hosts gpu1,gpu2 --dry-run train ...   prints the commands instead
#
#     --hosts A,B,...      as ssh knows them; keys without a passphrase, or an agent
#     --gpus N             start N processes on each machine, each with one of its GPUs; unset: one process, all GPUs
#     --directory DIR      where the project lies there (jaxlm, in the home directory)
#     --coordinator H:P    where process 0 is reached by the others (the first machine, port 8476)
#     --dry-run            must come before the verb, as all of these
#
# --workdir must be a directory that all machines see. SIGTERM and Ctrl-C reach every process, and so does the end of
# this script or of the connection: they save themselves, and the same command goes on. When one process fails the
# others are stopped, and its exit code is this script's; 75 means that the run has saved itself and can go on.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/env.sh
. "$root/launch/env.sh"

usage() { sed -nE '2,/^set /s/^#( |$)//p' "${BASH_SOURCE[0]}"; }
hosts=() gpus='' directory=jaxlm coordinator='' setup='' dry_run=''
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    --setup) setup=1 ;;
    --dry-run) dry_run=1 ;;
    --hosts | --gpus | --directory | --coordinator)
      [ $# -gt 1 ] || fail "$1 needs a value"
      case "$1" in
        --hosts) IFS=, read -r -a hosts <<<"$2" ;;
        --gpus) gpus=$2 ;;
        --directory) directory=$2 ;;
        --coordinator) coordinator=$2 ;;
      esac
      shift
      ;;
    --) shift; break ;;
    -*) fail "$1 is none of this script's flags; ./launch/gpu_nodes.sh --help lists them" ;;
    *) break ;;
  esac
  shift
done
[ ${#hosts[@]} -gt 0 ] || fail "which machines? --hosts gpu1,gpu2"
[[ ! $gpus || $gpus =~ ^[1-9][0-9]*$ ]] || fail "--gpus is '$gpus'; it must be the number of GPUs of each machine"

# A connection that breaks is noticed within a minute, and nothing asks for a password in the background.
ssh=(ssh -o BatchMode=yes -o ServerAliveInterval=15 -o ServerAliveCountMax=4)

if [ -n "$setup" ]; then
  for host in "${hosts[@]}"; do # one after the other: the machines may share a home directory
    there="mkdir -p $(quoted "$directory") && cd $(quoted "$directory") && tar -xzf - && ./launch/local.sh setup"
    if [ -n "$dry_run" ]; then
      echo "$(pack quoted) | $(quoted "${ssh[@]}" "$host" "$there")"
    else
      echo "setting up $host" >&2
      pack | "${ssh[@]}" "$host" "$there"
    fi
  done
  exit 0
fi
[ $# -gt 0 ] || fail "what is to be run? ./launch/gpu_nodes.sh --hosts ... train configs/sst2.py, for example"

each=${gpus:-1}
count=$((${#hosts[@]} * each))
coordinator=${coordinator:-${hosts[0]##*@}:8476}
commands=() # the remote one of each process
for ((process = 0; process < count; process++)); do
  variables=("JAXLM_COORDINATOR=$coordinator" "JAXLM_NUM_PROCESSES=$count" "JAXLM_PROCESS_ID=$process")
  [ -z "$gpus" ] || variables+=("CUDA_VISIBLE_DEVICES=$((process % each))")
  commands+=("cd $(quoted "$directory") && exec env $(quoted "${variables[@]}" bash launch/leashed.sh ./launch/local.sh "$@")")
done
if [ -n "$dry_run" ]; then
  for ((process = 0; process < count; process++)); do
    quoted "${ssh[@]}" "${hosts[process / each]}" "${commands[process]}"
  done
  echo "# passed through standard input, not shown:$(passed_names)"
  exit 0
fi

# Each remote process is held by a leash: its standard input, which stays open for as long as this script holds the
# writing end. Whatever ends this script lets go of it, and leashed.sh over there then sends SIGTERM.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkfifo "$scratch/leash" "$scratch/results"
exec 9<>"$scratch/leash" 8<>"$scratch/results"
exec 7<"$scratch/leash" # opened while there is a writer: an opening later could wait for one for ever
feed() {
  exec 8>&-
  passed_environment
  echo .
  exec cat <&7
}
for ((process = 0; process < count; process++)); do
  (
    trap '' INT TERM # what Ctrl-C and SIGTERM mean is up to the script
    "${ssh[@]}" "${hosts[process / each]}" "${commands[process]}" < <(feed) 8>&- && code=0 || code=$?
    echo "$process $code" >&8
  ) 9>&- &
done

stop() {
  [ -z "$stopped" ] || return 0
  stopped=1
  echo "$1; stopping all processes, which save themselves" >&2
  exec 9>&-
}
stopped=
trap 'stop "asked to stop"' TERM INT HUP
result=0
left=$count
line=
while [ "$left" -gt 0 ]; do
  # A signal is answered between two reads; on a busy machine a second may end within a line, a part of which is then read.
  IFS= read -r -t 1 part <&8 && whole=1 || whole=
  line+=$part
  [ -n "$whole" ] || continue
  process=${line% *} code=${line#* } line=
  left=$((left - 1))
  if [ "$code" != 0 ]; then
    [ "$result" != 0 ] || result=$code
    stop "process $process on ${hosts[process / each]} ended with exit code $code (255 is ssh's own)"
  fi
done
exit "$result"
