"""What happens on each host of a TPU slice: systemd, uv and gcsfuse are fakes."""

from pathlib import Path

import pytest

from tests.launch.conftest import Machine


@pytest.fixture
def vm(machine: Machine, project) -> Path:
    machine.fake("sudo", 'exec "$@"')
    for name in ("systemctl", "gcsfuse", "fusermount", "apt-get", "install", "sleep"):
        machine.fake(name)
    machine.fake("systemd-run", '[ "$2" != --unit=jaxlm_bucket ] || touch "$HOME/mounted"')
    machine.fake("tee", "cat >/dev/null")
    machine.fake("curl", "echo :")
    machine.fake("mountpoint", '[ -e "$HOME/mounted" ]')
    machine.fake("hostname", "echo w-0")
    machine.fake("uv", '[ "$2" != find ] || echo /uv/python3.12')
    return (
        project(machine.home / "jaxlm", 'echo "$@"; echo "$JAXLM_SHARED $HF_TOKEN $JAXLM_PLATFORM"')
        / "launch"
        / "tpu_host.sh"
    )


def test_setting_up_brings_python_mounts_the_bucket_and_installs(machine: Machine, vm: Path) -> None:
    found = machine.run(vm, "setup", "bucket")
    assert found.code == 0, found.err
    assert machine.calls("uv") == [
        ["python", "install", "--quiet", "3.12"],
        ["python", "find", "--no-project", "3.12"],
    ]
    (unit,) = machine.calls("systemd-run")
    assert unit[-6:] == [
        str(machine.programs / "gcsfuse"),
        *("--foreground", "--implicit-dirs", "--rename-dir-limit=100000", "bucket", "/mnt/jaxlm"),
    ]
    assert machine.calls("fusermount") == [["-uz", "/mnt/jaxlm"]]
    assert machine.run(vm, "setup", "bucket").code == 0
    assert len(machine.calls("systemd-run")) == 1  # it is mounted
    machine.fake("systemd-run")
    (machine.home / "mounted").unlink()
    found = machine.run(vm, "setup", "bucket")
    assert (found.code, "the bucket bucket is not mounted on w-0 after a minute" in found.err) == (2, True)


def test_without_a_bucket_runs_go_to_a_directory_of_the_host(machine: Machine, vm: Path) -> None:
    assert machine.run(vm, "setup").code == 0
    assert machine.calls("install")[0][-1] == "/mnt/jaxlm"
    assert not machine.calls("systemd-run")


def test_a_run_is_a_unit_that_outlives_the_connection(machine: Machine, vm: Path) -> None:
    machine.fake("systemctl", "[ $1 != show ] || echo dead")
    assert machine.run(vm, "start", "sst2", "train", "configs/sst2.py", "--name", "a b").out == "sst2 started on w-0\n"
    (call,) = machine.calls("systemd-run")
    assert call[-6:] == [str(vm), "exec", "train", "configs/sst2.py", "--name", "a b"]
    assert {"--unit=jaxlm-sst2", "--property=KillMode=mixed", "--property=RemainAfterExit=yes"} <= set(call)
    assert f"--property=StandardOutput=append:{machine.home}/jaxlm-sst2.log" in call
    assert not machine.calls("gcsfuse")  # no bucket
    stopped = [["stop", "jaxlm-sst2"], ["reset-failed", "jaxlm-sst2"]]
    assert machine.calls("systemctl")[1:] == stopped
    machine.fake("systemctl", "[ $1 != show ] || echo running")
    assert machine.run(vm, "start", "sst2", "train", "configs/sst2.py").out == "sst2 is running on w-0\n"
    assert len(machine.calls("systemd-run")) == 1


def test_a_reboot_costs_no_bucket(machine: Machine, vm: Path) -> None:
    machine.fake("systemctl", "[ $1 != show ] || echo dead")
    (machine.home / ".jaxlm_bucket").write_text("bucket\n")
    assert machine.run(vm, "start", "sst2", "train", "configs/sst2.py").code == 0
    bucket, run = machine.calls("systemd-run")
    assert bucket[-2:] == ["bucket", "/mnt/jaxlm"]
    # At a shutdown, what is After= ends first.
    assert "--property=After=network-online.target jaxlm_bucket.service mnt-jaxlm.mount" in run


@pytest.mark.parametrize(
    ("load", "sub", "how", "status", "state"),
    [
        ("not-found", "dead", "0", "0", "absent"),
        ("loaded", "running", "0", "0", "running"),
        ("loaded", "stop-sigterm", "0", "0", "running"),
        ("loaded", "exited", "1", "0", "exit 0"),
        ("loaded", "failed", "1", "75", "exit 75"),
        ("loaded", "failed", "2", "9", "exit 137"),
    ],
)
def test_the_state_of_a_unit(
    machine: Machine, vm: Path, load: str, sub: str, how: str, status: str, state: str
) -> None:
    shows = {"LoadState": load, "SubState": sub, "ExecMainCode": how, "ExecMainStatus": status}
    cases = "".join(f"*={name}\\ *) echo {value} ;;" for name, value in shows.items())
    machine.fake("systemctl", f'case "$*" in {cases} esac')
    assert machine.run(vm, "state", "sst2").out == f"jaxlm-run w-0 {state}\n"


def test_the_unit_has_tokens_and_the_bucket(machine: Machine, vm: Path) -> None:
    (machine.home / ".jaxlm_environment").write_text("export HF_TOKEN=sent\n")
    (machine.home / ".jaxlm_bucket").write_text("bucket\n")
    found = machine.run(vm, "exec", "train", "configs/sst2.py", HF_TOKEN="")
    assert found.out == "-m jaxlm train configs/sst2.py\n/mnt/jaxlm sent tpu\n"


def test_sigterm_reaches_python(machine: Machine, vm: Path) -> None:
    python = vm.parent.parent / ".venv" / "bin" / "python"
    loop = "trap 'exit 75' TERM; touch $HOME/ready; while :; do sleep 0.02; done"
    python.write_text(python.read_text().replace('echo "$@"', loop))
    unit = machine.start(vm, "exec", "train", "configs/sst2.py")
    machine.wait_for(machine.home / "ready")
    unit.terminate()
    assert unit.wait(10) == 75
