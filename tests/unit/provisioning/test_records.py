# SPDX-License-Identifier: Apache-2.0
"""Two writers of one record: no part of it is ever lost.

Each writer decides on what it read while the other stores its change in
between; afterwards both changes are there, or the later one is refused.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.records import RECORD_KEY
from csi_driver.images.records import change_record
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import new_ring
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import World

type Change = Callable[[Record], Record]

RING, _ = new_ring(parse_key_source(SECRET), "7a8e2a62-6c3c-4a51-9d0b-0f7c6f6c2b5e")
ENTRY = ExportEntry("node-1", "boot", "127.0.0.1:0/1", read_only=True)
OTHER_ENTRY = ExportEntry("node-2", "boot", "127.0.0.1:0/2", read_only=True)


def deleted(present: Record) -> Record:
    return present.require_ready().moved_to(VolumeState.DELETED)


def grown(present: Record) -> Record:
    return dataclasses.replace(present, desired=EffectiveSize(2 * GIB))


def resized(present: Record) -> Record:
    return dataclasses.replace(present, actual=EffectiveSize(2 * GIB))


def formatted(present: Record) -> Record:
    return dataclasses.replace(present, filesystem=FilesystemState.XFS)


def keyed(present: Record) -> Record:
    return dataclasses.replace(present, ring=RING)


def exported(present: Record) -> Record:
    return present.with_export(ENTRY)


def also_exported(present: Record) -> Record:
    return present.with_export(OTHER_ENTRY)


CHANGES: dict[str, Change] = {
    "state": deleted,
    "desired": grown,
    "actual": resized,
    "filesystem": formatted,
    "ring": keyed,
    "exports": exported,
    "more exports": also_exported,
}
PAIRS = [(one, other) for one in CHANGES for other in CHANGES if one != other]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_changes_at_once_are_both_there(world: World, one: str, other: str) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    before = world.record(made.volume_id)
    with world.pool() as first, world.pool() as second:
        read: list[Record] = []

        def overtaken(present: Record) -> Record:
            read.append(present)
            if len(read) == 1:
                change_record(second, image_id, CHANGES[other])
            return CHANGES[one](present)

        stored = change_record(first, image_id, overtaken)
    # It decided a second time, on what the other had stored.
    assert read == [before, CHANGES[other](before)]
    assert stored == world.record(made.volume_id)
    assert stored == CHANGES[one](CHANGES[other](before))
    assert stored != CHANGES[one](before)
    assert stored != CHANGES[other](before)


@pytest.mark.parametrize("part", list(CHANGES))
def test_a_stale_read_is_never_stored(world: World, part: str) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    with world.pool() as pool:
        stale = world.record(made.volume_id)
        text = stale.to_json()
        change_record(pool, image_id, CHANGES[part])
        present = world.record(made.volume_id)
        for change in CHANGES.values():
            with pytest.raises(ConflictError):
                pool.swap_metadata(image_id, RECORD_KEY, text, change(stale).to_json())
        with pytest.raises(ConflictError):
            pool.swap_metadata(image_id, RECORD_KEY, None, text)
        assert world.record(made.volume_id) == present


def test_a_change_that_no_longer_applies_is_refused(world: World) -> None:
    made = world.create("one")
    with world.pool() as first, world.pool() as second:
        tries: list[Record] = []

        def mount(present: Record) -> Record:
            tries.append(present)
            if len(tries) == 1:
                change_record(second, made.volume_id.image_id, deleted)
            return present.require_ready().with_export(ENTRY)

        with pytest.raises(NotFoundError, match="deleted"):
            change_record(first, made.volume_id.image_id, mount)
    assert world.record(made.volume_id).exports == ()


def test_many_writers_lose_nothing(world: World) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    failures: list[BaseException] = []

    def register(writer: int) -> None:
        try:
            with world.pool() as pool:
                for turn in range(5):
                    name = f"node-{writer}-{turn}"
                    entry = dataclasses.replace(ENTRY, node_id=name)
                    change_record(pool, image_id, lambda r, e=entry: r.with_export(e))  # type: ignore[misc]
        except BaseException as error:  # shown by the assertion below
            failures.append(error)
            raise

    threads = [threading.Thread(target=register, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    names = {each.node_id for each in world.record(made.volume_id).exports}
    assert names == {f"node-{n}-{turn}" for n in range(3) for turn in range(5)}


def test_whoever_loses_all_the_time_is_told_so(world: World) -> None:
    made = world.create("one")
    image_id = made.volume_id.image_id
    with world.pool() as first, world.pool() as second:
        count = iter(range(1000))

        def overtaken(present: Record) -> Record:
            node = f"node-{next(count)}"
            entry = dataclasses.replace(ENTRY, node_id=node)
            change_record(second, image_id, lambda other: other.with_export(entry))
            return formatted(present)

        with pytest.raises(PendingError, match="all the time"):
            change_record(first, image_id, overtaken)
    assert world.record(made.volume_id).filesystem is FilesystemState.NONE


def store(world: World, image_id: str, old: str, new: str) -> None:
    with world.pool() as pool:
        pool.swap_metadata(image_id, RECORD_KEY, old, new)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"version":2', '"version":3', "version 3"),
        ('"state":"ready"', '"state":"fine"', "damaged"),
        ('"reserve":', '"reserved":', "damaged"),
        ('"version":2', "{", "not JSON"),
    ],
)
def test_a_record_that_cannot_be_read_changes_nothing(
    world: World, old: str, new: str, said: str
) -> None:
    made = world.create("one")
    fine = world.create("two")
    image_id = made.volume_id.image_id
    text = world.record(made.volume_id).to_json()
    assert old in text
    store(world, image_id, text, text.replace(old, new))
    before = world.content()
    calls: list[Callable[[], object]] = [
        lambda: world.create("one"),
        lambda: world.volumes.delete(made.volume_id),
        lambda: world.volumes.get(made.volume_id),
        lambda: world.volumes.expand(made.volume_id, world.request("x").capacity),
    ]
    for call in calls:
        with pytest.raises(RecordError, match=said):
            call()
    # The others are listed all the same.
    assert [each.volume_id for each in world.volumes.list("", 0).volumes] == [
        fine.volume_id
    ]
    assert world.content() == before


def test_a_record_copied_from_another_image_is_not_used(world: World) -> None:
    made = world.create("one")
    other = world.create("two")
    text = world.record(made.volume_id).to_json()
    with world.pool() as pool:
        foreign = world.record(other.volume_id).to_json()
        pool.swap_metadata(made.volume_id.image_id, RECORD_KEY, text, foreign)
    for call in (world.volumes.delete, world.volumes.get):
        with pytest.raises(RecordError, match="belongs to image"):
            call(made.volume_id)
    grow = world.request("x", 2 * GIB).capacity
    with pytest.raises(RecordError, match="belongs to image"):
        world.volumes.expand(made.volume_id, grow)
    assert world.record(other.volume_id).state is VolumeState.READY
