"""The array job says the right command for each of its tasks, and what is wrong before anything runs."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = ["configs/pretrain_tiny.py", "--data.train", "books/*.txt", "--output", "out"]


def submit(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "JAXLM_"))}
    command = ["bash", str(ROOT / "launch" / "prepare.sbatch"), *arguments]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True, check=False)


def task(number: int, first: int, count: int) -> dict[str, str]:
    values = {"ID": number, "MIN": first, "MAX": first + count - 1, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder that has the launcher and an environment."""
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "local.sh").symlink_to(ROOT / "launch" / "local.sh")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/bin/true")
    return tmp_path


@pytest.mark.parametrize(("number", "first", "shard"), [(0, 0, "0/4"), (3, 0, "3/4"), (7, 5, "2/4")])
def test_each_task_does_its_share(project: Path, number: int, first: int, shard: str) -> None:
    elsewhere = submit(Path("/"), "--dry-run", *CONFIG, SLURM_SUBMIT_DIR=str(project), **task(number, first, 4))
    assert elsewhere.stdout.split() == ["./launch/local.sh", "prepare", *CONFIG, "--shard", shard]
    assert elsewhere.returncode == 0


def test_what_is_wrong_is_said_at_once(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "sbatch --array" in submit(project, *CONFIG).stderr
    stepped = task(2, 0, 4) | {"SLURM_ARRAY_TASK_COUNT": "2"}
    assert "without a step" in submit(project, *CONFIG, **stepped).stderr
    assert "no launch/local.sh" in submit(tmp_path_factory.mktemp("other"), *CONFIG, **task(0, 0, 2)).stderr
    (project / ".venv" / "bin" / "python").unlink()
    found = submit(project, *CONFIG, **task(0, 0, 2))
    assert "local.sh env first" in found.stderr
    assert found.returncode == 2
    assert "every n-th part" in submit(project, "--help").stdout
