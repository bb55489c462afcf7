#!/usr/bin/env bash
# Runs a command for gpu_nodes.sh on another machine: `leashed.sh COMMAND ...`, with standard input as its leash.
#
# Standard input gives shell code first (tokens and settings, which belong on no command line), up to a line with a
# single dot, and then nothing. When it ends, the starter or the connection is gone: the command gets SIGTERM, and after
# JAXLM_GRACE_S seconds (300) SIGKILL.
set -euo pipefail
while IFS= read -r line && [ "$line" != . ]; do
  eval "$line"
done

exec 3<&0
"$@" 3<&- </dev/null &
command=$!
trap 'kill -TERM "$command" 2>/dev/null' TERM INT HUP
(
  trap '' TERM INT HUP
  cat >/dev/null # until the leash is let go of
  kill -TERM "$command" 2>/dev/null || exit 0
  sleep "${JAXLM_GRACE_S:-300}"
  kill -KILL "$command" 2>/dev/null
) <&3 >/dev/null 2>&1 &
watcher=$!
disown "$watcher" # its end is no news
exec 3<&-
code=0
while :; do # a signal ends `wait` early
  wait "$command" && code=0 || code=$?
  kill -0 "$command" 2>/dev/null || break
done
kill -KILL "$watcher" 2>/dev/null || true
exit "$code"
