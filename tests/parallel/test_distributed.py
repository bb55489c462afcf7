"""Runs of several processes on this machine, by the command line."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaxlm import cli

STEPS = 14
PRESET = """
from jaxlm.config import Config, DataSettings, ModelSettings, OptimSettings, TrainSettings
config = Config(
    model=ModelSettings(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32),
    data=DataSettings(train={train!r}, dev={dev!r}, tokenizer={tokenizer!r}, max_length=32),
    train=TrainSettings(
        steps={steps}, batch_size=16, eval_every=5, eval_batch_size=16, checkpoint_every=2, log_every=1
    ),
    optim=OptimSettings(learning_rate=0.05),
)
"""
# The command line, with a note of what of each batch comes to this process's devices, and what it is whole.
OBSERVED = """
import json, sys
from jaxlm import cli
from jaxlm.parallel import mesh

put = mesh.put_batch
seen = open(sys.argv[1], "w")

def observed(batch, devices):
    arrays = put(batch, devices)
    here = {name: sum(len(shard.data) for shard in array.addressable_shards) for name, array in arrays.items()}
    seen.write(json.dumps({name: [len(batch[name]), here[name], len(array)] for name, array in arrays.items()}) + "\\n")
    seen.flush()
    return arrays

mesh.put_batch = observed
sys.exit(cli.main(sys.argv[2:]))
"""


class Processes:
    """One command in several processes, as a launcher starts them."""

    def __init__(self, folder: Path, *commands: list[str]):
        folder.mkdir()
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
        environment = os.environ | {
            # Compiling is most of what these runs do, and each process does it anew.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1 --xla_backend_optimization_level=0",
            "JAXLM_COORDINATOR": f"127.0.0.1:{port}",
            "JAXLM_NUM_PROCESSES": str(len(commands)),
        }
        self.logs = [folder / f"{number}.log" for number in range(len(commands))]
        self.running: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(commands):
            own = environment | {"JAXLM_PROCESS_ID": str(number)}
            with open(self.logs[number], "w") as log:
                started = subprocess.Popen([sys.executable, *command], stdout=log, stderr=subprocess.STDOUT, env=own)
            self.running.append(started)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < until, self.said(0)
            assert all(process.poll() is None for process in self.running), [self.said(n) for n in (0, 1)]
            time.sleep(0.02)

    def codes(self, timeout: float = 180) -> list[int]:
        until = time.monotonic() + timeout
        try:
            return [process.wait(max(until - time.monotonic(), 0.1)) for process in self.running]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"they hang: {[self.said(n) for n in range(len(self.logs))]}") from None

    def said(self, number: int) -> str:
        return self.logs[number].read_text()

    def stop(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Processes]]:
    started: list[Processes] = []

    def launch(*commands: list[str]) -> Processes:
        started.append(Processes(tmp_path / f"start{len(started)}", *commands))
        return started[-1]

    yield launch
    for processes in started:
        processes.stop()


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, sentences: dict[str, Path]) -> Path:
    path = tmp_path_factory.mktemp("preset") / "preset.py"
    files = {split: str(file) for split, file in sentences.items()}
    path.write_text(PRESET.format(tokenizer=str(tiny_model), steps=STEPS, train=files["train"], dev=files["dev"]))
    return path


def curve(workdir: Path) -> list[tuple[int, str, float]]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["split"], row["loss"]) for row in rows]


def logged(workdir: Path) -> int:
    with contextlib.suppress(FileNotFoundError, IndexError):
        return curve(workdir)[-1][0]
    return 0


def checkpoints(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def test_a_run_that_loses_a_process_is_preempted_and_resumed_by_others_equals_one_of_a_single_process(
    preset: Path, sentences: dict[str, Path], tmp_path: Path, start: Callable[..., Processes]
) -> None:
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    assert cli.main(["train", str(preset), "--workdir", str(whole), "--mesh.devices", "1"]) == 0
    command = ["-m", "jaxlm", "train", str(preset), "--workdir", str(workdir)]

    four = start(*[command] * 4)
    four.wait_for(lambda: bool(checkpoints(workdir)))
    victim = four.running[2]
    victim.send_signal(signal.SIGKILL)
    assert four.codes(timeout=10) == [1, 1, -signal.SIGKILL, 1]
    for number in (0, 1, 3):
        last = four.said(number).splitlines()[-1]
        assert last.startswith(f"error: process 2 of 4 ({socket.gethostname()}, pid {victim.pid}) died: ")
    assert "4 processes (JAXLM_* variables) of 1 device(s) and 4 examples a step each" in four.said(0)
    assert "step 1/" not in four.said(1), "only process 0 speaks"

    two = start(*[command] * 2)
    two.wait_for(lambda: logged(workdir) > 5)
    two.running[1].send_signal(signal.SIGTERM)
    assert two.codes(timeout=60) == [75, 75]
    assert f"stopped at step {checkpoints(workdir)[-1]} by SIGTERM; the same command goes on" in two.said(0)
    assert not (workdir / "model").exists()

    observed = [["-c", OBSERVED, str(tmp_path / f"seen{number}"), *command[2:]] for number in range(2)]
    last_two = start(*observed)
    assert last_two.codes() == [0, 0], last_two.said(0) + last_two.said(1)
    assert "restoring step" in last_two.said(0)
    for ours, theirs in zip(curve(workdir), curve(whole), strict=True):
        assert ours[:2] == theirs[:2]
        assert ours[2] == pytest.approx(theirs[2], rel=2e-4)
    ours, theirs = (json.loads((path / "summary.json").read_text())["dev"] for path in (workdir, whole))
    assert ours["confusion"] == theirs["confusion"]  # of 41 examples, 16 at once
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)
    assert {path.name for path in (workdir / "model").iterdir()} == {path.name for path in (whole / "model").iterdir()}
    for number in range(2):
        rows = [json.loads(line) for line in (tmp_path / f"seen{number}").read_text().splitlines()]
        assert rows
        for batch in rows:
            for made, here, all_rows in batch.values():
                assert made == here == all_rows / 2

    check_evaluation(workdir, sentences["test"], tmp_path, start)


def check_evaluation(workdir: Path, test: Path, tmp_path: Path, start: Callable[..., Processes]) -> None:
    """Two processes evaluate each of 30 examples once, 7 at once, and say so once."""
    command = ["evaluate", str(workdir / "model"), "--data.test", str(test), "--batch_size", "7"]
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    assert cli.main([*command, "--mesh.devices", "1", "--output", str(alone)]) == 0
    two = start(*[["-m", "jaxlm", *command, "--output", str(together)]] * 2)
    assert two.codes() == [0, 0], two.said(0) + two.said(1)
    ours, theirs = (json.loads(path.read_text()) for path in (together, alone))
    assert ours["confusion"] == theirs["confusion"]
    assert sum(map(sum, ours["confusion"])) == 30
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert "accuracy: " in two.said(0)
    assert "accuracy: " not in two.said(1)


def test_a_file_that_one_host_lacks_ends_all_at_once(
    preset: Path, tmp_path: Path, start: Callable[..., Processes]
) -> None:
    command = ["-m", "jaxlm", "train", str(preset), "--workdir", str(tmp_path / "run")]
    absent = str(tmp_path / "absent.tsv")
    two = start(command, [*command, "--data.dev", absent])
    assert two.codes(timeout=60) == [2, 2]
    assert two.said(1) == f"error: --data.dev {absent}: no such file, nor a directory that prepare wrote\n"
    assert two.said(0).startswith(
        f"error: process 1 of 2 ({socket.gethostname()}, pid {two.running[1].pid}) failed: --"
    )
    assert not (tmp_path / "run").exists()
