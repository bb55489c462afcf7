"""What process 0 does for a group of processes; see `jaxlm.parallel.process_group`.

Messages are lines of JSON. What a hub hears, and what it answers, to all:

    join, of, host, pid      joined, or refused
    meet, value, alike       met, when all have come to it: the value of process 0, and the first one that is another
    signal                   where; each answers with its `step`; then stop_at, or leave
    failed, code             leave: the exit code, and why
    bye                      nothing: the connection may end now
"""

import contextlib
import json
import math
import selectors
import signal
import socket
import threading
import time
from typing import Any

from jaxlm.errors import UserError

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on
PAST = "past"  # a member's step after its loop
DEATH = "died: it was killed, ran out of memory or crashed, or its host is gone"
_GATHER_S = 1.0  # what fails on all processes alike, such as a file that is not there, is waited for and told once
_LONGEST = 1 << 24  # bytes of a message


class Line:
    """A connection that carries JSON, a line a message."""

    def __init__(self, connection: socket.socket):
        self.socket, self._received = connection, b""
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # A host that is gone is noticed after 10 + 4 x 5 s. (macOS lacks some of these; its defaults stand there.)
        times = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}
        for name, value in times.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, **message: Any) -> None:
        """Sends, if anybody is still there; whoever is not is noticed by reading."""
        with self._sending, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Waits for the next part of what is sent; returns the messages that are whole.

        Raises:
          EOFError: the connection has ended.
          ValueError: what comes is no message.
          TimeoutError: the socket's own timeout has passed.
        """
        try:
            part = self.socket.recv(1 << 16)
        except TimeoutError:
            if self.socket.gettimeout() is not None:
                raise
            part = b""  # the other host does not answer any more
        except OSError:
            part = b""
        if not part:
            raise EOFError
        *lines, self._received = (self._received + part).split(b"\n")
        messages = [json.loads(line) for line in lines]
        if len(self._received) > _LONGEST or not all(isinstance(message, dict) for message in messages):
            raise ValueError("no message of a process group")
        return messages


class Hub(threading.Thread):
    """Listens to the members of a group, itself in process 0, until all have left.

    Args:
      port: to listen on; 0 for any.
      processes: how many are to come.
      wait_s: how long they are waited for.

    Raises:
      UserError: the port is in use.
    """

    def __init__(self, port: int, processes: int, wait_s: float):
        super().__init__(name="jaxlm hub", daemon=True)
        self._processes = processes
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            self._server = socket.create_server(("", port), family=family, backlog=1024, dualstack_ipv6=both)
        except OSError as error:
            raise UserError(f"process 0 cannot listen on port {port}: {error.strerror}; choose another one") from None
        self.port: int = self._server.getsockname()[1]
        self.ended = threading.Event()  # all have left
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._wait_until = time.monotonic() + wait_s
        self._members: dict[int, Line] = {}
        self._names: dict[int, str] = {}
        self._present: set[int] = set()
        self._met: dict[int, dict[str, Any]] = {}
        self._asked: dict[str, Any] | None = None  # the first request to stop
        self._steps: dict[int, Any] = {}  # the answers to it
        self._failures: dict[int, dict[str, Any]] = {}
        self._tell_at = math.inf
        self._leaving = False

    def run(self) -> None:
        try:
            self._serve()
        finally:  # were there a mistake in here, all would see the end of their connections
            self._server.close()
            for line in self._members.values():
                line.socket.close()
            self.ended.set()

    def _serve(self) -> None:
        while self._present or len(self._members) < self._processes:
            if len(self._members) < self._processes and time.monotonic() > self._wait_until:
                absent = [number for number in range(self._processes) if number not in self._members]
                self._tell(refused=f"{_listing(absent)} of {self._processes} did not come; started, and able to reach "
                           "process 0?")  # fmt: skip
                break
            if time.monotonic() >= self._tell_at:
                self._tell_failures()
            for key, _ in self._selector.select(timeout=0.2):
                self._accept() if key.data is None else self._hear(key.data)

    def _tell(self, **message: Any) -> None:
        for line in self._members.values():
            line.send(**message)

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        self._selector.register(connection, selectors.EVENT_READ, data=[Line(connection), None])

    def _hear(self, who: list[Any]) -> None:
        line, number = who
        try:
            for message in line.receive():
                if who[1] is not None:
                    self._answer(who[1], message)
                else:
                    who[1] = self._join(line, message)
        except (EOFError, ValueError, KeyError):  # the last two: not one of us
            self._selector.unregister(line.socket)
            line.socket.close()
            if number in self._present:
                self._present.remove(number)
                self._leave(1, f"{self._called(number)} {DEATH}")

    def _join(self, line: Line, message: dict[str, Any]) -> int | None:
        number, of, host, pid = (message[key] for key in ("join", "of", "host", "pid"))
        if of != self._processes:
            line.send(refused=f"process 0 is one of {self._processes} processes, and this is one of {of}")
            return None
        if number in self._members:
            line.send(refused=f"there are two processes {number}, on {self._names[number]} and on {host}, pid {pid}")
            return None
        self._members[number], self._names[number] = line, f"{host}, pid {pid}"
        self._present.add(number)
        if len(self._members) == self._processes:
            self._tell(joined=self._names[0])
        return int(number)

    def _called(self, number: int) -> str:
        return f"process {number} of {self._processes} ({self._names[number]})"

    def _answer(self, number: int, message: dict[str, Any]) -> None:
        if "meet" in message:
            self._met[number] = message
            if len(self._met) == self._processes:
                self._end_meeting()
        elif "signal" in message and self._asked is None:
            self._asked = message | {"by": number}
            self._tell(where=message["signal"])
        elif "step" in message:
            self._steps[number] = message["step"]
            if len(self._steps) == self._processes:
                self._decide_stop()
        elif "failed" in message:
            self._failures[number] = message
            self._tell_at = min(self._tell_at, time.monotonic() + _GATHER_S)
            if len(self._failures) == self._processes:
                self._tell_failures()
        elif "bye" in message:
            self._present.discard(number)

    def _end_meeting(self) -> None:
        first, odd = self._met[0], None
        for number in range(1, self._processes):
            other = self._met[number]
            if other["meet"] != first["meet"] or (first["alike"] and other["value"] != first["value"]):
                odd = [self._called(number), other["meet"], other["value"]]
                break
        self._met.clear()
        self._tell(met=first["meet"], value=first["value"], odd=odd)

    def _decide_stop(self) -> None:
        """A step that nobody has gone past: a member that has said where it is may dispatch one step more before it
        waits for the answer, and those before their loop will come to that step."""
        assert self._asked is not None
        steps = [math.inf if step == PAST else -1 if step is None else step for step in self._steps.values()]
        number, name = self._asked["signal"], signal.Signals(self._asked["signal"]).name
        if all(step in (-1, math.inf) for step in steps):
            code = PREEMPTED if number == signal.SIGTERM else 128 + number
            self._leave(code, f"stopped by {name} at {self._called(self._asked['by'])}; the same command goes on")
        else:
            last = max(steps) + 1
            self._tell(stop_at=None if last == math.inf else int(last), signal=number)

    def _tell_failures(self) -> None:
        number, first = next(iter(self._failures.items()))
        common = len(self._failures) == self._processes and len({f["failed"] for f in self._failures.values()}) == 1
        self._leave(first["code"], f"{self._called(number)} failed: {first['failed']}", common)

    def _leave(self, code: int, why: str, common: bool = False) -> None:
        self._tell_at = math.inf
        if not self._leaving:
            self._leaving = True
            self._tell(leave=code, why=why, common=common)


def _listing(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    return f"process{'es' if len(numbers) > 1 else ''} {shown}"
