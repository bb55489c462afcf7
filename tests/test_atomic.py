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


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for content in ("new", "newer"):
        write_atomically(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "elsewhere" / "file").read_text() == content
    assert len(list(tmp_path.rglob("*"))) == 3


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(tmp_path / "pipe", "through")
    assert (os.read(reader, 100), (tmp_path / "pipe").is_fifo()) == (b"through", True)
    os.close(reader)


def test_a_new_file_has_the_users_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "new")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    (tmp_path / "file").chmod(0o600)
    write_atomically(tmp_path / "file", "newer")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(28, FULL), ValueError(f"RESOURCE_EXHAUSTED: Error writing: {FULL}")])
def test_a_full_disk_is_told_in_a_line_and_other_errors_stay(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(RunFailed, match=r"no space is left where .* the same command goes on"), no_space_told(tmp_path):
        raise error
    with pytest.raises(ValueError, match="something else"), no_space_told(tmp_path):
        raise ValueError("something else")
