"""A Python that cannot be used is an error; another is not taken in its place."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/false"])
def test_a_python_that_was_named_is_used_or_refused(tmp_path: Path, python: str) -> None:
    environment = os.environ | {"PYTHON": python, "JAXLM_VENV": str(tmp_path / "venv"), "JAXLM_PLATFORM": "cpu"}
    command = ["bash", str(ROOT / "launch" / "local.sh"), "env"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert f"{python} is none" in found.stderr
    assert not (tmp_path / "venv").exists()
