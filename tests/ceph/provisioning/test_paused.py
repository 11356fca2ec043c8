# SPDX-License-Identifier: Apache-2.0
"""A controller that is stopped while it creates, and goes on after it was given up.

As on a machine that is suspended, or whose network was gone: Ceph drops its watches,
the collector takes away what it was at, and others may have made the same volume.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from csi_driver.domain.ids import VolumeId
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from tests.ceph.provisioning import work
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.test_killed import SIZE
from tests.unit.provisioning.halves import CHANGING
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.worlds import until_free

AT_ONCE = 3
AFTER = 0.5
"""Seconds after which a create is abandoned here."""

MADE = "made"

type Arguments = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Paused:
    """A child that has stopped before the named call."""

    child: subprocess.Popen[str]
    before: str
    name: str

    def resume(self) -> str:
        """Let it go on; return how it ended."""
        self.child.send_signal(signal.SIGCONT)
        told, _ = self.child.communicate(timeout=120)
        assert self.child.returncode == 0
        return told.strip()


@contextlib.contextmanager
def paused(world: CephWorld) -> Iterator[list[Paused]]:
    """Have children create, each stopped before or behind another change.

    Not right before the lock: librbd waits for ever there for the watch of an image
    that was removed meanwhile (18.2.7), which only the process's end ends.
    """

    def given(name: str) -> Arguments:
        return {
            "config": world.config_text,
            "size": SIZE,
            "name": name,
            "plain": True,
        }

    steps = Steps(Fault(0))
    work.create(FaultyConnector(world.connector, steps), given("whole"))
    names = steps.names
    changes = [n for n, call in enumerate(names, 1) if call in CHANGING]
    stops = {*changes, *(n + 1 for n in changes if n < len(names))}
    stops -= {names.index("image.acquire_lock") + 1}
    found: list[Paused] = []

    def begin(at: int) -> Paused:
        name = f"stopped-{at}"
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.ceph.provisioning.paused"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        json.dump({"arguments": given(name), "at": at}, child.stdin)
        child.stdin.close()
        child.stdin = None
        found.append(Paused(child, child.stdout.readline().strip(), name))
        return found[-1]

    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            yield list(threads.map(begin, sorted(stops)))
    finally:
        for each in found:
            each.child.kill()
            each.child.wait()


def give_up(world: CephWorld) -> None:
    """Sweep until everything that the stopped ones were at is gone."""
    controller = world.controller(abandoned_after=AFTER)
    until = time.monotonic() + 90
    while len(world.images()) > len(world.names()) or list(world.collector.pending()):
        assert time.monotonic() < until, world.content()
        sweep(world, controller)
        time.sleep(0.3)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("again", [False, True])
def test_who_wakes_up_too_late_takes_nothing_away(
    world: CephWorld, *, again: bool
) -> None:
    made: list[VolumeId] = []
    with paused(world) as stopped:
        assert len(stopped) > 6
        give_up(world)
        for each in stopped if again else ():
            request = world.plaintext(each.name, SIZE)
            made.append(until_free(lambda: world.volumes.create(request)).volume_id)  # noqa: B023
        with ThreadPoolExecutor(AT_ONCE) as threads:
            told = list(threads.map(lambda each: each.resume(), stopped))
    for volume_id in made:
        world.record(volume_id).require_ready()
    names = world.names()
    answered = {
        each.name for each, how in zip(stopped, told, strict=True) if how == MADE
    }
    assert answered
    assert answered <= set(names)
    assert all(how == MADE or how.startswith("FencedError") for how in told), told
    give_up(world)
    assert world.names() == names
    for found in world.volumes.list("", 0).volumes:
        until_free(lambda: world.volumes.delete(found.volume_id))  # noqa: B023
    world.collect_all()
    assert world.content() == {}
