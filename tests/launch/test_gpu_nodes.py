"""Machines behind ssh: here ssh is a fake that runs the command in a directory of its own."""

import signal
import tarfile
import time
from pathlib import Path

import pytest

from tests.launch.conftest import TOKEN, WAIT_FOR_SIGTERM, Machine

SSH = ["-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"]
CLEAN = "env -i --default-signal PATH=/usr/bin:/bin JAXLM_PLATFORM=cpu"
TELL = 'echo "$JAXLM_PROCESS_ID of $JAXLM_NUM_PROCESSES, $JAXLM_COORDINATOR, ${CUDA_VISIBLE_DEVICES-all}, $HF_TOKEN"'


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """With an ssh that starts from a clean environment and with all signals, as ssh does."""
    machine.fake("ssh", f'cd {machine.home}; exec {CLEAN} HOME={machine.home} bash -c "${{@: -1}}"')
    return machine


@pytest.fixture
def nodes(machine: Machine, project):
    """Puts the project, with a Python that does `body`, where both machines have it."""
    return lambda body: project(machine.home / "jaxlm", body)


def test_a_process_starts_on_each_machine(machine: Machine, nodes) -> None:
    nodes(f'{TELL} >"$HOME/told.$JAXLM_PROCESS_ID"; echo "$@"')
    found = machine.run("gpu_nodes.sh", "--hosts", "gpu1,me@gpu2", "train", "configs/sst2.py", "--name", "it's a")
    assert (found.code, found.err) == (0, "")
    command = "-m jaxlm train configs/sst2.py --name it's a\n"
    assert found.out == command * 2
    for number in (0, 1):
        told = (machine.home / f"told.{number}").read_text()
        assert told == f"{number} of 2, gpu1:8476, all, {TOKEN}\n"
    start = "cd jaxlm && exec env JAXLM_COORDINATOR=gpu1:8476 JAXLM_NUM_PROCESSES=2 JAXLM_PROCESS_ID={} "
    start += r"bash launch/leashed.sh ./launch/local.sh train configs/sst2.py --name 'it'\''s a'"
    calls = sorted(machine.calls("ssh"))
    assert calls == [[*SSH, "gpu1", start.format(0)], [*SSH, "me@gpu2", start.format(1)]]


def test_a_process_starts_on_each_gpu(machine: Machine, nodes) -> None:
    nodes(TELL.replace(", $HF_TOKEN", ""))
    flags = ("--hosts", "gpu1,gpu2", "--gpus", "2", "--coordinator", "10.0.0.1:99")
    found = machine.run("gpu_nodes.sh", *flags, "train", "configs/sst2.py")
    assert sorted(found.out.splitlines()) == [f"{i} of 4, 10.0.0.1:99, {i % 2}" for i in range(4)]
    assert sorted(call[-2] for call in machine.calls("ssh")) == ["gpu1", "gpu1", "gpu2", "gpu2"]


