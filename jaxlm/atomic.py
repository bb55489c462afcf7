"""Files that are there whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxlm.errors import RunFailed


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextlib.contextmanager
def no_space_told(directory: Path) -> Iterator[None]:
    """Says in a line that a disk is full; array_record and orbax wrap the system's error in their own.

    Raises:
      RunFailed: what is written in `directory` does not fit.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise RunFailed(f"no space is left where {directory} lies; the same command goes on when there is") from None
