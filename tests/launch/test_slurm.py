"""The batch script, with an srun that runs its command once, here."""

import signal
from pathlib import Path

import pytest

from tests.launch.conftest import ROOT, WAIT_FOR_SIGTERM, Machine

JOB = {"SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "8", "JAXLM_PLATFORM": "cpu"}
FLAGS = ["--kill-on-bad-exit=0", "--wait=300", "--cpus-per-task=8"]


@pytest.fixture
def folder(machine: Machine, project) -> Path:
    """The project's folder, from which the job was submitted; its Python waits for SIGTERM."""
    # An srun that gets SIGTERM kills its tasks; scancel signals the tasks, and not the batch script.
    machine.fake(
        "srun",
        """
        while [[ $1 == --* ]]; do shift; done
        "$@" & task=$!
        echo $task >"$HOME/task"
        trap 'kill -KILL $task' TERM
        while kill -0 $task 2>/dev/null; do wait $task; code=$?; done
        exit $code""",
    )
    machine.fake("scancel", 'kill -TERM "$(cat "$HOME/task")"')
    machine.fake("squeue", "echo RUNNING")
    machine.fake("scontrol")
    return project(machine.home / "jaxlm", WAIT_FOR_SIGTERM)


def python_does(folder: Path, body: str) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace(WAIT_FOR_SIGTERM, body))


def test_every_task_runs_the_verb(machine: Machine, folder: Path) -> None:
    python_does(folder, 'echo "$@"; exit 0')
    found = machine.run(
        "slurm.sbatch", "train", "configs/sst2.py", "--name", "a b", **JOB, SLURM_SUBMIT_DIR=str(folder)
    )
    assert machine.calls("srun") == [[*FLAGS, "./launch/local.sh", "train", "configs/sst2.py", "--name", "a b"]]
    assert (found.code, found.out) == (0, "-m jaxlm train configs/sst2.py --name a b\n")
    assert not machine.calls("scontrol")


def test_a_dry_run_prints_what_the_job_would_do(machine: Machine, folder: Path) -> None:
    found = machine.run("slurm.sbatch", "--dry-run", "train", "configs/sst2.py", cwd=folder)
    command = "srun --kill-on-bad-exit=0 --wait=300 ./launch/local.sh train configs/sst2.py\n"
    assert found.out == "./launch/local.sh setup\n" + command
    assert not machine.calls("srun")


def test_sigterm_ahead_of_the_limit_reaches_python_and_requeues_the_job(machine: Machine, folder: Path) -> None:
    job = machine.start("slurm.sbatch", "train", "configs/sst2.py", cwd=folder, **JOB)
    machine.wait_for(machine.home / "ready.0")
    job.send_signal(signal.SIGTERM)  # what --signal=B:TERM does
    assert job.wait(10) == 75
    assert (machine.home / "saved.0").exists()
    assert machine.calls("scancel") == [["--signal=TERM", "17"]]
    assert machine.calls("scontrol") == [["requeue", "17"]]
    assert machine.calls("squeue") == [["--noheader", "--jobs=17", "--format=%T"]]


def test_a_job_that_was_cancelled_stays_cancelled(machine: Machine, folder: Path) -> None:
    machine.fake("squeue", "echo COMPLETING")
    python_does(folder, "exit 75")
    assert machine.run("slurm.sbatch", "train", "configs/sst2.py", cwd=folder, **JOB).code == 75
    assert not machine.calls("scontrol")


@pytest.mark.parametrize("code", [1, 2, 139])
def test_a_run_that_fails_is_not_requeued(machine: Machine, folder: Path, code: int) -> None:
    python_does(folder, f"exit {code}")
    assert machine.run("slurm.sbatch", "train", "configs/sst2.py", cwd=folder, **JOB).code == code
    assert not machine.calls("scontrol")


def test_a_run_that_had_no_time_to_save_is_requeued(machine: Machine, folder: Path) -> None:
    python_does(folder, 'trap "kill -KILL $$" TERM; touch $HOME/ready.0; while :; do sleep 0.02; done')
    job = machine.start("slurm.sbatch", "train", "configs/sst2.py", cwd=folder, **JOB)
    machine.wait_for(machine.home / "ready.0")
    job.terminate()
    assert job.wait(10) == 137
    assert machine.calls("scontrol") == [["requeue", "17"]]


def test_the_job_asks_for_what_a_preemption_needs() -> None:
    lines = (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    asked = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"--requeue", "--signal=B:TERM@300", "--open-mode=append"} <= asked
    numbers = {flag.split("=")[0]: flag.split("=")[1] for flag in asked if "=" in flag}
    assert numbers["--ntasks-per-node"] == numbers["--gpus-per-node"]  # one process a GPU, and none idle
    assert not any(flag.startswith("--array") for flag in asked)


def test_what_is_wrong_is_said_at_once(machine: Machine, folder: Path) -> None:
    def error(*arguments: str, cwd: Path = folder, **variables: str) -> str:
        found = machine.run("slurm.sbatch", *arguments, cwd=cwd, **variables)
        assert (found.code, found.err.count("\n")) == (2, 1)
        return found.err

    assert "sbatch --nodes=2" in error("train", "configs/sst2.py")
    assert "not an array" in error("train", "configs/sst2.py", **JOB, SLURM_ARRAY_TASK_ID="0")
    assert "no launch/local.sh" in error("train", "configs/sst2.py", cwd=machine.home, **JOB)
    (folder / ".venv" / "bin" / "python").unlink()
    assert "launch/local.sh setup first" in error("train", "configs/sst2.py", **JOB)
    assert not machine.calls("srun")
