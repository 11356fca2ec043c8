# SPDX-License-Identifier: Apache-2.0
"""Deleting: in use or not, tombstones, and who is hit by it."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.images.directory import Directory
from csi_driver.images.directory import Entry
from csi_driver.images.port import Pool
from csi_driver.images.records import RECORD_KEY
from csi_driver.images.records import change_record
from csi_driver.provisioning.collection import Outcome
from csi_driver.provisioning.collection import collect
from csi_driver.provisioning.collection import pending
from csi_driver.provisioning.deletion import delete_volume
from tests.unit.provisioning.worlds import World

READER = ExportEntry("node-7", "boot", "127.0.0.1:0/1", read_only=True)


def export(pool: Pool, volume_id: VolumeId, entry: ExportEntry = READER) -> None:
    """Register an export in the record, as a worker does."""
    change_record(pool, volume_id.image_id, lambda present: present.with_export(entry))


def test_a_deleted_volume_is_gone_and_nothing_of_it_is_left(world: World) -> None:
    made = world.volumes.create(world.request("one"))
    # No Secret is needed for any of this.
    world.volumes.delete(made.volume_id)
    assert world.names() == []
    with pytest.raises(NotFoundError, match="deleted"):
        world.volumes.get(made.volume_id)
    world.volumes.delete(made.volume_id)
    world.collect_all()
    assert world.content() == {}
    assert world.images() == []
    world.volumes.delete(made.volume_id)


def test_a_late_delete_does_not_hit_the_later_volume(world: World) -> None:
    old = world.create("one")
    world.volumes.delete(old.volume_id)
    new = world.create("one")
    assert new.volume_id != old.volume_id
    # While the tombstone exists, and once it does not any more.
    world.volumes.delete(old.volume_id)
    assert world.volumes.get(new.volume_id) == new
    assert world.names() == ["one"]
    world.collect_all()
    before = world.content()
    world.volumes.delete(old.volume_id)
    assert world.content() == before
    assert world.volumes.get(new.volume_id) == new
    assert world.names() == ["one"]


def test_the_owner_of_the_lock_keeps_the_volume(world: World) -> None:
    made = world.create("one")
    with world.pool() as pool, pool.open_raw(made.volume_id.image_id) as image:
        image.acquire_lock()
        writer = dataclasses.replace(READER, read_only=False)
        export(pool, made.volume_id, writer)
        before = world.content()
        with pytest.raises(InUseError, match=r"'one'.*node-7"):
            world.volumes.delete(made.volume_id)
        assert world.content() == before
    assert world.names() == ["one"]
    world.volumes.delete(made.volume_id)
    assert world.names() == []


def test_who_has_it_open_for_a_moment_does_not_keep_it(world: World) -> None:
    """Such as librbd, which opens the parent of a clone that it removes."""
    made = world.create("one")
    ceph = world.connector.connect(world.cluster)
    passing = ceph.pool(world.pool_name, world.namespace)
    image = passing.open_raw(made.volume_id.image_id)
    closing = threading.Timer(0.3, image.close)
    closing.start()
    world.volumes.delete(made.volume_id)
    closing.join()
    ceph.close()
    assert world.names() == []


def test_a_watcher_without_a_lock_keeps_the_volume(world: World) -> None:
    made = world.create("one")
    with world.pool() as pool, pool.open_raw(made.volume_id.image_id):
        export(pool, made.volume_id)
        with pytest.raises(InUseError, match="node-7"):
            world.volumes.delete(made.volume_id)
    world.volumes.delete(made.volume_id)
    world.collect_all()
    assert world.content() == {}


class LateReader:
    """A pool of the deleting call; a reader comes right before its mark.

    It opens the image and registers itself after the delete has looked for
    watchers and read the record, just before the record is swapped.
    """

    def __init__(self, pool: Pool, reader: Pool, volume_id: VolumeId) -> None:
        self._pool = pool
        self._reader = reader
        self._volume_id = volume_id
        self.handle: object = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)

    def swap_metadata(self, image_id: str, key: str, old: str | None, new: str) -> None:
        if self.handle is None:
            self.handle = self._reader.open_raw(self._volume_id.image_id)
            export(self._reader, self._volume_id)
        self._pool.swap_metadata(image_id, key, old, new)


def test_a_reader_that_comes_between_check_and_mark_wins(world: World) -> None:
    made = world.create("one")
    with world.pool() as own, world.pool() as other:
        hooked = LateReader(own, other, made.volume_id)
        with pytest.raises(InUseError, match="node-7"):
            delete_volume(hooked, made.volume_id.image_id)  # type: ignore[arg-type]
        assert hooked.handle is not None
        assert world.volumes.get(made.volume_id).nodes == ("node-7",)
    world.volumes.delete(made.volume_id)
    assert world.names() == []


def test_a_snapshot_makes_a_tombstone_that_waits(world: World) -> None:
    made = world.volumes.create(world.request("one"))
    image_id = made.volume_id.image_id
    world.add_snapshot(image_id, "kept")
    world.volumes.delete(made.volume_id)
    assert world.names() == []
    world.collect()
    with world.pool() as pool:
        (entry,) = pending(pool)
        assert collect(pool, entry).outcome is Outcome.KEPT
        with pool.open_raw(image_id, read_only=True) as image:
            assert image.read_header(4) == b"LUKS"
    assert world.record(made.volume_id).state is VolumeState.DELETED
    assert world.record(made.volume_id).ring is not None
    # The name is free meanwhile.
    again = world.create("one")
    world.remove_snapshot(image_id, "kept")
    world.collect_all()
    assert world.names() == ["one"]
    world.volumes.delete(again.volume_id)
    world.collect_all()
    assert world.content() == {}


def test_a_clone_keeps_the_tombstone_even_without_its_snapshot(world: World) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    world.add_snapshot(image_id, "source")
    world.add_clone(image_id, "source", "child")
    world.remove_snapshot(image_id, "source")
    world.volumes.delete(made.volume_id)
    with world.pool() as pool:
        (entry,) = pending(pool)
        assert collect(pool, entry).outcome is Outcome.KEPT
    world.remove_image("child")
    world.collect_all()
    assert world.content() == {}


def test_a_tombstone_that_somebody_has_open_waits(world: World) -> None:
    made = world.create("one")
    world.volumes.delete(made.volume_id)
    with world.pool() as pool, world.pool() as other:
        (entry,) = pending(pool)
        with other.open_raw(made.volume_id.image_id):
            assert collect(pool, entry).outcome is Outcome.BUSY
        assert collect(pool, entry).outcome is Outcome.REMOVED
    assert world.content() == {}


def test_a_volume_that_is_being_made_is_not_deleted(world: World) -> None:
    made = world.create("one")
    with world.pool() as pool:
        text = world.record(made.volume_id).to_json()
        half = dataclasses.replace(
            world.record(made.volume_id), state=VolumeState.CREATING
        )
        pool.swap_metadata(made.volume_id.image_id, RECORD_KEY, text, half.to_json())
    with pytest.raises(PendingError, match="being created"):
        world.volumes.delete(made.volume_id)
    assert world.names() == []


def test_one_bad_tombstone_does_not_keep_the_others(world: World) -> None:
    volumes = [world.create(f"volume-{number}") for number in range(3)]
    # A live volume that somebody listed as deleted: it must be left alone.
    live = min(volumes, key=lambda each: each.volume_id.image_id)
    with world.pool() as pool:
        directory = Directory(pool)
        entry = directory.find(world.record(live.volume_id).name)
        assert entry is not None
        directory.bury(entry)
    for each in volumes:
        if each is not live:
            world.volumes.delete(each.volume_id)
    world.collect()
    assert [each for *_, each in world.collector.pending()] == [entry]
    assert world.images() == [entry.image_name]
    assert world.record(live.volume_id).state is VolumeState.READY


def test_a_foreign_image_under_a_tombstones_name_is_left_alone(world: World) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    world.volumes.delete(made.volume_id)
    with world.pool() as pool:
        (entry,) = pending(pool)
        # As if the image had been removed by hand and made again by others.
        other = Entry("one", entry.image_name, "123abc456def")
        Directory(pool).forget(entry)
        Directory(pool).claim(other)
        Directory(pool).bury(other)
        assert collect(pool, other).outcome is Outcome.REMOVED
        assert pending(pool) == []
        assert pool.find_image(entry.image_name) == image_id


def test_the_collecting_thread_collects_soon_after_a_delete(world: World) -> None:
    world.collector.start()
    try:
        made = world.create("one")
        world.volumes.delete(made.volume_id)
        gone = threading.Event()
        for _ in range(200):
            if not world.images():
                break
            gone.wait(0.05)
        assert world.images() == []
    finally:
        world.collector.stop()


def test_a_record_says_collecting_before_the_keys_are_destroyed(world: World) -> None:
    made = world.volumes.create(world.request("one"))
    world.volumes.delete(made.volume_id)
    seen: list[Record] = []

    class Watching:
        def __init__(self, pool: Pool) -> None:
            self._pool = pool

        def __getattr__(self, name: str) -> object:
            return getattr(self._pool, name)

        def remove_image(self, name: str) -> None:
            seen.append(world.record(made.volume_id))
            self._pool.remove_image(name)

    with world.pool() as pool:
        (entry,) = pending(pool)
        collect(Watching(pool), entry)  # type: ignore[arg-type]
    (record,) = seen
    assert record.state is VolumeState.COLLECTING
    assert record.ring is None
