# SPDX-License-Identifier: Apache-2.0
"""Snapshots: taken once, listed, kept apart from the volume, deleted in any order."""

from __future__ import annotations

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.snapshots import MOST_SNAPSHOTS
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.directory import Directory
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.records import change_record
from csi_driver.provisioning import taking
from csi_driver.provisioning.requests import SnapshotRequest
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.snapshots import begin
from tests.unit.provisioning.snapshots import listed
from tests.unit.provisioning.snapshots import named
from tests.unit.provisioning.snapshots import rbd_names
from tests.unit.provisioning.worlds import World

LONG = "s" * 126 + "é"


@pytest.mark.parametrize("name", ["snap", LONG])
def test_a_snapshot_is_taken_once_and_keeps_its_content(
    world: World, name: str
) -> None:
    one = volume(world)
    request = SnapshotRequest(name, one)
    first = world.volumes.create_snapshot(request)
    before = world.content()
    assert first.size == EffectiveSize(SIZE)
    assert first.created > 10**18
    assert world.volumes.create_snapshot(request) == first
    assert world.controller().volumes.create_snapshot(request) == first
    assert world.volumes.get_snapshot(first.snapshot_id) == first
    assert listed(world) == listed(world, one) == [first]
    assert SnapshotId.parse(str(first.snapshot_id)) == first.snapshot_id
    assert world.content() == before
    fill(world, one, "later")
    number = first.snapshot_id.number
    assert content_of(world, one, number=number) == {"the source's"}
    assert content_of(world, one) == {"later"}
    remove_all(world)


def test_one_name_stands_for_one_volumes_snapshot(world: World) -> None:
    one, two = plain_volume(world, "one"), plain_volume(world, "two")
    found = world.snapshot(one, "snap")
    before = world.content()
    with pytest.raises(AlreadyExistsError, match="of volume 'one'"):
        world.snapshot(two, "snap")
    assert world.content() == before
    # Deleting the source's volume does not free the name, deleting it does.
    world.volumes.delete(one)
    with pytest.raises(AlreadyExistsError, match="of volume 'one'"):
        world.snapshot(two, "snap")
    world.volumes.delete_snapshot(found)
    again = world.snapshot(two, "snap")
    assert [each.snapshot_id for each in listed(world)] == [again]
    remove_all(world)


def test_a_name_whose_volume_is_gone_is_free(world: World) -> None:
    two = plain_volume(world, "two")
    with world.pool() as pool:
        Directory(pool).claim(SnapshotEntry("snap", "0123456789ab", 7, SIZE, 10**18))
        Directory(pool).claim(SnapshotEntry("begun", "0123456789ab"))
    for name in ("snap", "begun"):
        found = world.snapshot(two, name)
        assert world.volumes.get_snapshot(found).size == EffectiveSize(SIZE)
    remove_all(world)


@pytest.mark.parametrize("name", ["", "s" * 129, "a\nb"])
def test_a_malformed_name_is_refused(world: World, name: str) -> None:
    one = plain_volume(world)
    before = world.content()
    with pytest.raises(InvalidRequestError, match="snapshot name"):
        world.snapshot(one, name)
    assert world.content() == before


def test_the_size_is_the_snapshots_own_while_growth_is_pending(world: World) -> None:
    one = plain_volume(world)
    world.volumes.expand(one, world.request("one", 2 * SIZE).capacity)
    found = world.volumes.create_snapshot(SnapshotRequest("snap", one))
    assert world.record(one).desired == EffectiveSize(2 * SIZE)
    assert found.size == EffectiveSize(SIZE)
    assert listed(world) == [found]
    remove_all(world)


def test_a_snapshot_of_what_is_not_there_is_refused(world: World) -> None:
    one = plain_volume(world)
    gone = VolumeId(one.location, "0123456789ab")
    world.add_snapshot(one.image_id, "foreign")
    before = world.content()
    with pytest.raises(NotFoundError):
        world.snapshot(gone, "snap")
    assert world.content() == before
    world.remove_snapshot(one.image_id, "foreign")
    keeper = world.snapshot(one, "keeper")
    world.volumes.delete(one)
    before = world.content()
    with pytest.raises(NotFoundError, match="deleted"):
        world.snapshot(one, "snap")
    assert world.content() == before
    # What was taken before goes on, and a repeated call finds it.
    assert world.snapshot(one, "keeper") == keeper
    assert [each.snapshot_id for each in listed(world, one)] == [keeper]
    world.collect()
    assert world.volumes.get_snapshot(keeper).snapshot_id == keeper
    remove_all(world)


def test_a_volume_in_the_making_has_no_snapshots_yet(world: World) -> None:
    one = plain_volume(world)
    world.change(one, filesystem=FilesystemState.MAKING)
    before = world.content()
    with pytest.raises(PendingError, match="filesystem of volume 'one' is being made"):
        world.snapshot(one, "snap")
    assert world.content() == before
    world.change(one, filesystem=FilesystemState.EXT4)
    world.snapshot(one, "snap")
    assert named(world, one, "snap").filesystem is FilesystemState.EXT4
    remove_all(world)


def test_a_snapshot_that_a_mkfs_overtook_is_taken_again(world: World) -> None:
    one = plain_volume(world)
    with world.pool() as pool:
        record = change_record(
            pool, one.image_id, lambda present: taking.intended(present, "snap")
        )
        (intent,) = record.snapshots
        with pool.open_raw(one.image_id) as image:
            image.create_snapshot(intent.rbd_name)
    world.change(one, filesystem=FilesystemState.XFS)
    with world.pool() as pool:
        with pytest.raises(ConflictError, match="was made while"):
            taking.take(pool, one.image_id, intent.rbd_name)
        assert world.record(one).snapshots == ()
    assert rbd_names(world, one) == []
    world.snapshot(one, "snap")
    taken = named(world, one, "snap")
    assert taken.filesystem is FilesystemState.XFS
    assert rbd_names(world, one) == [taken.rbd_name]
    remove_all(world)


def test_an_interrupted_snapshot_is_gone_on_with(world: World) -> None:
    one = plain_volume(world)
    begun = begin(world, one, "snap")
    assert listed(world) == []
    assert listed(world, one) == []
    found = world.snapshot(one, "snap")
    assert rbd_names(world, one) == [begun]
    assert [each.snapshot_id for each in listed(world)] == [found]
    remove_all(world)


def test_too_many_snapshots_are_refused(world: World) -> None:
    one = plain_volume(world)
    many = tuple(
        Snapshot(f"s{n}", new_snapshot_name(), SnapshotState.READY, number=10**6 + n)
        for n in range(MOST_SNAPSHOTS)
    )
    world.change(one, snapshots=many)
    with pytest.raises(ExhaustedError, match="256 snapshots"):
        world.snapshot(one, "snap")
    assert world.record(one).snapshots == many
    assert rbd_names(world, one) == []
    with world.pool() as pool:
        assert Directory(pool).find_snapshot("snap") is None
    world.change(one, snapshots=many[1:])
    world.snapshot(one, "snap")
    assert len(world.record(one).snapshots) == MOST_SNAPSHOTS
