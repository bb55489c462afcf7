"""What a person sees: named phases, a bar on a terminal, plain lines in a pipe. Only process 0 speaks."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

_HEARTBEAT_S = 15.0


class Console:
    """Writes to a stream; on a terminal the last line may be rewritten, elsewhere every line is plain and final."""

    def __init__(self, stream: TextIO | None = None, *, speaks: bool = True):
        self._stream = stream or sys.stdout
        self._speaks = speaks
        self.live = self._stream.isatty()
        self._lock = threading.Lock()
        self._pending = 0  # characters of the line that may be rewritten

    def say(self, text: str = "") -> None:
        """A line that stays."""
        self._write(text, final=True)

    def update(self, text: str) -> None:
        """A line that the next one replaces; only on a terminal."""
        if self.live:
            self._write(text, final=False)

    def _write(self, text: str, *, final: bool) -> None:
        if not self._speaks:
            return
        with self._lock:
            clear = "\r" + " " * self._pending + "\r" if self._pending else ""
            self._pending = 0 if final else len(text)
            try:
                self._stream.write(clear + text + ("\n" if final else ""))
                self._stream.flush()
            except BrokenPipeError:  # what is done matters more than what is said of it
                nobody_reads(self._stream)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Names what is being done and, at the end, how long it took; a long phase shows that it lives.

        Yields a list: what is appended to it is said in the closing line.
        """
        start, done = time.perf_counter(), threading.Event()
        remarks: list[str] = []

        def beat() -> None:
            while not done.wait(0.5 if self.live else _HEARTBEAT_S):
                line = f"{name} ... {time.perf_counter() - start:.0f} s"
                self.update(line) if self.live else self.say(line)

        self.update(f"{name} ...")
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield remarks
        finally:
            done.set()
            thread.join()
        self.say(f"{name}: " + ", ".join([*remarks, f"{time.perf_counter() - start:.1f} s"]))

    def progress(self, name: str, step: int, steps: int, facts: str, seconds_left: float) -> None:
        """The bar of a loop."""
        done = round(20 * step / max(steps, 1))
        bar = "#" * done + "." * (20 - done)
        self.update(f"{name} [{bar}] {step}/{steps}  {facts}  {duration(seconds_left)} left")


def nobody_reads(stream: TextIO) -> None:
    """Lets what is written from now on, and what is buffered, vanish: the reader of the pipe has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class ConsoleHandler(logging.Handler):
    """Sends the package's log messages through a console, so that they do not cut its bar in two."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._console.say(prefix + record.getMessage())


def log_to(console: Console) -> None:
    """Sends what the package logs, information too, to a console and nowhere else."""
    logger = logging.getLogger("jaxlm")
    logger.handlers = [ConsoleHandler(console)]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def duration(seconds: float) -> str:
    """`1:02:03`, or `2:03` below an hour."""
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
