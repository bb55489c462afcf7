"""Files that are there whole or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from jaxlm.errors import RunFailed


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file so that a reader, or a crash, sees the old content or the new, never a part.

    Of a link, the file that it points to is replaced; what is no file (a pipe, /dev/stdout) is written into.
    """
    content = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
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
