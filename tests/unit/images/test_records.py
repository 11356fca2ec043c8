# SPDX-License-Identifier: Apache-2.0
"""Records change by compare-and-set alone: no update is lost, whoever comes between."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from csi_driver.domain.chain import DEEPEST_CHAIN
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import RecordError
from csi_driver.domain.exports import ExportEntry
from csi_driver.domain.filesystem_state import FilesystemState
from csi_driver.domain.record import LONGEST_RECORD
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.domain.snapshots import MOST_SNAPSHOTS
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.domain.snapshots import new_snapshot_name
from csi_driver.images.port import Pool
from csi_driver.images.records import RECORD_KEY
from csi_driver.images.records import change_record
from csi_driver.images.records import create_record
from csi_driver.images.records import find_record
from csi_driver.images.records import read_record
from csi_driver.images.values import NewImage
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore
from tests.unit.domain.strategies import a_record


@pytest.fixture
def pool() -> Pool:
    return FakeConnector(FakeStore()).connect("fake").pool("rbd")


@pytest.fixture
def image_id(pool: Pool) -> str:
    pool.create_image(NewImage("i", RawSize(MIB), Striping(), ("layering",)))
    found = pool.find_image("i")
    assert found is not None
    return found


@pytest.fixture
def record(pool: Pool, image_id: str) -> Record:
    """Store a record that nobody exports."""
    record = dataclasses.replace(a_record(), image_id=image_id, exports=())
    create_record(pool, record)
    return record


def test_a_record_is_created_once(pool: Pool, record: Record) -> None:
    assert read_record(pool, record.image_id) == record
    with pytest.raises(ConflictError):
        create_record(pool, record)


def test_an_image_without_a_record_is_no_volume(pool: Pool, image_id: str) -> None:
    assert find_record(pool, image_id) is None
    with pytest.raises(NotFoundError, match="not a volume"):
        read_record(pool, image_id)
    with pytest.raises(NotFoundError, match="not a volume"):
        change_record(pool, image_id, lambda record: record)
    with pytest.raises(NotFoundError):
        find_record(pool, "absent")


def test_a_record_of_another_image_is_not_used(pool: Pool, image_id: str) -> None:
    other = dataclasses.replace(a_record(), image_id="other")
    pool.swap_metadata(image_id, RECORD_KEY, None, other.to_json())
    with pytest.raises(RecordError, match="belongs to image other"):
        read_record(pool, image_id)
    with pytest.raises(RecordError, match="belongs to image other"):
        change_record(pool, image_id, lambda record: record)


def test_a_record_of_an_unknown_version_stays(pool: Pool, image_id: str) -> None:
    pool.swap_metadata(image_id, RECORD_KEY, None, '{"version":3}')
    with pytest.raises(RecordError, match="version 3"):
        read_record(pool, image_id)
    with pytest.raises(RecordError, match="version 3"):
        change_record(pool, image_id, lambda record: record)
    assert pool.read_metadata(image_id, RECORD_KEY) == '{"version":3}'


def test_a_change_decides_anew_on_what_came_between(pool: Pool, record: Record) -> None:
    seen: list[EffectiveSize] = []

    def grow(present: Record) -> Record:
        seen.append(present.desired)
        if len(seen) == 1:  # somebody else is faster
            change_record(
                pool,
                record.image_id,
                lambda other: dataclasses.replace(other, desired=EffectiveSize(5)),
            )
        return dataclasses.replace(present, actual=EffectiveSize(7))

    result = change_record(pool, record.image_id, grow)
    assert seen == [record.desired, EffectiveSize(5)]
    assert (result.desired, result.actual) == (EffectiveSize(5), EffectiveSize(7))
    assert read_record(pool, record.image_id) == result


def test_a_change_that_no_longer_applies_is_given_up(
    pool: Pool,
    record: Record,
) -> None:
    """A writer on one node wins; the other is refused by what it reads."""

    def export(node: str) -> Record:
        entry = ExportEntry(node, "boot", "127.0.0.1:0/1", read_only=False)
        return change_record(
            pool,
            record.image_id,
            lambda present: present.with_export(entry),
        )

    start = threading.Barrier(2)

    def race(node: str) -> bool:
        start.wait()
        try:
            export(node)
        except PreconditionError:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(race, ["n1", "n2"])) == [False, True]
    assert len(read_record(pool, record.image_id).exports) == 1


def test_no_change_writes_nothing(pool: Pool, record: Record) -> None:
    assert change_record(pool, record.image_id, lambda same: same) == record


def test_whoever_always_loses_is_told_to_wait(pool: Pool, record: Record) -> None:
    def meddle(present: Record) -> Record:
        other = EffectiveSize(present.desired.count + 1)
        changed = dataclasses.replace(present, desired=other).to_json()
        pool.swap_metadata(record.image_id, RECORD_KEY, present.to_json(), changed)
        return dataclasses.replace(present, actual=EffectiveSize(1))

    with pytest.raises(PendingError, match="others"):
        change_record(pool, record.image_id, meddle)
    assert read_record(pool, record.image_id).actual == record.actual


def test_an_error_in_a_change_changes_nothing(pool: Pool, record: Record) -> None:
    with pytest.raises(RecordError):
        change_record(
            pool,
            record.image_id,
            lambda present: present.moved_to(VolumeState.COLLECTING),
        )
    assert read_record(pool, record.image_id) == record


def test_the_most_snapshots_of_the_deepest_chain_fit(
    pool: Pool, record: Record
) -> None:
    layers = tuple(str(uuid.uuid4()) for _ in range(DEEPEST_CHAIN))

    def snapshot(number: int) -> Snapshot:
        return Snapshot(
            name=f"{number:04}" + "é" * 62,  # six characters of JSON each
            rbd_name=new_snapshot_name(),
            state=SnapshotState.DELETING,
            filesystem=FilesystemState.FOREIGN,
            number=2**63 - 1,
            size=EffectiveSize(2**63 - 1),
            created=2**63 - 1,
            layers=layers,
            ancestors=DEEPEST_CHAIN - 1,
        )

    many = tuple(map(snapshot, range(MOST_SNAPSHOTS)))
    stored = change_record(
        pool, record.image_id, lambda old: dataclasses.replace(old, snapshots=many)
    )
    assert read_record(pool, record.image_id) == stored


def test_a_record_that_nobody_could_read_is_not_stored(
    pool: Pool, record: Record
) -> None:
    long = "x" * LONGEST_RECORD
    with pytest.raises(ExhaustedError, match="delete some of its snapshots"):
        change_record(
            pool, record.image_id, lambda old: dataclasses.replace(old, name=long)
        )
    assert read_record(pool, record.image_id) == record
