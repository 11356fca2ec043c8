# SPDX-License-Identifier: Apache-2.0
"""Snapshots that no record names, or under another name than the record's."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import InUseError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.snapshots import SNAPSHOT_PREFIX
from csi_driver.images.directory import Directory
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.port import RawImage
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.snapshots import begin
from tests.unit.provisioning.snapshots import named
from tests.unit.provisioning.snapshots import rbd_names
from tests.unit.provisioning.worlds import World


def test_snapshots_of_ours_that_no_record_names_are_swept(world: World) -> None:
    one = plain_volume(world)
    found = world.snapshot(one, "snap")
    orphan = f"{SNAPSHOT_PREFIX}0f0f"
    world.add_snapshot(one.image_id, orphan)
    world.volumes.delete_snapshot(found)
    assert rbd_names(world, one) == []
    world.add_snapshot(one.image_id, orphan)
    world.add_snapshot(one.image_id, "an administrator's")
    world.volumes.delete(one)
    world.collect()
    assert rbd_names(world, one) == ["an administrator's"]
    world.remove_snapshot(one.image_id, "an administrator's")
    world.collect_all()
    assert world.content() == {}


def test_a_begun_snapshot_does_not_keep_a_deleted_volume(world: World) -> None:
    one = plain_volume(world)
    begin(world, one, "snap")
    world.volumes.delete(one)
    world.collect_all()
    assert world.content() == {}


def test_a_name_that_stands_for_nothing_goes_with_its_volume(world: World) -> None:
    one, two = plain_volume(world, "one"), plain_volume(world, "two")
    with world.pool() as pool:
        Directory(pool).claim(SnapshotEntry("begun", one.image_id))
        Directory(pool).claim(SnapshotEntry("other's", two.image_id))
        world.volumes.delete(one)
        world.collect_all()
        assert Directory(pool).find_snapshot("begun") is None
        assert Directory(pool).find_snapshot("other's") is not None
    remove_all(world)


def test_snapshots_that_others_made_stay(world: World) -> None:
    one = volume(world)
    ours = world.snapshot(one, "ours")
    theirs = [
        # ceph-csi's, on an image that was adopted from it
        "csi-snap-0e8b0f4c-5d27-4f6a-9a53-3c1f5a1e6c11",
        "of an administrator",
    ]
    for each in theirs:
        world.add_snapshot(one.image_id, each)
    world.volumes.delete_snapshot(ours)
    assert rbd_names(world, one) == theirs
    world.volumes.delete(one)
    world.collect()
    assert rbd_names(world, one) == theirs


def rename(world: World, volume_id: VolumeId, names: dict[str, str]) -> None:
    """Rename RBD snapshots as an administrator would."""
    for old in names:
        world.rename_snapshot(volume_id.image_id, old, f"{old}-")
    for old, new in names.items():
        world.rename_snapshot(volume_id.image_id, f"{old}-", new)


def test_a_snapshot_is_known_by_its_number_whatever_its_name(world: World) -> None:
    one = volume(world, text="first")
    first = world.snapshot(one, "first")
    fill(world, one, "second")
    second = world.snapshot(one, "second")
    here, there = (named(world, one, each).rbd_name for each in ("first", "second"))
    rename(world, one, {here: there, there: here})
    assert content_of(world, clone(world, first, "of the first")) == {"first"}
    assert content_of(world, clone(world, second, "of the second")) == {"second"}
    rename(world, one, {here: "by hand", there: f"{SNAPSHOT_PREFIX}other"})
    assert content_of(world, clone(world, second, "by another name")) == {"second"}
    world.volumes.delete_snapshot(second)
    assert rbd_names(world, one) == [f"{SNAPSHOT_PREFIX}other"]
    world.volumes.delete_snapshot(first)
    assert rbd_names(world, one) == []
    remove_all(world)


def test_a_snapshot_that_cannot_go_keeps_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = volume(world)
    stuck, other = world.snapshot(one, "stuck"), world.snapshot(one, "other")
    name = named(world, one, "stuck").rbd_name
    with world.pool() as pool, pool.open_raw(one.image_id) as image:
        kind = type(image)
    remove = kind.remove_snapshot

    def refuse(self: RawImage, given: str) -> None:
        if given == name:  # as librbd does for a protected one
            raise InUseError("it is protected")
        remove(self, given)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "remove_snapshot", refuse)
        with pytest.raises(InUseError):
            world.volumes.delete_snapshot(stuck)
        with pytest.raises(InUseError):
            world.volumes.delete_snapshot(stuck)
        third = world.snapshot(one, "third")
        clone(world, other)
        world.volumes.delete_snapshot(other)
    world.volumes.delete_snapshot(third)
    assert rbd_names(world, one) == []
    remove_all(world)
