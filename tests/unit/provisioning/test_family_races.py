# SPDX-License-Identifier: Apache-2.0
"""Snapshots and clones in the making, while others delete, collect and make.

The others come in before each call, one call in each run, so that every
interleaving of the two is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import SnapshotRequest
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_clone
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.races import calls_of
from tests.unit.provisioning.races import calls_of_snapshot
from tests.unit.provisioning.races import deletion
from tests.unit.provisioning.races import pairs
from tests.unit.provisioning.races import raced
from tests.unit.provisioning.races import raced_by_mkfs
from tests.unit.provisioning.races import require_right
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import loaded
from tests.unit.provisioning.worlds import until_free

type Source = VolumeId | SnapshotId
type Prepared = tuple[VolumeId, Source, CreateRequest]


def of_volume(world: FakeWorld) -> Prepared:
    one = plain_volume(world)
    return one, one, plain_request(world, one)


def of_snapshot(world: FakeWorld) -> Prepared:
    one = plain_volume(world)
    found = world.snapshot(one, "snap")
    return one, found, plain_request(world, found)


def of_encrypted(world: FakeWorld) -> Prepared:
    one = volume(world)
    found = world.snapshot(one, "snap")
    return one, found, clone_request(world, found, secrets={**OTHER, **SOURCE})


def test_a_snapshot_while_its_volume_is_deleted_and_collected() -> None:
    world = FakeWorld()
    one = plain_volume(world)
    count = calls_of_snapshot(world, one)
    outcomes = set()
    for at in range(1, count + 1):
        world = FakeWorld()
        one = plain_volume(world)
        request = SnapshotRequest("snap", one)
        delete = deletion(world, one)
        ended = raced(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            dict.fromkeys(range(at, 4 * count), delete),
        )
        outcomes.add(type(ended.error))
        world.collect()
        if ended.answer is None:
            assert isinstance(ended.error, (NotFoundError, PendingError)), ended
            assert world.volumes.list_snapshots("", 0).snapshots == ()
        else:
            found = ended.answer.snapshot_id
            assert world.volumes.get_snapshot(found) == ended.answer
            twin = plain_clone(world, found)
            assert content_of(world, twin) == {"the source's"}
        remove_all(world)
        world.close()
    assert {type(None), NotFoundError} <= outcomes


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [of_volume, of_snapshot, of_encrypted])
def test_a_clone_while_its_source_is_deleted_and_collected(
    prepare: Callable[[FakeWorld], Prepared],
) -> None:
    world = FakeWorld()
    _, _, request = prepare(world)
    calls = calls_of(world, lambda c: c.volumes.create(request))
    count = len(calls)
    # Up to there an encrypted clone is made like another one, but not as fast.
    first = calls.index("pool.clone_image") if prepare is of_encrypted else 0
    outcomes = set()
    for at in range(first + 1, count + 1):
        world = FakeWorld()
        one, source, request = prepare(world)
        doomed = (one,) if source == one else (source, one)
        delete = deletion(world, *doomed)
        ended = raced(
            world,
            lambda c: c.volumes.create(request),  # noqa: B023
            dict.fromkeys(range(at, 4 * count), delete),
        )
        outcomes.add(type(ended.error))
        if ended.answer is None:
            assert isinstance(ended.error, (NotFoundError, PendingError)), ended
            assert not isinstance(ended.error, ConflictError)
            assert "clone" not in world.names()
        else:
            delete()
            assert world.names() == ["clone"]
            text = content_of(world, ended.answer.volume_id, OTHER)
            assert text == {"the source's"}, ended.calls
        remove_all(world)
        world.close()
    assert type(None) in outcomes
    assert first or NotFoundError in outcomes


def test_a_snapshot_that_two_controllers_take() -> None:
    world = FakeWorld()
    one = plain_volume(world)
    count = calls_of_snapshot(world, one)
    for at in range(1, count + 1):
        request = SnapshotRequest(f"snap {at}", one)
        found = []
        other = lambda: found.append(world.volumes.create_snapshot(request))  # noqa: B023, E731
        ended = raced(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            {at: other},
        )
        assert ended.error is None
        assert found == [ended.answer]
    assert len(world.record(one).snapshots) == count + 1
    assert len(world.volumes.list_snapshots("", 0).snapshots) == count + 1
    remove_all(world)


def test_a_snapshot_that_one_takes_and_another_deletes() -> None:
    world = FakeWorld()
    one = plain_volume(world)
    count = calls_of_snapshot(world, one)
    for at in range(1, count + 1):
        request = SnapshotRequest(f"snap {at}", one)

        def other() -> None:
            made = world.volumes.create_snapshot(request)  # noqa: B023
            world.volumes.delete_snapshot(made.snapshot_id)

        ended = raced(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            {at: other},
        )
        again = world.volumes.create_snapshot(request)
        assert ended.error is None or isinstance(ended.error, PendingError)
        world.volumes.delete_snapshot(again.snapshot_id)
        if ended.answer is not None:
            world.volumes.delete_snapshot(ended.answer.snapshot_id)
        names = [each.name for each in world.record(one).snapshots]
        assert names == ["whole"], ended.calls
    remove_all(world)


@pytest.mark.parametrize("prepare", [of_volume, of_snapshot])
def test_a_clone_that_two_controllers_make(
    prepare: Callable[[FakeWorld], Prepared],
) -> None:
    world = FakeWorld()
    _, _, request = prepare(world)
    count = len(calls_of(world, lambda c: c.volumes.create(request)))
    for at in range(1, count + 1):
        world = FakeWorld()
        one, _, request = prepare(world)
        found = []

        def other() -> None:
            try:
                found.append(world.volumes.create(request))  # noqa: B023
            except PendingError:
                return

        ended = raced(world, lambda c: c.volumes.create(request), {at: other})  # noqa: B023
        assert ended.error is None or isinstance(ended.error, PendingError)
        made = until_free(lambda: world.volumes.create(request))  # noqa: B023
        for each in (*found, ended.answer):
            assert each is None or each == made
        assert content_of(world, made.volume_id) == {"the source's"}
        assert world.names() == ["clone", "one"]
        world.collect_all()
        assert len(world.images()) == 2
        world.snapshot(one, "another")  # it settles what is over
        assert world.record(one).children == ()
        remove_all(world)
        world.close()


def test_a_snapshot_while_a_filesystem_is_made() -> None:
    world = FakeWorld()
    one = world.create("one").volume_id
    count = calls_of_snapshot(world, one)
    seen = set()
    for first, second in pairs(count):
        world = FakeWorld()
        one = world.volumes.create(world.plaintext("one", SIZE)).volume_id
        request = SnapshotRequest("snap", one)
        raced_by_mkfs(
            world,
            one,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            begin=first,
            finish=second,
        )
        found = world.volumes.create_snapshot(request).snapshot_id
        (snapshot,) = world.record(one).snapshots
        seen.add(snapshot.filesystem)
        twin = plain_clone(world, found)
        assert world.record(twin).filesystem is snapshot.filesystem
        require_right(snapshot.filesystem, content_of(world, twin))
        world.close()
    assert len(seen) == 2


def test_a_clone_while_its_sources_filesystem_is_made() -> None:
    world = FakeWorld()
    _, _, request = of_volume(world)
    count = len(calls_of(world, lambda c: c.volumes.create(request)))
    seen = set()
    for first, second in pairs(count, 2):
        world = FakeWorld()
        one = world.volumes.create(world.plaintext("one", SIZE)).volume_id
        request = plain_request(world, one)
        raced_by_mkfs(
            world,
            one,
            lambda c: c.volumes.create(request),  # noqa: B023
            begin=first,
            finish=second,
        )
        twin = until_free(lambda: world.volumes.create(request)).volume_id  # noqa: B023
        state = world.record(twin).filesystem
        seen.add(state)
        require_right(state, content_of(world, twin))
        world.close()
    assert len(seen) == 2


def test_a_snapshot_while_its_volume_grows() -> None:
    world = FakeWorld()
    one = volume(world)
    count = calls_of_snapshot(world, one)

    def grow() -> None:
        record = world.record(one)
        size = EffectiveSize(record.actual.count + BLOCK_SIZE)
        with world.pool() as pool, loaded(pool, record) as image:
            image.grow(size)
        world.change(one, actual=size, desired=size)

    for at in range(1, count + 1):
        request = SnapshotRequest(f"snap {at}", one)
        ended = raced(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            {at: grow},
        )
        assert ended.answer is not None
        found = ended.answer
        with (
            world.pool() as pool,
            loaded(
                pool,
                world.record(one),
                read_only=True,
                snapshot=found.snapshot_id.number,
            ) as image,
        ):
            assert image.size() == found.size
    remove_all(world)
