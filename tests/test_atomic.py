import os
from pathlib import Path

import pytest

from jaxlm.atomic import no_space_told, write_atomically
from jaxlm.errors import RunFailed


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", "old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(28, FULL), ValueError(f"RESOURCE_EXHAUSTED: Error writing: {FULL}")])
def test_a_full_disk_is_told_in_a_line_and_other_errors_stay(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(RunFailed, match=r"no space is left where .* the same command goes on"), no_space_told(tmp_path):
        raise error
    with pytest.raises(ValueError, match="something else"), no_space_told(tmp_path):
        raise ValueError("something else")
