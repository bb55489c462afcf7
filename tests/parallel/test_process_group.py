"""The protocol of a group, its members being threads of this process."""

import contextlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jaxlm.errors import UserError
from jaxlm.parallel.hub import PAST, Hub
from jaxlm.parallel.process_group import Member, Stop


class Group:
    """Members and the exit codes with which they left."""

    def __init__(self, size: int):
        self.left: dict[int, int] = {}
        self.hub = Hub(0, size, 5)
        self.hub.start()
        self.members: list[Member] = self.each(self._join, range(size))

    def _join(self, number: int) -> Member:
        return Member(
            "localhost", self.hub.port, self.size, number, 5, hub=self.hub if number == 0 else None,
            end=lambda code: self.left.setdefault(number, code),
        )  # fmt: skip

    @property
    def size(self) -> int:
        return self.hub._processes

    def each(self, act: Callable[[Any], Any], over: Any = None) -> list[Any]:
        """What every member answers, all at once."""
        over = self.members if over is None else over
        found: list[Any] = [None] * len(over)

        def run(place: int, item: Any) -> None:
            try:
                found[place] = act(item)
            except UserError as error:
                found[place] = str(error)

        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(over)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        return found

    def decided(self) -> None:
        """Waits until all know where to stop."""
        while any(member._stop is None for member in self.members):
            time.sleep(0.01)

    def codes(self, count: int) -> dict[int, int]:
        """The exit codes, once `count` members have left."""
        until = time.monotonic() + 5
        while len(self.left) < count and time.monotonic() < until:
            time.sleep(0.01)
        return dict(sorted(self.left.items()))


@pytest.fixture
def group() -> Iterator[Callable[[int], Group]]:
    made: list[Group] = []

    def make(size: int) -> Group:
        made.append(Group(size))
        return made[-1]

    yield make
    for group in made:
        for member in group.members:
            member._over = True
            with contextlib.suppress(OSError):
                member._line.socket.shutdown(socket.SHUT_RDWR)


def test_members_meet_hear_process_0_and_leave_in_peace(group: Callable[[int], Group]) -> None:
    four = group(4)
    assert four.each(lambda m: m.meet("number", m.process)) == [0, 0, 0, 0]
    assert four.each(lambda m: m.meet("digest", "abc", alike=True)) == ["abc"] * 4
    four.each(lambda m: m.close())
    assert four.hub.ended.wait(5)
    assert four.left == {}


def test_who_has_another_value_is_named_on_all(group: Callable[[int], Group]) -> None:
    four = group(4)
    errors = four.each(lambda m: m.meet("data", {"dev": 1, "rows": 5 + (m.process == 2)}, alike=True))
    assert len(set(errors)) == 1
    assert errors[0].startswith("data of process 2 of 4 (")
    assert errors[0].endswith('): {"rows": 6}; of process 0: {"rows": 5}')
    errors = four.each(lambda m: m.meet("start" if m.process < 3 else "middle"))
    assert "process 3 of 4" in errors[0]
    assert "is at 'middle', process 0 at 'start'" in errors[0]


@pytest.mark.parametrize("dead", [0, 2])
def test_all_leave_when_one_dies_and_name_it(
    group: Callable[[int], Group], dead: int, capfd: pytest.CaptureFixture[str]
) -> None:
    three = group(3)
    meeting = threading.Thread(target=lambda: three.members[1].meet("never"), daemon=True)
    meeting.start()
    if dead == 0:  # its hub dies with it
        for line in list(three.hub._members.values()):
            with contextlib.suppress(OSError):  # the hub may have closed it by now, since it lost another
                line.socket.shutdown(socket.SHUT_RDWR)
    else:
        three.members[dead]._over = True
        three.members[dead]._line.socket.shutdown(socket.SHUT_RDWR)
    others = {number: 1 for number in range(3) if number != dead}
    assert {number: code for number, code in three.codes(2 + (dead == 0)).items() if number != dead} == others
    said = capfd.readouterr().err
    assert said.count(f"error: process {dead} of 3 ({socket.gethostname()}, pid ") >= 2


def test_an_error_on_one_ends_all_with_its_code(
    group: Callable[[int], Group], capfd: pytest.CaptureFixture[str]
) -> None:
    three = group(3)
    three.members[1].fail(2, "/data/dev.tsv: no such file")
    assert three.codes(3) == {0: 2, 1: 2, 2: 2}
    said = sorted(capfd.readouterr().err.splitlines())
    assert said[0] == "error: /data/dev.tsv: no such file"
    assert said[1] == said[2]
    assert said[1].startswith("error: process 1 of 3 (")
    assert said[1].endswith(") failed: /data/dev.tsv: no such file")


def test_an_error_on_all_is_said_once(group: Callable[[int], Group], capfd: pytest.CaptureFixture[str]) -> None:
    three = group(3)
    three.each(lambda m: m.fail(2, "--seed is -1"))
    assert three.codes(3) == {0: 2, 1: 2, 2: 2}
    assert capfd.readouterr().err == "error: --seed is -1\n"


