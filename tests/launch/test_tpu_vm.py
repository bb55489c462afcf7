"""Queued resources of TPU VMs, with a gcloud that answers as it is told to."""

import shlex
import signal
import tarfile
from pathlib import Path

import pytest

from tests.launch.conftest import TOKEN, Machine, Result

LOOK = '--format=value[separator=" "](state.state,tpu.nodeSpec[0].node.labels.jaxlm_run)'
HOSTS = ["--worker=all", "--node=all", "--quiet"]
ASK = ["--accelerator", "v5litepod-16", "--spot", "--zone", "z", "--bucket", "gs://bucket", "--poll", "0"]
CREATE = [
    *("create", "sst2", "--zone=z", "--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"),
    *("--node-id=sst2", "--spot", "--labels=jaxlm_run=sst2", "--quiet"),
]
DELETE = ["delete", "sst2", "--zone=z", "--force", "--quiet"]


@pytest.fixture
def machine(machine: Machine) -> Machine:
    """gcloud takes the next line of `states` for each look at the request, and of `hosts` for each look at the run."""
    machine.fake(
        "gcloud",
        r"""
        next() { head -n 1 "$HOME/$1"; sed -i '1{$!d}' "$HOME/$1"; }
        case "$4 $*" in
          describe*failedData*) echo "no capacity in z" ;;
          describe*)
            answer=$(next states)
            [ "$answer" != ABSENT ] || { echo "ERROR: NOT_FOUND: Resource 'sst2' was not found" >&2; exit 1; }
            [ "$answer" != BROKEN ] || { echo "ERROR: no such project" >&2; exit 1; }
            echo "$answer" ;;
          scp*) cp "$5" "$HOME/sent.${6#*:}"; stat -c %a "$5" >"$HOME/mode.${6#*:}" ;;
          ssh*" state "*)
            answer=$(next hosts)
            [ "$answer" != UNREACHABLE ] || exit 255
            printf 'Using ssh batch size of 64.\n%b\n' "$answer" ;;
        esac
        """,
    )
    return machine


def answers(machine: Machine, states: list[str], hosts: list[str]) -> None:
    """What gcloud will say; the last answer is repeated."""
    owned = [state if state in ("ABSENT", "BROKEN") or " " in state else f"{state} sst2" for state in states]
    (machine.home / "states").write_text("\n".join(owned) + "\n")
    (machine.home / "hosts").write_text("\n".join(hosts) + "\n")


def host(*states: str) -> str:
    return r"\n".join(f"jaxlm-run w-{number} {state}" for number, state in enumerate(states))


def gcloud(machine: Machine) -> list[list[str]]:
    calls = machine.calls("gcloud")
    assert all(call[:3] == ["compute", "tpus", "queued-resources"] for call in calls)
    return [call[3:] for call in calls]


def steps(machine: Machine) -> list[str]:
    """What was done, in words: create, delete, setup, start; looks are left out."""
    names = []
    for call in gcloud(machine):
        if call[0] in ("create", "delete"):
            names.append(call[0])
        elif call[0] == "ssh":
            names += [word for word in ("setup", "start") if f"tpu_host.sh {word}" in call[-1]]
    return names


