"""Programs that the launchers call, replaced by fakes on PATH that write down their arguments."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "hf_do_not_show_me"


class Machine:
    """A home directory, fakes that come first on PATH, and what was called."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.programs = home / "programs"
        self.calls_directory = home / "calls"
        self.programs.mkdir()
        self.calls_directory.mkdir()
        own = ("GLIBC_", "JAXLM_", "SLURM_", "SKYPILOT_", "JAX_", "XLA_", "HF_", "LIBTPU_", "TPU_", "CLOUDSDK_")
        own += ("PYTHON",)  # which also chooses local.sh's
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | {
            "HOME": str(home),
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HF_TOKEN": TOKEN,
        }
        self.started: list[subprocess.Popen[str]] = []

    def fake(self, name: str, body: str = "") -> None:
        """Puts a program on PATH: it notes its arguments, then runs `body` (bash)."""
        # One write a call: several may be made at the same time.
        note = f"""call=$(printf '%s\\x1f' "$@"; printf '\\x1e'); printf %s "$call" >>{self.calls_directory}/{name}"""
        (self.programs / name).write_text(f"#!/usr/bin/env bash\n{note}\n{body}\n")
        (self.programs / name).chmod(0o755)

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call of a fake, in order."""
        path = self.calls_directory / name
        noted = path.read_text() if path.exists() else ""
        return [call.split("\x1f")[:-1] for call in noted.split("\x1e")[:-1]]

    def start(self, script: str | Path, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen:
        # Hang-ups are heard as in a terminal, though the tests run under nohup: bash cannot trap what it found ignored.
        command = ["env", "--default-signal=HUP", "bash", str(ROOT / "launch" / script), *arguments]
        process = subprocess.Popen(
            command,
            cwd=cwd or self.home,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, script: str | Path, *arguments: str, cwd: Path | None = None, **variables: str) -> "Result":
        process = self.start(script, *arguments, cwd=cwd, **variables)
        out, err = process.communicate(timeout=30)
        return Result(process.returncode, out, err)

    def wait_for(self, *paths: Path) -> None:
        deadline = time.monotonic() + 10
        while not all(path.exists() for path in paths):
            assert time.monotonic() < deadline, [str(path) for path in paths if not path.exists()]
            time.sleep(0.01)


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert TOKEN not in out + err


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    # A shell's background job ignores SIGINT, and so does all that it starts; the tests may be one. What has a handler
    # here has the default action in a new program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    result = Machine(tmp_path)
    yield result
    signal.signal(signal.SIGINT, before)
    for process in result.started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def project(machine: Machine) -> Callable[[Path, str], Path]:
    """Makes a copy of this project's launchers, with a Python that does `body` (bash) where it is to run jaxlm."""

    def make(folder: Path, body: str) -> Path:
        (folder / ".venv" / "bin").mkdir(parents=True)
        (folder / "launch").mkdir()
        for script in (ROOT / "launch").glob("*.sh"):
            shutil.copy(script, folder / "launch")
        for name in ("requirements.txt", "pyproject.toml"):
            (folder / name).touch()
        for part in ("base", "cuda", "tpu"):
            (folder / ".venv" / f".installed-{part}").write_text("hash\n")
        python = folder / ".venv" / "bin" / "python"
        python.write_text(PYTHON + body)
        python.chmod(0o755)
        return folder

    return make


# Answers local.sh, which asks for a hash and calls pip; what it does for `-m jaxlm` follows.
PYTHON = """#!/usr/bin/env bash
case "$2" in
  jaxlm) ;;
  *) [ "$1" != -c ] || cat >/dev/null; echo hash; exit ;;
esac
"""

# Waits for SIGTERM, and ends as a run does that has saved itself.
WAIT_FOR_SIGTERM = """
trap 'echo saved >"$HOME/saved.${JAXLM_PROCESS_ID:-0}"; exit 75' TERM
touch "$HOME/ready.${JAXLM_PROCESS_ID:-0}"
while :; do sleep 0.02; done
"""
