# shellcheck shell=bash
# What the launchers share: sourced by all of them, run by nobody.
#
#     set_environment cpu|cuda|tpu    what a run needs on that platform; what you have set yourself stays as it is
#     passed_environment              your tokens and settings, as shell code for another machine's standard input
#     quoted WORD ...                 a command as it would be typed
#     pack, was_preempted, fail       see there

# What goes along to other machines. JAXLM_PASS="NAME OTHER" adds names of your own.
tokens="HF_TOKEN HUGGING_FACE_HUB_TOKEN"
settings="JAX_COMPILATION_CACHE_DIR XLA_FLAGS LIBTPU_INIT_ARGS GLIBC_TUNABLES"
passed="$tokens $settings JAXLM_PLATFORM HF_HOME HF_HUB_OFFLINE NCCL_DEBUG NCCL_SOCKET_IFNAME ${JAXLM_PASS:-}"

# Packs, to standard output, what other machines need of this project; `pack quoted` prints the command.
pack() {
  "$@" tar -C "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)" -czf - --exclude=__pycache__ \
    README.md LICENSE requirements.txt pyproject.toml configs jaxlm launch
}

# A run that was told to stop, and has saved itself, ends with exit code 75 (EX_TEMPFAIL): the same command goes on.
was_preempted() { # EXIT_CODE
  [ "$1" = 75 ]
}

set_environment() {
  # The compilation cache lies in ~/.cache/jaxlm/xla. Where machines come and go it must not go with them: process 0
  # writes it, and after a preemption all processes, on new machines, find the program there.
  [ -z "${JAXLM_SHARED:-}" ] || _set JAX_COMPILATION_CACHE_DIR "$JAXLM_SHARED/compiled"
  case "$1" in
    cpu)
      # Without huge pages glibc hands a step's memory back and gets it again in pieces of 4 KiB: a step takes 14 % longer.
      _set GLIBC_TUNABLES glibc.malloc.hugetlb=1
      ;;
    cuda)
      # Collectives run beside arithmetic; off by default, on in NVIDIA's own JAX images
      # (docs.nvidia.com/jax-toolbox/environment-variables).
      _add_flag XLA_FLAGS --xla_gpu_enable_latency_hiding_scheduler=true
      ;;
    tpu)
      # Between slices gradients are summed over the data centre's network. The first flag lets more arithmetic run
      # beside that, the second also where tensors differ in size (jax, docs/xla_flags.md; MaxText,
      # DATA_PARALLEL_OVERLAP). Flags of the TPU compiler are libtpu's: XLA_FLAGS would not know them.
      _add_flag LIBTPU_INIT_ARGS --xla_tpu_enable_data_parallel_all_reduce_opt=true
      _add_flag LIBTPU_INIT_ARGS --xla_tpu_data_parallel_opt_different_sized_ops=true
      ;;
  esac
}

_set() { # NAME VALUE
  [ -n "${!1:-}" ] || export "$1=$2"
}

_add_flag() { # NAME --flag=value, unless the flag is there already, with whatever value
  case " ${!1:-} " in
    *" ${2%%=*}="* | *" ${2%%=*} "*) ;;
    *) export "$1=${!1:+${!1} }$2" ;;
  esac
}

passed_environment() {
  local name
  if [ -t 1 ]; then
    echo "error: tokens are not for the screen; passed_environment goes into a pipe or a file" >&2
    return 2
  fi
  for name in $passed; do
    [ -z "${!name:-}" ] || printf 'export %s=%q\n' "$name" "${!name}"
  done
}

# The names alone, for a dry run.
passed_names() {
  local name found=
  for name in $passed; do
    [ -z "${!name:-}" ] || found="$found $name"
  done
  echo "${found:- nothing}"
}

quoted() {
  local word line=
  for word; do
    case "$word" in
      '' | *[!A-Za-z0-9_@%+=:,./-]*) word="'${word//\'/\'\\\'\'}'" ;;
    esac
    line="$line $word"
  done
  echo "${line# }"
}

fail() {
  echo "error: $*" >&2
  exit 2
}
