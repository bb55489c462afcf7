"""Being asked to stop: a step is never cut in two, and several processes stop after the same one."""

import signal
from types import FrameType

from jaxlm.parallel import distributed
from jaxlm.parallel.process_group import Stop


class Interrupted(Exception):
    """The run was asked to stop and has saved itself; `signal_number` says by what."""

    def __init__(self, signal_number: int, step: int):
        super().__init__(f"stopped at step {step} by {signal.Signals(signal_number).name}; the same command goes on")
        self.signal_number = signal_number


class StopRequest:
    """Remembers SIGTERM and SIGINT while a loop runs; a second SIGINT ends at once.

    In a run of several processes, a signal to one of them stops all, at a call of `reached` on which they agree in the
    background: it waits only once, for the answer, when a stop has been asked for.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._asked = False
        self._calls = -1
        self._group = distributed.member()

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number

    def reached(self) -> int | None:
        """Whether the run stops here: the signal that asked for it. All processes call this at the same places."""
        self._calls += 1
        return self._agreed(self._calls)

    def past_the_loop(self) -> int | None:
        """The signal that came too late to stop the loop, if one did; all processes call this once."""
        return self._agreed(None)

    def _agreed(self, call: int | None) -> int | None:
        if self._group is None:
            return self._received
        if self._received is not None and not self._asked:
            self._asked = True
            self._group.request_stop(self._received)
        stop: Stop | None = self._group.past_the_loop() if call is None else self._group.reached(call)
        return None if stop is None else stop.signal

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._group is not None:
            self._group.outside()
