"""One run in several processes: finding the others, starting JAX together, agreeing, leaving together.

All of it does nothing in a run of one process, so that its callers need not ask. `join` comes before jax is imported
and `start` before its first device; what only one process can get wrong, such as a file that one host lacks, belongs
after `join`, from where on an error of one ends the run on all.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.config import MeshSettings
from jaxlm.parallel.cluster import WAIT_S, Cluster, find_cluster
from jaxlm.parallel.hub import PREEMPTED, Hub
from jaxlm.parallel.process_group import Member

_HEARTBEAT_S = 60  # a process that is there but frozen: JAX's runtime then ends all others
_VERDICT_S = 15  # an error that a dead process caused may be seen before its death is
_VISIBLE_S = 70  # NFS clients believe for up to a minute that a file is not there

_cluster = Cluster("one process")
_member: Member | None = None
_until_exit = contextlib.ExitStack()


def join(settings: MeshSettings) -> Cluster:
    """Finds the processes of this run and waits until all are there; once, however often it is called.

    Raises:
      UserError: the environment contradicts itself, GPUs would be idle, or some process does not come.
    """
    global _cluster, _member
    if _member is not None:
        return _cluster
    _cluster = find_cluster(settings.distributed)
    if _cluster.processes > 1:
        host, _, port = _cluster.coordinator.rpartition(":")
        hub = Hub(int(port), _cluster.processes, WAIT_S) if _cluster.process == 0 else None
        if hub is not None:
            hub.start()
        # Process 0 may not be able to call itself by the name that others call it by.
        host = "localhost" if hub is not None else host.strip("[]")
        _member = Member(host, int(port), _cluster.processes, _cluster.process, WAIT_S, hub=hub)
        _until_exit.enter_context(heed_sigterm(lambda: request_stop(signal.SIGTERM)))
    return _cluster


def start() -> None:
    """Starts JAX's own runtime of several processes; before anything asks for a device."""
    if _member is None:
        return
    import jax

    if jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # its handler would take SIGTERM from ours
    host = _cluster.coordinator.rpartition(":")[0]
    address = _member.meet("JAX's coordinator", f"{host}:{_free_port()}")
    port = address.rpartition(":")[2]
    jax.distributed.initialize(
        f"localhost:{port}" if _cluster.process == 0 else address,  # as in `join`
        _cluster.processes,
        _cluster.process,
        _cluster.local_devices,
        cluster_detection_method="deactivate",
        heartbeat_timeout_seconds=_HEARTBEAT_S,
        coordinator_bind_address=f"[::]:{port}",
    )


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def member() -> Member | None:
    """This process's place in the group; None in a run of one process."""
    return _member


def request_stop(signal_number: int) -> None:
    """Asks all processes to stop at the same step, or, where nobody trains, to leave."""
    if _member is not None:
        _member.request_stop(signal_number)


def meet(name: str) -> None:
    """Waits for all processes: what process 0 wrote before is there for all."""
    if _member is not None:
        _member.meet(name)


def of_first(name: str, value: Any) -> Any:
    """The value (JSON) that process 0 has."""
    return value if _member is None else _member.meet(name, value)


def agree(name: str, value: Any) -> None:
    """Makes sure that all processes have the same value (JSON).

    Raises:
      UserError: one has another, and which; on all processes.
    """
    if _member is not None:
        _member.meet(name, value, alike=True)


def check_shared(directory: Path) -> None:
    """Makes sure that all processes see the same directory.

    Raises:
      UserError: it lies on a file system of one host.
    """
    if _member is None:
        return
    existing = directory.absolute()
    while not existing.is_dir():
        existing = existing.parent
    mark = existing / of_first("mark", f".jaxlm-{os.getpid()}-{time.time_ns()}")
    try:
        if _member.process == 0:
            mark.touch()
        meet("mark is there")
        agree(
            str(directory),
            "the same" if wait_until_visible(mark) else "another directory; it must lie where all hosts see it",
        )
    finally:
        if _member.process == 0:
            mark.unlink(missing_ok=True)


def wait_until_visible(path: Path) -> bool:
    """Whether this host sees what another has made, sooner or later."""
    until = time.monotonic() + _VISIBLE_S
    while not (seen := path.exists()) and time.monotonic() < until:
        time.sleep(0.5)
    return seen


def leave_on_sigterm() -> contextlib.AbstractContextManager[None]:
    """Ends a run of one process with the code that says: start me again. Several processes do so anyway."""

    def act() -> None:
        print("stopped by SIGTERM; the same command goes on", file=sys.stderr, flush=True)
        os._exit(PREEMPTED)

    return heed_sigterm(act) if _member is None else contextlib.nullcontext()


def leave() -> None:
    """Waits for all processes, so that none is missed by another; JAX's runtime then ends in peace."""
    if _member is not None:
        _member.close()


def fail(code: int, text: str, error: BaseException | None = None) -> int:
    """Says what went wrong, and ends the run on all processes.

    Args:
      error: with a traceback that is to be seen.

    Returns:
      `code`, in a run of one process.
    """
    if _member is None:
        print(text if text == "stopped" else f"error: {text}", file=sys.stderr)
        return code
    if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" not in text:
        time.sleep(_VERDICT_S)  # in which the group may hear whose death broke the connection
    if error is not None:
        traceback.print_exception(error)
    _member.fail(code, text)
    return code


def describe(devices: int, batch_size: int) -> str:
    """What was found, for the line at the start of a run: `2 processes (SLURM job 7.0) of 4 devices each, ...`."""
    if _member is None:
        return _cluster.source
    count = _cluster.processes
    share = f"{devices // count} device(s) and {round(batch_size / count, 1):g} examples a step"
    return f"{count} processes ({_cluster.source}) of {share} each"


@contextlib.contextmanager
def heed_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` in a thread when SIGTERM comes, unless a loop heeds it itself just then.

    Python's own handlers run in the main thread, between two of its bytecodes: not before a compilation has ended, or
    a wait for other processes.
    """

    def noted(*_: object) -> None:  # Python reports only signals that have a handler
        pass

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGTERM, noted)
    file = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def wait() -> None:
        while numbers := os.read(reading, 64):
            if signal.SIGTERM in numbers and signal.getsignal(signal.SIGTERM) is noted:
                act()
        os.close(reading)

    threading.Thread(target=wait, name="jaxlm signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(file)
        signal.signal(signal.SIGTERM, handler)
        os.close(writing)
