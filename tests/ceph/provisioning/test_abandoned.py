# SPDX-License-Identifier: Apache-2.0
"""A controller killed while it creates, and nobody who repeats the call.

What it began is given up after a while and collected; a source that was cloned
stands free again, alive or deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from csi_driver.domain.ids import VolumeId
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from csi_driver.testing.faults import When
from tests.ceph.provisioning import work
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.test_killed import SIZE
from tests.ceph.provisioning.test_killed import killed
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.halves import CHANGING
from tests.unit.provisioning.halves import sweep
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import until_free

AT_ONCE = 3
AFTER = 1.0
"""Seconds after which a create is abandoned here."""

type Arguments = dict[str, Any]


def kill_after_changes(
    world: CephWorld,
    name: str,
    subject: Callable[[str], Arguments],
    only: Collection[str] = CHANGING,
) -> None:
    """Kill fresh work behind each change that it makes, or behind some.

    The first time it is carried out wholly, under the name "whole".
    """
    common = {"config": world.config_text, "size": SIZE}

    def given(name: str) -> Arguments:
        return {**common, **subject(name), "name": name}

    steps = Steps(Fault(0))
    getattr(work, name)(FaultyConnector(world.connector, steps), given("whole"))
    changes = [n for n, call in enumerate(steps.names, 1) if call in only]
    assert len(changes) >= len(only) // 2

    def run(step: int) -> None:
        asked = given(f"{name}-{step}")
        assert killed(name, asked, Fault(step, When.AFTER)) is not None

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(run, changes))


def sweep_until(world: CephWorld, names: list[str]) -> None:
    """Sweep and collect until nothing but the finished volumes is left."""
    controller = world.controller(abandoned_after=AFTER)
    deadline = time.monotonic() + 120
    while len(world.images()) > len(names) or list(world.collector.pending()):
        assert time.monotonic() < deadline, world.content()
        sweep(world, controller)
        time.sleep(0.3)
    assert world.names() == names


def sources(world: CephWorld) -> Callable[[str], Arguments]:
    """Return what makes a source for each clone.

    Who takes a snapshot of an image waits for dead clients that have it open.
    """
    return lambda name: {"id": str(volume(world, f"of {name}"))}


@pytest.mark.timeout(300)
def test_creates_killed_anywhere_are_taken_away(world: CephWorld) -> None:
    kill_after_changes(world, "create", lambda _: {})
    for delay in (0.001, 0.004, 0.01):
        given = {"name": f"cut-{delay}", "size": SIZE, "delay": delay}
        given["config"] = world.config_text
        killed("cut_create", given, Fault(0))
    # Those that were killed behind their last change are finished.
    finished = world.names()
    assert "whole" in finished
    assert len(world.images()) > len(finished)
    sweep_until(world, finished)
    remove(world)


@pytest.mark.timeout(300)
def test_clones_killed_anywhere_let_go_of_their_source(world: CephWorld) -> None:
    kill_after_changes(world, "clone", sources(world))
    finished = world.names()
    assert len(world.images()) > len(finished)
    held = [each for each in listed(world) if world.record(each).children]
    assert len(held) > 4
    sweep_until(world, finished)
    for each in listed(world):
        record = world.record(each)
        assert (record.children, record.snapshots) == ((), ())
        secrets = OTHER if record.origin else SECRET
        assert content_of(world, each, secrets) == {"the source's"}
    remove(world)


@pytest.mark.timeout(300)
def test_clones_killed_for_good_do_not_keep_deleted_sources(world: CephWorld) -> None:
    some = {"image.create_snapshot", "pool.clone_image", "image.acquire_lock"}
    kill_after_changes(world, "clone", sources(world), some)
    delete_all(world)
    sweep_until(world, [])
    assert world.content() == {}


def listed(world: CephWorld) -> list[VolumeId]:
    return [each.volume_id for each in world.volumes.list("", 0).volumes]


def delete_all(world: CephWorld) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(
            threads.map(
                lambda each: until_free(lambda: world.volumes.delete(each)),
                listed(world),
            )
        )


def remove(world: CephWorld) -> None:
    delete_all(world)
    world.collect_all()
    assert world.content() == {}
