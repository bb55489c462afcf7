# shellcheck shell=bash
# The verb `babysit` of tpu_vm.sh: keeps a run going over preemptions, until it is done. Sourced by tpu_vm.sh, whose
# settings and steps (create, setup, run, look, states, delete) it uses.

say() { echo "$(date '+%F %T') $name: $*" >&2; }

babysit() {
  local found seen='' made=''
  if [ -n "$dry_run" ]; then
    create
    echo "# when it is ACTIVE:"
    setup
    run "$@"
    echo "# every $poll s, until all hosts say exit 0; after a preemption (SUSPENDED): delete, and from the start:"
    states
    [ -n "$keep" ] || delete
    return
  fi
  trap 'say "leaving $name alone; the same command goes on with it, \`tpu_vm.sh delete $name\` gives it back"; exit 130' INT
  trap 'say "leaving $name alone; the same command goes on with it, \`tpu_vm.sh delete $name\` gives it back"; exit 143' TERM
  failed=0 ran=0 unreachable=0
  while :; do
    if ! found=$(look); then
      [ -n "$seen" ] || exit 1 # no project, no permission, no such zone
      say "gcloud gives no answer; trying again"
      pause
      continue
    fi
    case "$found" in
      ABSENT | *" $name") ;;
      *) fail "$name was not made by this script (it has no label jaxlm_run=$name); choose another name" ;;
    esac
    state=${found%% *}
    [ "$state" = "$seen" ] || say "$state"
    seen=$state
    [ "$state" = ABSENT ] || made=1
    case "$state" in
      ABSENT)
        create || {
          [ -n "$made" ] || exit 1 # no quota, no such accelerator
          say "asking failed; trying again"
          pause
        }
        made=1
        ;;
      ACTIVE) tend "$@" ;;
      SUSPENDED) # the machines were taken away; such a request is never served again
        say "preempted; asking for new machines"
        give_back || pause
        ;;
      FAILED)
        say "the request failed: $(why_failed)"
        count_failure 1
        give_back || pause
        ;;
      # CREATING, ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDING, DELETING: time will tell
      *) pause ;;
    esac
  done
}

pause() {
  sleep "$poll" >/dev/null 2>&1 & # holds nobody's pipe open
  wait $! # a signal ends `wait`, but not `sleep`
}

# Looks after the run on machines that are there.
tend() {
  local lines codes code
  if ! lines=$(states); then # they may be going just now, or no key, no firewall lets this machine in
    unreachable=$((unreachable + 1))
    say "the hosts cannot be reached ($unreachable of 15)"
    [ "$unreachable" -lt 15 ] || count_failure 1 # nobody pays for ever for machines that nobody can use
    pause
    return
  fi
  unreachable=0
  lines=$(grep '^jaxlm-run ' <<<"$lines") || lines='jaxlm-run ? absent'
  case "$lines" in
    *" running"*) # also while others have ended: they all do, within a minute or two
      ran=$((ran + poll))
      pause
      return
      ;;
    *" absent"*) # new machines, or rebooted ones
      start "$@"
      return
      ;;
  esac
  codes=$(awk '{print $4}' <<<"$lines" | sort -nu | tr '\n' ' ')
  case " $codes" in
    " 0 ")
      say "done"
      finish 0
      ;;
    *" 2 "*)
      say "exit code 2: what is wrong has to be put right first"
      finish 2
      ;;
    *" 75 "*)
      say "the run has saved itself; starting it again"
      start "$@"
      ;;
    *)
      code=${codes% } code=${code##* } # the largest
      say "the run failed, exit codes $codes"
      count_failure "$code"
      start "$@"
      ;;
  esac
}

start() {
  if setup && run "$@"; then
    say "started; the log: ./launch/tpu_vm.sh logs $name"
  else
    say "setting up failed"
    count_failure 1
  fi
  pause
}

count_failure() { # EXIT_CODE of this script if that was once too often
  [ "$ran" -lt 1800 ] || failed=0 # half an hour of training is worth a new start
  ran=0 unreachable=0
  failed=$((failed + 1))
  if [ "$failed" -gt "$failures" ]; then
    say "$failed failures; giving up"
    finish "$1"
  fi
}

give_back() {
  delete || {
    say "deleting failed; trying again"
    return 1
  }
}

finish() { # EXIT_CODE
  local tries=0
  on_hosts "tail -n 40 jaxlm-$name.log" || true
  if [ -z "$keep" ]; then
    until give_back; do # machines that nobody uses cost as much
      tries=$((tries + 1))
      [ "$tries" -lt 10 ] || fail "$name could not be deleted and is paid for still: \`tpu_vm.sh delete $name\`"
      pause
    done
  fi
  exit "$1"
}