def test_all_stop_after_the_same_step_which_nobody_has_passed(group: Callable[[int], Group]) -> None:
    three = group(3)

    def train(member: Member) -> tuple[int, Stop | None]:
        """Steps of uneven pace, as when the dispatch runs ahead of the devices; process 1 is told to stop."""
        stop = member.reached(0)
        step = 0
        while stop is None and step < 10_000:
            step += 1
            if member.process == 1 and step == 5:
                member.request_stop(signal.SIGTERM)
            time.sleep(0.0005 * (1 + member.process))
            stop = member.reached(step)
        return step, stop

    ends = three.each(train)
    assert len(set(ends)) == 1
    step, stop = ends[0]
    assert stop == Stop(step, signal.SIGTERM)
    assert 5 <= step < 10_000


def test_a_stop_waits_for_those_that_have_not_begun_and_not_for_those_at_the_end(
    group: Callable[[int], Group],
) -> None:
    late = group(2)
    assert late.each(lambda m: m.past_the_loop()) == [None, None]  # of a stage before
    late.members[0].reached(0)
    late.members[0].request_stop(signal.SIGTERM)
    late.decided()
    assert late.each(lambda m: m.reached(0)) == [None, None]
    assert late.each(lambda m: m.reached(1)) == [Stop(1, signal.SIGTERM)] * 2
    ending = group(2)
    first, second = ending.members
    first.reached(7)
    ends: list[Stop | None] = []
    thread = threading.Thread(target=lambda: ends.append(second.past_the_loop()), daemon=True)
    thread.start()
    while second._step != PAST:
        time.sleep(0.01)
    second.request_stop(signal.SIGTERM)
    ending.decided()
    assert first.reached(8) is None
    ends.append(first.past_the_loop())
    thread.join(5)
    assert ends == [Stop(None, signal.SIGTERM)] * 2


def test_whenever_a_stop_is_asked_for_all_end_alike(group: Callable[[int], Group]) -> None:
    """In the loop, at its end, or past it, where all leave at once."""
    found: set[str] = set()
    for number in range(40):
        three = group(3)

        ends: list[tuple[int, Stop | None]] = []

        def train(member: Member, ends: list[tuple[int, Stop | None]] = ends, number: int = number) -> None:
            draw = random.Random(f"{number} {member.process}")
            for step in range(4):
                time.sleep(draw.random() * 0.003)
                if (stop := member.reached(step)) is not None:
                    ends.append((step, stop))
                    return
            ends.append((4, member.past_the_loop()))

        delay = number / 40 * 0.012
        asks = threading.Timer(delay, three.members[number % 3].request_stop, (signal.SIGTERM,))
        asks.start()
        for member in three.members:
            threading.Thread(target=train, args=(member,), daemon=True).start()
        until = time.monotonic() + 5
        while len(ends) < 3 and len(three.left) < 3 and time.monotonic() < until:
            time.sleep(0.001)
        if len(ends) == 3 and ends[0][1] is not None:
            assert len(set(ends)) == 1, (number, ends)
            found.add("at the end" if ends[0][0] == 4 else "in the loop")
        else:
            assert three.codes(3) == {0: 75, 1: 75, 2: 75}, (number, ends)
            found.add("past it")
    assert "in the loop" in found


def test_where_nobody_trains_a_stop_ends_all_at_once(
    group: Callable[[int], Group], capfd: pytest.CaptureFixture[str]
) -> None:
    two = group(2)
    assert two.each(lambda m: m.past_the_loop()) == [None, None]
    two.members[0].request_stop(signal.SIGTERM)
    assert two.codes(2) == {0: 75, 1: 75}
    assert capfd.readouterr().err.count("stopped by SIGTERM at process 0 of 2") == 2


def test_who_does_not_come_is_named() -> None:
    hub = Hub(0, 4, 0.5)
    hub.start()
    with pytest.raises(UserError, match=r"processes 1, 2, 3 of 4 did not come"):
        Member("localhost", hub.port, 4, 0, 1, hub=hub)
    with pytest.raises(UserError, match=r"process 1 of 2 cannot reach process 0 at localhost:1: .*refused"):
        Member("localhost", 1, 2, 1, 0.1)


def test_strangers_and_wrong_counts_are_turned_away() -> None:
    hub = Hub(0, 2, 5)
    hub.start()
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b"5\n", b'{"join": 1}\n', b"\xff\n"):
        with socket.create_connection(("localhost", hub.port), timeout=5) as stranger:
            stranger.sendall(greeting)
            assert stranger.recv(100) == b""
    with pytest.raises(UserError, match="process 0 is one of 2 processes, and this is one of 3"):
        Member("localhost", hub.port, 3, 1, 5)

    def join() -> None:
        with contextlib.suppress(UserError):  # process 0 never comes
            Member("localhost", hub.port, 2, 1, 5)

    threading.Thread(target=join, daemon=True).start()
    while not hub._members:
        time.sleep(0.01)
    with pytest.raises(UserError, match="there are two processes 1"):
        Member("localhost", hub.port, 2, 1, 5)
    with pytest.raises(UserError, match=f"cannot listen on port {hub.port}"):
        Hub(hub.port, 2, 5)


def test_a_group_needs_no_jax() -> None:
    code = "import sys, jaxlm.parallel.distributed; sys.exit(bool({'jax', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
