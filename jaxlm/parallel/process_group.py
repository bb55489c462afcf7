"""The processes of a run as a group: they come together, agree, stop at the same step, and leave together.

Process 0 listens (`jaxlm.parallel.hub`), and every process, itself too, holds a connection to it. An operating system
closes the connections of a process that dies, whatever it died of, so that all others know at once; of a host that
vanishes, TCP's keep-alive tells. JAX's heartbeats notice later, and end a process by abort(), which leaves no chance to
say a clear word (a Python callback for them ends in std::bad_cast, jaxlib 0.10.2). Nothing here needs jax: the group is
formed before it is imported, and what goes wrong on one host from then on is told to all.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxlm.errors import UserError
from jaxlm.parallel.hub import DEATH, PAST, Hub, Line

_LEAVE_S = 10  # process 0 waits so long for the others to be gone


class Stop(NamedTuple):
    """What was agreed: the run stops at that call of `Member.reached`, or, where `step` is None, at its loop's end."""

    step: int | None
    signal: int


class Member:
    """A process's place in its group. Its thread hears what is decided, and ends the process when all are to leave.

    Args:
      host, port: where process 0 listens.
      processes, process: how many there are, and which one this is.
      wait_s: how long the others are waited for.
      hub: where this is process 0.
      end: ends this process with an exit code.

    Raises:
      UserError: the group does not come together.
    """

    def __init__(
        self, host: str, port: int, processes: int, process: int, wait_s: float, *, hub: Hub | None = None,
        end: Callable[[int], Any] = os._exit,
    ):  # fmt: skip
        self.processes, self.process = processes, process
        self._hub, self._end = hub, end
        self._changed = threading.Condition()
        self._met: dict[str, Any] | None = None
        self._step: int | str | None = None  # the last call of `reached`; None outside of a loop
        self._asked = self._asked_before_met = False
        self._stop: Stop | None = None
        self._failure: str | None = None  # of this very process
        self._over = False
        self._line = self._connect(host, port, time.monotonic() + wait_s)
        answer, *early = self._joined(f"{host}:{port}", wait_s)
        self._first = f"process 0 of {processes} ({answer['joined']})"
        self._thread = threading.Thread(target=self._listen, args=[early], name="jaxlm member", daemon=True)
        self._thread.start()

    def _connect(self, host: str, port: int, until: float) -> Line:
        while True:
            try:
                return Line(socket.create_connection((host, port), timeout=5))
            except OSError as error:
                if time.monotonic() > until:
                    raise UserError(
                        f"process {self.process} of {self.processes} cannot reach process 0 at {host}:{port}: {error}; "
                        "is it running, and does its host let this one in?"
                    ) from None
                time.sleep(0.2)

    def _joined(self, where: str, wait_s: float) -> list[dict[str, Any]]:
        """What the hub says when all have come, and what it said right after."""
        self._line.socket.settimeout(
            wait_s + 30
        )  # the hub, which waits too, is to have the last word on who is missing
        self._line.send(join=self.process, of=self.processes, host=socket.gethostname(), pid=os.getpid())
        messages: list[dict[str, Any]] = []
        try:
            while not messages:
                messages = self._line.receive()
        except (EOFError, TimeoutError, ValueError):
            raise UserError(f"what listens at {where} is not process 0 of this run, or it has ended") from None
        if "joined" not in messages[0]:
            why = messages[0].get("refused", messages[0].get("why"))
            raise UserError(f"process {self.process} of {self.processes}, process 0 being {where}: {why}")
        self._line.socket.settimeout(None)
        return messages

    def meet(self, name: str, value: Any = None, *, alike: bool = False) -> Any:
        """Waits until every process has come to this line; returns the value of process 0.

        Args:
          name: of what is to be agreed on, for messages.
          value: JSON.
          alike: whether all must have the same.

        Raises:
          UserError: a value is not that of process 0.
        """
        with self._changed:
            self._met = None
            self._line.send(meet=name, value=value, alike=alike)
            self._changed.wait_for(lambda: self._met is not None)
            found: Any = self._met
        if found["odd"] is not None:
            who, other_name, other = found["odd"]
            if other_name != found["met"]:
                raise UserError(f"{who} is at '{other_name}', process 0 at '{found['met']}': not the same command?")
            first = found["value"]
            if isinstance(first, dict) and isinstance(other, dict):
                differing = [key for key in first | other if first.get(key) != other.get(key)]
                first, other = ({key: values.get(key) for key in differing} for values in (first, other))
            raise UserError(f"{name} of {who}: {_short(other)}; of process 0: {_short(first)}")
        return found["value"]

    def request_stop(self, signal_number: int) -> None:
        """Asks all to stop at the same step; where nobody trains, all leave at once."""
        self._line.send(signal=signal_number)

    def reached(self, step: int) -> Stop | None:
        """To be called where the loop can stop, `step` being 0, 1, 2 ...; returns what was agreed when it is time to.

        All processes come to the same places, one of them perhaps later than another.
        """
        with self._changed:
            self._step = step
            self._changed.wait_for(lambda: not self._asked or self._stop is not None)
            stop = self._stop
            return stop if stop is not None and stop.step is not None and step >= stop.step else None

    def past_the_loop(self) -> Stop | None:
        """To be called after the loop; waits for all, and returns what was agreed, if a stop was asked for by then.

        The hub's messages come in one order to all: either each hears of the request before the meeting's end, or none
        does, and a later request finds nobody in a loop.
        """
        with self._changed:
            self._step = PAST
        self.meet("the end of the loop")
        with self._changed:
            self._changed.wait_for(lambda: not self._asked_before_met or self._stop is not None)
            return self._stop if self._asked_before_met else None

    def outside(self) -> None:
        """From here on, or up to the next loop, nothing is lost by leaving at once."""
        with self._changed:
            self._step = None

    def fail(self, code: int, text: str) -> None:
        """Tells all that this process has failed; all leave with `code`."""
        with self._changed:
            self._failure = text
        self._line.send(failed=text, code=code)
        self._thread.join(3 * _LEAVE_S)
        self._end(code)

    def close(self) -> None:
        """Leaves together with all others, in peace."""
        self.meet("end")
        self._over = True
        self._line.send(bye=True)
        if self._hub is not None:
            self._hub.ended.wait(_LEAVE_S)
        self._line.socket.close()

    def _listen(self, messages: list[dict[str, Any]]) -> None:
        try:
            while not any(self._heed(message) for message in messages):
                messages = self._line.receive()
        except (EOFError, ValueError):
            if not self._over:
                self._leave(1, f"{self._first} {DEATH}")

    def _heed(self, message: dict[str, Any]) -> bool:
        """Does what the hub says; True where that is to leave."""
        with self._changed:
            if "met" in message:
                self._met = message
                self._asked_before_met = self._asked
                if self._step == PAST:  # all are, so that none is in a loop
                    self._step = None
            elif "where" in message:
                self._asked = True
                self._line.send(step=self._step)
            elif "stop_at" in message:
                self._stop = Stop(message["stop_at"], message["signal"])
            self._changed.notify_all()
        if "leave" not in message:
            return False
        if self._failure is None:
            self._leave(message["leave"], message["why"])
        else:
            self._leave(message["leave"], "" if message["common"] and self.process else self._failure)
        return True

    def _leave(self, code: int, why: str) -> None:
        """Ends this process; process 0, where JAX's coordination has its home too, after all others."""
        self._over = True
        for stream, text in ((sys.stdout, ""), (sys.stderr, why)):
            with contextlib.suppress(OSError):  # nobody may be reading
                stream.write(text and f"{'' if text.startswith('stopped') else 'error: '}{text}\n")
                stream.flush()
        with contextlib.suppress(OSError):  # process 0 may be gone
            self._line.socket.shutdown(socket.SHUT_RDWR)
        if self._hub is not None:
            self._hub.ended.wait(_LEAVE_S)
        self._end(code)


def _short(value: Any, most: int = 300) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
