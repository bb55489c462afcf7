"""What a run's environment is on each platform, and that tokens travel unseen."""

import os
import pty
import subprocess
import sys

import pytest

from tests.launch.conftest import ROOT, TOKEN, Machine


def after(machine: Machine, platform: str, *names: str, **variables: str) -> list[str]:
    """Values of variables once the environment of a platform is set, twice."""
    show = " ".join(f'"${{{name}:-}}"' for name in names)
    code = f". {ROOT}/launch/env.sh; set_environment {platform}; set_environment {platform}; printf '%s\\n' {show}"
    command = ["bash", "-euc", code]
    found = subprocess.run(command, env=machine.environment | variables, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def test_each_platform_gets_its_settings_once(machine: Machine) -> None:
    names = ("GLIBC_TUNABLES", "XLA_FLAGS", "LIBTPU_INIT_ARGS", "JAX_COMPILATION_CACHE_DIR")
    gpu = "--xla_gpu_enable_latency_hiding_scheduler=true"
    tpu = "--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true"
    assert after(machine, "cpu", *names) == ["glibc.malloc.hugetlb=1", "", "", ""]
    assert after(machine, "cuda", *names) == ["", gpu, "", ""]
    assert after(machine, "tpu", *names, JAXLM_SHARED="/mnt/jaxlm") == ["", "", tpu, "/mnt/jaxlm/compiled"]


def test_what_the_user_has_set_stays(machine: Machine) -> None:
    mine = {
        "XLA_FLAGS": "--xla_dump_to=/tmp/x --xla_gpu_enable_latency_hiding_scheduler=false",
        "JAX_COMPILATION_CACHE_DIR": "/scratch",
        "JAXLM_SHARED": "/mnt/jaxlm",
    }
    assert after(machine, "cuda", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR", **mine) == [
        mine["XLA_FLAGS"],
        "/scratch",
    ]
    added = after(machine, "cuda", "XLA_FLAGS", XLA_FLAGS="--xla_dump_to=/tmp/x")
    assert added == ["--xla_dump_to=/tmp/x --xla_gpu_enable_latency_hiding_scheduler=true"]


@pytest.mark.parametrize(("more", "accepted"), [("", True), (" --xla_gpu_no_such_flag=true", False)])
def test_the_installed_compiler_knows_every_flag(machine: Machine, more: str, accepted: bool) -> None:
    """XLA ends the process where it does not know a flag; all of its builds know those of the GPU."""
    flags = after(machine, "cuda", "XLA_FLAGS")[0] + more
    environment = machine.environment | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode == 0) == accepted
    assert ("Unknown flag" in found.stderr) != accepted


def test_tokens_and_settings_arrive_as_they_were(machine: Machine) -> None:
    odd = 'it\'s $HOME `x` \\ "y"\nnext'
    environment = machine.environment | {"HF_HOME": odd, "MY_OWN": "mine", "JAXLM_PASS": "MY_OWN"}
    names = ("HF_TOKEN", "HF_HOME", "MY_OWN", "HF_HUB_OFFLINE")
    there = "; ".join(f'printf "%s\\0" "${{{name}-unset}}"' for name in names)
    clean = "env -u HF_TOKEN -u HF_HOME -u MY_OWN -u JAXLM_PASS"
    code = f". {ROOT}/launch/env.sh; passed_environment | {clean} bash -euc 'eval \"$(cat)\"; {there}'"
    found = subprocess.run(["bash", "-euc", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split("\0")[:-1] == [TOKEN, odd, "mine", "unset"]


def test_tokens_are_not_shown_on_a_screen(machine: Machine) -> None:
    ours, theirs = pty.openpty()
    command = ["bash", "-c", f". {ROOT}/launch/env.sh; passed_environment; exit $?"]
    code = subprocess.run(command, env=machine.environment, stdout=theirs, stderr=theirs, check=False).returncode
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert code == 2
    assert "tokens are not for the screen" in shown
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("local.sh", ["--dry-run", "train", "configs/sst2.py"]),
        ("gpu_nodes.sh", ["--hosts", "a,b", "--dry-run", "train", "configs/sst2.py"]),
        ("tpu_vm.sh", ["run", "sst2", "--dry-run", "train", "configs/sst2.py"]),
        ("tpu_vm.sh", ["babysit", "sst2", "--dry-run", "--accelerator", "v6e-8", "--bucket", "bucket", "train", "c"]),
        ("slurm.sbatch", ["--dry-run", "train", "configs/sst2.py"]),
    ],
)
def test_a_dry_run_shows_commands_and_no_token(machine: Machine, project, script: str, arguments: list[str]) -> None:
    folder = project(machine.home / "jaxlm", "exit 99")
    for program in ("gcloud", "ssh", "scp", "srun", "scontrol"):
        machine.fake(program, "exit 99")
    found = machine.run(script, *arguments, cwd=folder, JAXLM_VENV=str(folder / ".venv"), JAXLM_PLATFORM="cpu")
    assert (found.code, found.err) == (0, "")  # that no token is in it is checked by `run`
    assert "train" in found.out
    assert not list(machine.calls_directory.iterdir())
