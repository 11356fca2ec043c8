# SPDX-License-Identifier: Apache-2.0
"""Snapshots, clones and volumes go in any order, and keep what others need."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.lineage import ChildIntent
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import flatten
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.snapshots import listed
from tests.unit.provisioning.snapshots import named
from tests.unit.provisioning.snapshots import rbd_names
from tests.unit.provisioning.snapshots import source_of
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World
from tests.unit.provisioning.worlds import until_free


def test_deleting_is_idempotent_and_leaves_nothing(world: World) -> None:
    one = plain_volume(world)
    record = world.record(one)
    found = world.snapshot(one, "snap")
    world.volumes.delete_snapshot(found)
    assert world.record(one) == record
    assert rbd_names(world, one) == []
    before = world.content()
    world.volumes.delete_snapshot(found)
    other = dataclasses.replace(found, number=found.number + 1000)
    nowhere = SnapshotId(VolumeId(one.location, "0123456789ab"), 4)
    no_pool = dataclasses.replace(one.location, pool_id=9999)
    for each in (other, nowhere, SnapshotId(VolumeId(no_pool, one.image_id), 4)):
        world.volumes.delete_snapshot(each)
        with pytest.raises(NotFoundError):
            world.volumes.get_snapshot(each)
    assert world.content() == before
    assert world.snapshot(one, "snap") != found
    remove_all(world)


@pytest.mark.parametrize("order", ["012v", "v012", "210v", "1v02"])
def test_snapshots_and_volume_go_in_any_order(world: World, order: str) -> None:
    one = volume(world)
    found = []
    for number in range(3):
        fill(world, one, f"content {number}")
        found.append(world.snapshot(one, f"snap {number}"))
    left = dict(enumerate(found))
    for step in order:
        if step == "v":
            world.volumes.delete(one)
            world.collect()
        else:
            world.volumes.delete_snapshot(left.pop(int(step)))
        assert sorted(each.snapshot_id.number for each in listed(world)) == sorted(
            each.number for each in left.values()
        )
        for number, each in left.items():
            text = content_of(world, one, number=each.number)
            assert text == {f"content {number}"}
    world.collect_all()
    assert world.content() == {}


def test_a_snapshot_stays_while_a_clone_of_it_is_begun(world: World) -> None:
    one = plain_volume(world)
    found = world.snapshot(one, "snap")
    rbd_name = named(world, one, "snap").rbd_name
    child = ChildIntent("csi-vol-new", rbd_name, "two", one.location.pool_id, "")
    where = one.location.namespace
    child = dataclasses.replace(child, namespace=where)
    with world.pool() as pool:
        Directory(pool).claim(Entry("two", "csi-vol-new"))
    world.change(one, children=(child,))
    with pytest.raises(PendingError, match="volume 'two' is being cloned"):
        world.volumes.delete_snapshot(found)
    assert [each.snapshot_id for each in listed(world)] == [found]
    # Its maker may be dead; after a while it is taken for that.
    world.volumes.delete(one)
    with pytest.raises(PendingError, match="volume 'two' is being cloned"):
        world.volumes.delete_snapshot(found)
    until_free(lambda: world.volumes.delete_snapshot(found))
    world.collect_all()
    assert world.content() == {}


def test_the_ring_keeps_what_snapshots_need_after_a_flatten(world: World) -> None:
    one = volume(world, secrets=OTHER)
    twin = clone(world, one, secrets={**SECRET, **source_of(OTHER)})
    found = world.snapshot(twin, "before")
    fill(world, twin, "the twin's")
    flatten(world, twin)
    record = world.record(twin)
    assert record.ring is not None
    assert len(record.ring.entries) == 2
    assert len(record.layers) == 1
    assert named(world, twin, "before").layers[0] == record.layers[0]
    after = world.snapshot(twin, "after")
    assert len(named(world, twin, "after").layers) == 1
    world.volumes.delete(one)
    world.collect()
    # A clone of either snapshot loads with its own Secret alone.
    old = clone(world, found, "old", secrets={**OTHER, **source_of(SECRET)})
    new = clone(world, after, "new", secrets={**OTHER, **source_of(SECRET)})
    assert content_of(world, old, OTHER) == {"the source's"}
    assert content_of(world, new, OTHER) == {"the twin's"}
    assert content_of(world, twin, number=found.number) == {"the source's"}
    assert world.record(old).ancestors == 2
    assert world.record(new).ancestors == 1
    world.volumes.delete_snapshot(found)
    assert listed(world, twin) == [world.volumes.get_snapshot(after)]
    assert world.volumes.list_snapshots("", 0).snapshots == tuple(listed(world, twin))
    # It stays out of sight, since the clone would lose what lies below it.
    world.collect()
    assert content_of(world, old, OTHER) == {"the source's"}
    world.volumes.delete(old)
    world.collect()
    world.volumes.delete_snapshot(after)
    record = world.record(twin)
    assert record.snapshots == ()
    assert record.ring is not None
    assert [each.header_uuid for each in record.ring.entries] == list(record.layers)
    world.collect()
    assert len(world.images()) == 2
    remove_all(world)


@pytest.mark.parametrize("order", ["flatten clone delete", "clone flatten delete"])
def test_a_deleted_snapshot_of_a_flattened_clone_keeps_its_parents(
    world: World, order: str
) -> None:
    one = volume(world)
    twin = clone(world, one, "twin")
    found = world.snapshot(twin, "snap")
    again, last = found, twin
    for step in order.split():
        if step == "flatten":
            flatten(world, twin)
        elif step == "clone":
            last = clone(world, found, "last")
        else:
            world.volumes.delete_snapshot(found)
            again = world.snapshot(twin, "snap")  # its name is free
    world.volumes.delete(one)
    world.collect()
    assert content_of(world, last) == {"the source's"}
    world.volumes.delete_snapshot(again)
    world.volumes.delete_snapshot(found)
    world.volumes.delete(twin)
    world.collect()
    assert content_of(world, last) == {"the source's"}
    world.volumes.delete(last)
    world.collect_all()
    assert world.content() == {}