def babysit(machine: Machine, *flags: str) -> Result:
    return machine.run("tpu_vm.sh", "babysit", "sst2", *ASK, *flags, "train", "configs/sst2.py")


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [
        ("v2-8", "tpu-ubuntu2204-base"),
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_each_generation_gets_its_image(machine: Machine, accelerator: str, runtime: str) -> None:
    assert machine.run("tpu_vm.sh", "create", "sst2", "--accelerator", accelerator).code == 0
    assert gcloud(machine) == [
        [
            *("create", "sst2", f"--accelerator-type={accelerator}", f"--runtime-version={runtime}"),
            *("--node-id=sst2", "--labels=jaxlm_run=sst2", "--quiet"),
        ]
    ]


def test_slices_reservations_and_further_flags(machine: Machine) -> None:
    flags = ["--zone", "z", "--project", "p", "--accelerator", "v6e-256", "--slices", "4", "--reserved"]
    found = machine.run("tpu_vm.sh", "create", "sst2", *flags, "--runtime", "mine", "--create-flag", "--network=n")
    assert found.code == 0
    assert gcloud(machine) == [
        [
            *("create", "sst2", "--zone=z", "--project=p", "--accelerator-type=v6e-256", "--runtime-version=mine"),
            *("--node-count=4", "--node-prefix=sst2", "--reserved", "--labels=jaxlm_run=sst2", "--network=n"),
            "--quiet",
        ]
    ]


def test_setting_up_sends_the_project_to_every_host(machine: Machine) -> None:
    assert machine.run("tpu_vm.sh", "setup", "sst2", "--zone", "z", "--bucket", "gs://bucket/").code == 0
    (scp, ssh) = gcloud(machine)
    assert [scp[0], *scp[2:]] == ["scp", "sst2:jaxlm.tar.gz", "--zone=z", *HOSTS]
    unpack = "mkdir -p jaxlm && tar -xzf jaxlm.tar.gz -C jaxlm && jaxlm/launch/tpu_host.sh setup bucket"
    assert ssh == ["ssh", "sst2", "--zone=z", *HOSTS, f"--command={unpack}"]
    with tarfile.open(machine.home / "sent.jaxlm.tar.gz") as archive:
        assert {"jaxlm/cli.py", "launch/tpu_host.sh", "pyproject.toml"} <= set(archive.getnames())


def test_running_sends_tokens_in_a_file_that_only_its_owner_reads(machine: Machine) -> None:
    found = machine.run("tpu_vm.sh", "run", "sst2", "train", "configs/sst2.py", "--name", "it's")
    assert found.code == 0
    (scp, ssh) = gcloud(machine)
    assert [scp[0], *scp[2:]] == ["scp", "sst2:.jaxlm_environment", *HOSTS]
    command = (
        r"jaxlm/launch/tpu_host.sh start sst2 train configs/sst2.py --name 'it'\''s' --workdir /mnt/jaxlm/runs/sst2"
    )
    assert ssh == ["ssh", "sst2", *HOSTS, f"--command={command}"]
    assert f"export HF_TOKEN={TOKEN}" in (machine.home / "sent..jaxlm_environment").read_text()
    assert (machine.home / "mode..jaxlm_environment").read_text() == "600\n"
    assert not Path(scp[1]).exists()
    assert TOKEN not in str(gcloud(machine))


@pytest.mark.parametrize("flag", [["--workdir", "/mnt/mine"], ["--workdir=/mnt/mine"]])
def test_a_workdir_that_was_given_is_used(machine: Machine, flag: list[str]) -> None:
    machine.run("tpu_vm.sh", "run", "sst2", "train", "configs/sst2.py", *flag)
    assert gcloud(machine)[-1][-1].endswith(f"start sst2 train configs/sst2.py {' '.join(flag)}")


def test_only_what_create_made_is_deleted(machine: Machine) -> None:
    answers(machine, ["ACTIVE "], [])
    found = machine.run("tpu_vm.sh", "delete", "sst2", "--zone", "z")
    assert (found.code, "not made by this script" in found.err) == (2, True)
    assert [call[0] for call in gcloud(machine)] == ["describe"]
    answers(machine, ["ACTIVE"], [])
    assert machine.run("tpu_vm.sh", "delete", "sst2", "--zone", "z").code == 0
    assert gcloud(machine)[-2:] == [["describe", "sst2", "--zone=z", LOOK], DELETE]
    answers(machine, ["ABSENT"], [])
    gone = machine.run("tpu_vm.sh", "delete", "sst2")
    assert (gone.code, "nothing to delete" in gone.err) == (0, True)


def test_status_says_what_the_machines_and_the_hosts_do(machine: Machine) -> None:
    answers(machine, ["WAITING_FOR_RESOURCES", "ACTIVE", "FAILED", "BROKEN"], [host("running", "exit 75")])
    assert machine.run("tpu_vm.sh", "status", "sst2").out == "sst2 WAITING_FOR_RESOURCES\n"
    active = machine.run("tpu_vm.sh", "status", "sst2").out.splitlines()
    assert active[0] == "sst2 ACTIVE"
    assert active[-2:] == ["jaxlm-run w-0 running", "jaxlm-run w-1 exit 75"]
    assert machine.run("tpu_vm.sh", "status", "sst2").out == "sst2 FAILED\nno capacity in z\n"
    broken = machine.run("tpu_vm.sh", "status", "sst2")
    assert (broken.code, broken.err) == (1, "ERROR: no such project\n")


def test_logs_follow_the_first_host(machine: Machine) -> None:
    machine.run("tpu_vm.sh", "logs", "sst2", "--zone", "z")
    command = "--command=tail -n 100 -F jaxlm-sst2.log"
    assert gcloud(machine) == [["ssh", "sst2", "--zone=z", "--worker=0", "--node=0", "--quiet", command]]


def test_flags_of_connections_reach_ssh_and_scp_alone(machine: Machine) -> None:
    answers(machine, ["ACTIVE"], [host("running")])
    flags = ["--connect-flag", "--tunnel-through-iap", "--connect-flag", "--ssh-key-file=k"]
    for verb, arguments in (("setup", []), ("run", ["train", "configs/sst2.py"]), ("status", []), ("logs", [])):
        assert machine.run("tpu_vm.sh", verb, "sst2", *flags, *arguments).code == 0
    for call in gcloud(machine):
        assert (flags[1::2] == [word for word in call if word in flags]) == (call[0] in ("ssh", "scp"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "sst2", "--accelerator", "v6e-256", "--slices", "2", "--reserved"],
        ["setup", "sst2", "--bucket", "bucket"],
        ["run", "sst2", "train", "configs/sst2.py", "--name", "it's"],
        ["status", "sst2"],
        ["logs", "sst2"],
        ["delete", "sst2"],
    ],
)
def test_a_dry_run_prints_the_very_commands(machine: Machine, arguments: list[str]) -> None:
    answers(machine, ["ACTIVE"], [host("running")])
    shown = machine.run("tpu_vm.sh", *arguments[:2], "--dry-run", *arguments[2:]).out.splitlines()
    assert not machine.calls("gcloud")
    printed = [shlex.split(line) for line in shown if line.startswith("gcloud")]
    machine.run("tpu_vm.sh", *arguments)
    done = [call for call in machine.calls("gcloud") if (arguments[0], call[3]) != ("delete", "describe")]
    for words in (*done, *printed):  # the scratch directory is made where it is used
        words[:] = [Path(word).name if word.startswith("/tmp/") else word for word in words]
    assert [words[1:] for words in printed] == done