def test_a_process_that_fails_stops_the_others(machine: Machine, nodes) -> None:
    others = '[ -e "$HOME/ready.0" ] && [ -e "$HOME/ready.2" ]'
    fails = f'if [ "$JAXLM_PROCESS_ID" = 1 ]; then until {others}; do sleep 0.02; done; exit 3; fi'
    nodes(f"{fails}\n{WAIT_FOR_SIGTERM}")
    found = machine.run("gpu_nodes.sh", "--hosts", "gpu1,gpu2,gpu3", "train", "configs/sst2.py")
    assert found.code == 3
    assert "process 1 on gpu2 ended with exit code 3" in found.err
    assert {path.name for path in machine.home.glob("saved.*")} == {"saved.0", "saved.2"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_every_process(machine: Machine, nodes, number: signal.Signals) -> None:
    nodes(WAIT_FOR_SIGTERM)
    run = machine.start("gpu_nodes.sh", "--hosts", "gpu1,gpu2", "train", "configs/sst2.py")
    machine.wait_for(machine.home / "ready.0", machine.home / "ready.1")
    run.send_signal(number)
    assert run.wait(15) == 75
    assert (machine.home / "saved.0").exists()
    assert (machine.home / "saved.1").exists()


def test_a_result_that_comes_in_two_parts_is_read_whole(machine: Machine, nodes) -> None:
    """On a busy machine the second that a read has may end within a line."""
    nodes(WAIT_FOR_SIGTERM)
    folder = machine.home / "scratch"
    folder.mkdir()
    run = machine.start("gpu_nodes.sh", "--hosts", "gpu1", "train", "configs/sst2.py", TMPDIR=str(folder))
    machine.wait_for(machine.home / "ready.0")
    (results,) = folder.glob("*/results")
    with results.open("wb", buffering=0) as pipe:
        pipe.write(b"0 7")
        time.sleep(1.5)
        pipe.write(b"3\n")
    assert run.wait(15) == 73


def test_processes_do_not_outlive_a_launcher_that_was_killed(machine: Machine, nodes) -> None:
    nodes(WAIT_FOR_SIGTERM)
    run = machine.start("gpu_nodes.sh", "--hosts", "gpu1,gpu2", "train", "configs/sst2.py")
    machine.wait_for(machine.home / "ready.0", machine.home / "ready.1")
    run.kill()
    machine.wait_for(machine.home / "saved.0", machine.home / "saved.1")


def test_a_process_that_does_not_end_is_killed(machine: Machine, nodes) -> None:
    nodes("trap '' TERM; touch $HOME/ready.0; while :; do sleep 0.02; done")
    remote = f'{CLEAN} HOME={machine.home} JAXLM_GRACE_S=0 bash -c "${{@: -1}}"'
    machine.fake("ssh", f"cd {machine.home}; exec {remote}")
    run = machine.start("gpu_nodes.sh", "--hosts", "gpu1", "train", "configs/sst2.py")
    machine.wait_for(machine.home / "ready.0")
    run.terminate()
    assert run.wait(15) == 137


def test_setting_up_copies_the_project_to_each_machine(machine: Machine) -> None:
    machine.fake("ssh", 'cat >"$HOME/${@: -2:1}.tar.gz"')
    found = machine.run("gpu_nodes.sh", "--hosts", "gpu1,gpu2", "--directory", "my work", "--setup")
    assert found.code == 0
    there = "mkdir -p 'my work' && cd 'my work' && tar -xzf - && ./launch/local.sh setup"
    assert machine.calls("ssh") == [[*SSH, "gpu1", there], [*SSH, "gpu2", there]]
    with tarfile.open(machine.home / "gpu2.tar.gz") as archive:
        names = archive.getnames()
    assert {"pyproject.toml", "jaxlm/cli.py", "configs/sst2.py", "launch/leashed.sh", "LICENSE"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", ".git", ".venv")) or "__pycache__" in name]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["train"], "which machines? --hosts gpu1,gpu2"),
        (["--hosts", "a"], "what is to be run?"),
        (["--hosts", "a", "--gpus", "all", "train"], "--gpus is 'all'"),
        (["--hosts", "a", "--gpu", "8", "train"], "--gpu is none of this script's flags"),
        (["--hosts"], "--hosts needs a value"),
    ],
)
def test_what_is_wrong_is_said_at_once(machine: Machine, arguments: list[str], error: str) -> None:
    found = machine.run("gpu_nodes.sh", *arguments)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert error in found.err
    assert not machine.calls("ssh")


def test_an_ssh_that_fails_is_told_from_a_run_that_fails(machine: Machine, nodes, tmp_path: Path) -> None:
    nodes("exit 0")
    machine.fake("ssh", "exit 255")
    found = machine.run("gpu_nodes.sh", "--hosts", "gpu1", "train", "configs/sst2.py")
    assert found.code == 255
    assert "exit code 255 (255 is ssh's own)" in found.err
