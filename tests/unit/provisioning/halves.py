# SPDX-License-Identifier: Apache-2.0
"""Volumes that were begun and not finished, and a collector without any patience.

What that one gives up at its second look, the real one gives up after minutes:
whether it is right to do so must not depend on the time that passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterator

from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import IMAGE_PREFIX
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.test_interrupted import forget_the_dead
from tests.unit.provisioning.test_interrupted import interrupted
from tests.unit.provisioning.worlds import Controller
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import World

CHANGING = {
    "image.acquire_lock",
    "image.create_snapshot",
    "image.remove_snapshot",
    "image.write_clone_header",
    "image.write_header",
    "pool.clone_image",
    "pool.create_image",
    "pool.swap_entries",
    "pool.swap_metadata",
}
"""Calls behind which a create leaves something else than in front of them."""

type Prepare = Callable[[FakeWorld], CreateRequest]


class ImpatientWorld(FakeWorld):
    """Its collectors give up what they see twice."""

    abandoned_after = 0.0
    patience = 0.002


def soon[T](call: Callable[[], T]) -> T:
    """Repeat a call until those that are dead must be; as `until_free`, but quick."""
    for _ in range(1000):
        try:
            return call()
        except PendingError:
            time.sleep(0.003)
    return call()


def sweep(world: World, controller: Controller | None = None) -> None:
    """Look twice for what was left, then collect, everywhere."""
    collector = (controller or world.controller()).collector
    places = [
        (config.cluster, pool.name, namespace)
        for config in world.clusters.by_id.values()
        for pool in config.pools
        for namespace in pool.namespaces
    ]
    for place in (*places, *places):
        collector.sweep(*place)
    for place in places:
        collector.look(*place)


def calls_of_create(prepare: Prepare) -> list[str]:
    """Return the calls that it takes."""
    world = FakeWorld()
    request = prepare(world)
    died, calls = interrupted(world, lambda c: c.volumes.create(request), 0)
    assert not died
    return calls


def halves(prepare: Prepare, step: int = 1) -> Iterator[int]:
    """Go through the calls at which a create can die and leave something else."""
    calls = calls_of_create(prepare)
    after = [at + 2 for at, name in enumerate(calls) if name in CHANGING]
    assert len(after) > 4
    yield from (at for at in after[::step] if at <= len(calls))


def half_made(prepare: Prepare, at: int) -> tuple[ImpatientWorld, CreateRequest]:
    """Return a world with what a create left that died at this call."""
    world = ImpatientWorld()
    request = prepare(world)
    died, calls = interrupted(world, lambda c: c.volumes.create(request), at)
    assert died, calls
    forget_the_dead(world)
    return world, request


def all_images(world: FakeWorld) -> list[str]:
    """Return the names of the images of all places."""
    return [name for name in world.content() if IMAGE_PREFIX in name]


def require_lasting(world: FakeWorld, made: VolumeInfo, text: str = "") -> None:
    """Check that a finished volume is there and stays, and nothing else of it.

    It has this content and is plaintext.
    """
    for _ in range(2):
        sweep(world)
    record = world.record(made.volume_id).require_ready()
    assert content_of(world, made.volume_id) == {text}
    assert world.names().count(record.name) == 1
    for each in world.volumes.list("", 0).volumes:
        found = world.record(each.volume_id)
        assert found.children == ()
        assert not any(snapshot.internal for snapshot in found.snapshots)
    assert not list(world.collector.pending())
    assert len(all_images(world)) == len(world.names())
    remove_volumes(world)


def remove_volumes(world: FakeWorld) -> None:
    """Delete all volumes and snapshots; nothing may be left."""
    for each in world.volumes.list_snapshots("", 0).snapshots:
        world.volumes.delete_snapshot(each.snapshot_id)
    for found in world.volumes.list("", 0).volumes:
        world.volumes.delete(found.volume_id)
    for _ in range(3):  # a source goes behind its clones
        world.collect()
    assert world.content() == {}
