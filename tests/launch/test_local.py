"""Setting up and running here: what is used, what is refused, what would be done, and where signals go."""

import os
import signal
import sys

import pytest

from tests.launch.conftest import ROOT, WAIT_FOR_SIGTERM, Machine


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_a_python_that_was_named_is_used_or_refused(machine: Machine, python: str) -> None:
    venv = machine.home / "venv"
    found = machine.run("local.sh", "env", PYTHON=python, JAXLM_VENV=str(venv), JAXLM_PLATFORM="cpu")
    assert found.code == 2
    assert f"{python} is none" in found.err
    assert not venv.exists()


def test_a_python_of_uv_is_found_where_the_system_has_none(machine: Machine) -> None:
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        machine.fake(name, "exit 1")
    machine.fake("uv", f"echo {sys.executable}")
    venv = machine.home / "venv"
    found = machine.run("local.sh", "--dry-run", "env", JAXLM_VENV=str(venv), JAXLM_PLATFORM="cpu")
    assert found.out.splitlines()[0] == f"{sys.executable} -m venv {venv}"
    assert machine.calls("uv") == [["python", "find", "--no-project", ">=3.11"]]
    machine.fake("uv", "exit 2")
    found = machine.run("local.sh", "env", JAXLM_VENV=str(venv), JAXLM_PLATFORM="cpu")
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert "Python 3.11 or later is needed" in found.err


def test_an_environment_that_was_left_half_made_is_made_again(machine: Machine) -> None:
    """As a Debian without python3-venv leaves it: with a Python that has no pip."""
    venv = machine.home / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text('#!/bin/sh\n[ "$*" != "-m pip --version" ] || exit 1\n')
    (venv / "bin" / "python").chmod(0o755)
    settings = {"JAXLM_VENV": str(venv), "JAXLM_PLATFORM": "cpu", "PYTHON": sys.executable}
    found = machine.run("local.sh", "--dry-run", "env", **settings)
    assert found.out.splitlines()[0] == f"{sys.executable} -m venv {venv}"
    (venv / ".installed-base").touch()  # whoever installed into it did so without pip
    found = machine.run("local.sh", "--dry-run", "env", **settings)
    assert "-m venv" not in found.out


def test_a_dry_run_prints_the_commands_and_does_nothing(machine: Machine) -> None:
    venv = machine.home / "venv"
    settings = {"JAXLM_VENV": str(venv), "JAXLM_PLATFORM": "cuda", "PYTHON": sys.executable}
    found = machine.run("local.sh", "--dry-run", "train", "configs/sst2.py", "--name", "it's a", **settings)
    assert found.out.splitlines() == [
        f"{sys.executable} -m venv {venv}",
        f"env PIP_USE_PEP517=1 {venv}/bin/python -m pip install --quiet --disable-pip-version-check -e {ROOT}",
        f"env PIP_USE_PEP517=1 {venv}/bin/python -m pip install --quiet --disable-pip-version-check -e '{ROOT}[cuda]'",
        "export XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true",
        rf"{venv}/bin/python -m jaxlm train configs/sst2.py --name 'it'\''s a'",
    ]
    assert (found.code, venv.exists()) == (0, False)


def test_sigterm_reaches_python(machine: Machine, project) -> None:
    folder = project(machine.home / "jaxlm", WAIT_FOR_SIGTERM)
    run = machine.start(folder / "launch" / "local.sh", "train", "configs/sst2.py", JAXLM_PLATFORM="cpu")
    machine.wait_for(machine.home / "ready.0")
    run.send_signal(signal.SIGTERM)
    assert run.wait(10) == 75
    assert (machine.home / "saved.0").exists()


def test_setting_up_is_done_once(machine: Machine, project) -> None:
    folder = project(machine.home / "jaxlm", 'echo "$@"')
    (folder / ".venv" / ".installed-base").unlink()
    first = machine.run(folder / "launch" / "local.sh", "setup", JAXLM_PLATFORM="cpu")
    second = machine.run(folder / "launch" / "local.sh", "setup", JAXLM_PLATFORM="cpu")
    assert "installing jaxlm (base)" in first.err
    assert (first.code, second.code, second.err) == (0, 0, "")
    assert machine.run(folder / "launch" / "local.sh", "env", JAXLM_PLATFORM="cpu").out == "-m jaxlm env\n"


def test_every_script_explains_itself_and_can_be_run(machine: Machine) -> None:
    sourced = {"env.sh", "babysit.sh"}
    for script in sorted((ROOT / "launch").glob("*.s[hb]*")):
        assert os.access(script, os.X_OK) == (script.name not in sourced), script
        if script.name in sourced | {"leashed.sh"}:
            continue
        shown = machine.run(script, "--help")
        comment = script.read_text().split("\nset -euo pipefail")[0].splitlines()[1:]
        assert shown.out.splitlines() == [line[2:] for line in comment if not line.startswith("#SBATCH")], script
        assert shown.code == 0, script