def test_babysit_waits_starts_and_gives_the_machines_back(machine: Machine) -> None:
    waiting = ["ABSENT", "CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    answers(machine, waiting, [host("absent", "absent"), host("running", "running"), host("exit 0", "exit 0")])
    found = babysit(machine)
    assert (found.code, steps(machine)) == (0, ["create", "setup", "start", "delete"])
    calls = gcloud(machine)
    assert [call for call in calls if call[0] == "create"] == [CREATE]
    assert calls[-1] == DELETE
    for state in waiting:
        assert f"sst2: {state}" in found.err


def test_a_preempted_run_goes_on_under_its_own_name_on_new_machines(machine: Machine) -> None:
    states = ["ABSENT", *["ACTIVE"] * 2, "SUSPENDING", *["SUSPENDED"] * 2, "ABSENT", "PROVISIONING", "ACTIVE"]
    answers(machine, states, [host("absent"), "UNREACHABLE", host("absent"), host("exit 0")])
    found = babysit(machine, "--failures", "0")
    assert (found.code, steps(machine)) == (
        0,
        ["create", "setup", "start", "delete", "create", "setup", "start", "delete"],
    )
    starts = [call[-1] for call in gcloud(machine) if "tpu_host.sh start" in call[-1]]
    assert (
        starts
        == ["--command=jaxlm/launch/tpu_host.sh start sst2 train configs/sst2.py --workdir /mnt/jaxlm/runs/sst2"] * 2
    )


def test_a_call_of_gcloud_that_fails_is_made_again(machine: Machine) -> None:
    with open(machine.programs / "gcloud", "a", encoding="utf-8") as program:
        program.write(r"""
        case "$4" in create | delete)
          n=$(($(cat "$HOME/$4" 2>/dev/null || echo 0) + 1)); echo "$n" >"$HOME/$4"
          case "$4 $n" in "create 2" | "create 3" | "delete 1" | "delete 3") echo "ERROR: 503" >&2; exit 1 ;; esac
        esac
        """)
    seen = ["ABSENT", "ACTIVE", "SUSPENDED", "SUSPENDED", "SUSPENDED", "SUSPENDED", "ABSENT", "ABSENT", "ABSENT"]
    answers(machine, [*seen, "ACTIVE"], [host("absent"), host("exit 0")])
    assert babysit(machine).code == 0
    made = [call[0] for call in gcloud(machine) if call[0] in ("create", "delete")]
    # The last one of each is that which works.
    assert made == ["create", "delete", "delete", "create", "create", "create", "delete", "delete"]


def test_machines_that_cannot_be_had_at_all_end_it(machine: Machine) -> None:
    with open(machine.programs / "gcloud", "a", encoding="utf-8") as program:
        program.write('[ "$4" != create ] || exit 1\n')
    answers(machine, ["ABSENT"], [])
    assert babysit(machine).code == 1
    assert sum(call[0] == "create" for call in gcloud(machine)) == 1


def test_a_run_that_has_saved_itself_is_started_again_however_often(machine: Machine) -> None:
    answers(
        machine, ["ACTIVE"], [*[host("exit 75", "exit 75"), host("running", "exit 75")] * 5, host("exit 0", "exit 0")]
    )
    found = babysit(machine, "--failures", "0")
    assert (found.code, steps(machine).count("start")) == (0, 5)


def test_a_run_that_fails_again_and_again_is_given_up(machine: Machine) -> None:
    answers(machine, ["ACTIVE"], [host("exit 137", "exit 1")])
    found = babysit(machine, "--failures", "2")
    assert (found.code, steps(machine)) == (137, ["setup", "start", "setup", "start", "delete"])
    assert "tail -n 40 jaxlm-sst2.log" in str(gcloud(machine)[-3])  # the log is shown before it goes


def test_wrong_input_is_not_tried_again(machine: Machine) -> None:
    answers(machine, ["ACTIVE"], [host("exit 2", "exit 2")])
    assert (babysit(machine).code, steps(machine)) == (2, ["delete"])


def test_a_request_that_fails_is_made_again_and_then_given_up(machine: Machine) -> None:
    answers(machine, ["FAILED", "FAILED", "ABSENT", "FAILED"], [])
    found = babysit(machine, "--failures", "1")
    assert (found.code, steps(machine)) == (1, ["delete", "create", "delete"])
    assert "no capacity in z" in found.err


def test_machines_that_cannot_be_reached_are_not_paid_for_for_ever(machine: Machine) -> None:
    answers(machine, ["ACTIVE"], ["UNREACHABLE"])
    found = babysit(machine, "--failures", "1")
    assert (found.code, steps(machine)) == (1, ["delete"])
    assert sum(" state " in call[-1] for call in gcloud(machine)) == 2 * 15
    answers(machine, ["ACTIVE"], [*["UNREACHABLE"] * 14, host("running"), *["UNREACHABLE"] * 14, host("exit 0")])
    assert babysit(machine, "--failures", "0").code == 0


def test_machines_are_kept_where_asked(machine: Machine) -> None:
    answers(machine, ["ACTIVE"], [host("exit 0")])
    assert (babysit(machine, "--keep").code, steps(machine)) == (0, [])


def test_babysit_touches_nothing_of_others_and_needs_an_answer_first(machine: Machine) -> None:
    answers(machine, ["ACTIVE "], [host("exit 0")])
    found = babysit(machine)
    assert (found.code, steps(machine), "choose another name" in found.err) == (2, [], True)
    answers(machine, ["BROKEN"], [])
    assert babysit(machine).code == 1
    answers(machine, ["ACTIVE", "BROKEN", "ACTIVE"], [host("running"), host("exit 0")])
    assert babysit(machine).code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_babysit_that_is_stopped_leaves_the_machines_alone(machine: Machine, number: signal.Signals, code: int) -> None:
    answers(machine, ["WAITING_FOR_RESOURCES"], [])
    sitter = machine.start("tpu_vm.sh", "babysit", "sst2", *ASK[:-1], "60", "train", "configs/sst2.py")
    assert "WAITING_FOR_RESOURCES" in sitter.stderr.readline()
    sitter.send_signal(number)
    assert sitter.wait(10) == code
    assert steps(machine) == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["destroy", "x"], "destroy is none of create"),
        (["create", "My_Run", "--accelerator", "v4-8"], "NAME is 'My_Run'"),
        (["create", "x"], "which TPU? --accelerator"),
        (["create", "x", "--accelerator", "v9-8"], "no image is known here for v9-8"),
        (["create", "x", "--accelerator", "v4-8", "--spot", "--reserved"], "exclude each other"),
        (["create", "x", "--accelerator", "v4-8", "--slices", "two"], "'two' is not a number"),
        (["create", "x", "--accelerator", "v4-8", "--slices", "0"], "--slices is 0"),
        (["create", "x", "--accelerators", "v4-8"], "--accelerators is none of this script's flags"),
        (["create", "x", "--accelerator"], "--accelerator needs a value"),
        (["run", "x"], "what is to be run?"),
        (["status", "x", "now"], "status takes no now"),
        (["setup", "x", "--bucket", "gs://b/folder"], "without a folder"),
        (["babysit", "x", "--accelerator", "v4-8", "train", "c"], "babysit needs --bucket"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_paid_for(machine: Machine, arguments: list[str], error: str) -> None:
    found = machine.run("tpu_vm.sh", *arguments)
    assert (found.code, found.err.count("\n")) == (2, 1)
    assert error in found.err
    assert not machine.calls("gcloud")
