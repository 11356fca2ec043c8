# SPDX-License-Identifier: Apache-2.0
"""The thread that looks at open volumes: when it looks, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import pytest

from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.errors import UnavailableError
from csi_driver.staging.watching import Watch
from tests.unit.staging.exports import export


class Counting:
    """An observer that counts, and does at each look what it is told."""

    def __init__(self, then: Callable[[], bool] = lambda: False) -> None:
        self.looks: list[int] = []
        self._then = then

    def look(self, exports: Sequence[ExportStatus]) -> bool:
        self.looks.append(len(exports))
        return self._then()


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Started:
    """Watches that are stopped at the end of a test."""

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.watches: list[Watch] = []

    def watch(
        self,
        *observers: Counting,
        exports: Callable[[], list[ExportStatus]] = lambda: [export()],
        idle: float = 60.0,
        busy: float = 60.0,
    ) -> Watch:
        made = Watch(exports, observers, self.woken, idle=idle, busy=busy)
        made.start()
        self.watches.append(made)
        return made


@pytest.fixture
def started() -> Iterator[Started]:
    found = Started()
    yield found
    for each in found.watches:
        assert each.stop(5)


def test_it_looks_at_once_and_when_it_is_woken(started: Started) -> None:
    one, two = Counting(), Counting()
    started.watch(one, two)
    eventually(lambda: len(two.looks) == 1)
    started.woken.set()
    eventually(lambda: len(two.looks) == 2)
    assert one.looks == two.looks == [1, 1]


def test_it_looks_soon_again_while_anybody_is_busy(started: Started) -> None:
    busy = Counting(lambda: True)
    started.watch(Counting(), busy, Counting(), busy=0.01)
    eventually(lambda: len(busy.looks) > 5)


def test_it_looks_seldom_while_nobody_is(started: Started) -> None:
    idle = Counting()
    started.watch(idle, busy=0.001)
    time.sleep(0.3)
    assert len(idle.looks) == 1


@pytest.mark.parametrize("error", [UnavailableError, RuntimeError])
def test_without_a_datapath_it_goes_on(
    started: Started, error: type[Exception]
) -> None:
    tries: list[int] = []

    def exports() -> list[ExportStatus]:
        tries.append(1)
        if len(tries) < 3:
            message = "the datapath does not answer"
            raise error(message)
        return []

    seen = Counting()
    started.watch(seen, exports=exports, idle=0.01)
    eventually(lambda: len(seen.looks) > 1)


@pytest.mark.parametrize("error", [UnavailableError, RuntimeError])
def test_an_observer_that_fails_blinds_no_other(
    started: Started, error: type[Exception]
) -> None:
    def fails() -> bool:
        message = "unforeseen"
        raise error(message)

    other = Counting()
    failing = Counting(fails)
    started.watch(failing, other, idle=0.01)
    eventually(lambda: len(other.looks) > 2 and len(failing.looks) > 2)


def test_its_end_is_quick_and_final(started: Started) -> None:
    seen = Counting()
    watch = started.watch(seen)
    eventually(lambda: bool(seen.looks))
    begin = time.monotonic()
    assert watch.stop(5)
    assert time.monotonic() - begin < 1
    looks = len(seen.looks)
    started.woken.set()
    time.sleep(0.05)
    assert len(seen.looks) == looks


def test_a_look_that_hangs_does_not_hold_up_the_end(started: Started) -> None:
    release = threading.Event()
    hanging = Counting(lambda: release.wait(20))
    watch = started.watch(hanging)
    eventually(lambda: bool(hanging.looks))
    begin = time.monotonic()
    assert not watch.stop(0.1)
    assert time.monotonic() - begin < 1
    release.set()
