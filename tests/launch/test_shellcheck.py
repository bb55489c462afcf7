"""Every shell script passes shellcheck, together with what it sources."""

import subprocess
import sysconfig
from pathlib import Path

from tests.launch.conftest import ROOT

SOURCED = {"env.sh", "babysit.sh"}  # checked where they are sourced


def shellcheck(*scripts: Path) -> str:
    program = Path(sysconfig.get_path("scripts")) / "shellcheck"
    command = [str(program), "--external-sources", "--check-sourced", *map(str, scripts)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_every_script_is_clean() -> None:
    scripts = [path for path in sorted((ROOT / "launch").glob("*.s[hb]*")) if path.name not in SOURCED]
    assert len(scripts) >= 7
    assert shellcheck(*scripts, ROOT / ".ci" / "run") == ""


def test_a_script_that_is_not_clean_is_found(tmp_path: Path) -> None:
    script = tmp_path / "unquoted.sh"
    script.write_text("#!/usr/bin/env bash\nrm -rf $1\n")
    assert "SC2086" in shellcheck(script)
