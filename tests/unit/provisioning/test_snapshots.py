# SPDX-License-Identifier: Apache-2.0
"""Snapshots: taken once, listed, kept apart from the volume, deleted in any order."""

from __future__ import annotations

import dataclasses

import pytest

from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.lineage import ChildIntent
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.snapshots import MOST_SNAPSHOTS
from csi_driver.domain.snapshots import SNAPSHOT_PREFIX
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.port import RawImage
from csi_driver.images.records import change_record
from csi_driver.provisioning import taking
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotRequest
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import fill
from tests.unit.provisioning.family import flatten
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World
from tests.unit.provisioning.worlds import until_free

LONG = "s" * 126 + "é"


def rbd_names(world: World, volume_id: VolumeId) -> list[str]:
    """Return the names of the RBD snapshots that do not linger."""
    with (
        world.pool_of(volume_id) as pool,
        pool.open_raw(volume_id.image_id, read_only=True) as image,
    ):
        return [each.name for each in image.snapshots() if not each.lingering]


def listed(world: World, volume_id: VolumeId | None = None) -> list[SnapshotInfo]:
    """Return the snapshots that are listed."""
    return list(world.volumes.list_snapshots("", 0, volume_id).snapshots)


def named(world: World, volume_id: VolumeId, name: str) -> Snapshot:
    """Return the record's entry of a snapshot."""
    found = world.record(volume_id).snapshot_named(name)
    assert found is not None
    return found


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
    with world.pool() as pool:
        Directory(pool).claim(SnapshotEntry("snap", one.image_id))
        record = change_record(
            pool, one.image_id, lambda present: taking.intended(present, "snap")
        )
        with pool.open_raw(one.image_id) as image:
            image.create_snapshot(record.snapshots[0].rbd_name)
    assert listed(world) == []
    assert listed(world, one) == []
    found = world.snapshot(one, "snap")
    assert rbd_names(world, one) == [record.snapshots[0].rbd_name]
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


def test_listing_pages_through_all_places(wide_world: World) -> None:
    world = wide_world
    ids = []
    for number, place in enumerate([{}, *world.elsewhere()]):
        one = plain_volume(world, f"volume {number}", parameters=place)
        ids += [world.snapshot(one, f"{number}.{n}") for n in range(3)]
        assert len(listed(world, one)) == 3
    pages, token = [], ""
    while True:
        page = world.volumes.list_snapshots(token, 2)
        pages.append([each.snapshot_id for each in page.snapshots])
        token = page.next_token
        if not token:
            break
    assert [len(each) for each in pages] == [2, 2, 2, 2, 1]
    found = [str(each) for page in pages for each in page]
    assert sorted(found) == sorted(map(str, ids))
    for bad in ("x", "99.", "1.2.3", "-1."):
        with pytest.raises(PendingError, match="starting_token"):
            world.volumes.list_snapshots(bad, 2)
    remove_all(world)


def test_listing_one_volumes_snapshots_by_pages(world: World) -> None:
    one = plain_volume(world)
    ids = [world.snapshot(one, f"snap {n}") for n in range(3)]
    first = world.volumes.list_snapshots("", 2, one)
    assert [each.snapshot_id for each in first.snapshots] == ids[:2]
    world.volumes.delete_snapshot(ids[1])
    rest = world.volumes.list_snapshots(first.next_token, 2, one)
    assert [each.snapshot_id for each in rest.snapshots] == ids[2:]
    assert rest.next_token == ""
    nobody = VolumeId(one.location, "0123456789ab")
    elsewhere = dataclasses.replace(one.location, cluster="another")
    no_pool = dataclasses.replace(one.location, pool_id=9999)
    for other in (nobody, VolumeId(elsewhere, "ab"), VolumeId(no_pool, "ab")):
        assert listed(world, other) == []
    with pytest.raises(PendingError, match="starting_token"):
        world.volumes.list_snapshots("x", 2, one)


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


def source_of(secrets: dict[str, str]) -> dict[str, str]:
    """Return a Secret's keys as those of a source."""
    return {
        key.replace("encryption", "sourceEncryption"): v for key, v in secrets.items()
    }


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
    with world.pool() as pool:
        Directory(pool).claim(SnapshotEntry("snap", one.image_id))
        record = change_record(
            pool, one.image_id, lambda present: taking.intended(present, "snap")
        )
        with pool.open_raw(one.image_id) as image:
            image.create_snapshot(record.snapshots[0].rbd_name)
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
