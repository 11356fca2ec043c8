# SPDX-License-Identifier: Apache-2.0
"""A controller that dies between any two calls while it snapshots or clones.

As in test_interrupted, on the fake; tests/ceph/provisioning kills real processes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.images.directory import Directory
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import SnapshotRequest
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SOURCE
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_request
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import remove_all
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.test_interrupted import forget_the_dead
from tests.unit.provisioning.test_interrupted import interrupted
from tests.unit.provisioning.worlds import FakeWorld
from tests.unit.provisioning.worlds import until_free

MOST = 120

type Source = VolumeId | SnapshotId
type Prepared = tuple[VolumeId, Source, CreateRequest]


def of_volume(world: FakeWorld) -> Prepared:
    one = plain_volume(world)
    return one, one, plain_request(world, one)


def of_snapshot(world: FakeWorld) -> Prepared:
    one = plain_volume(world)
    found = world.snapshot(one, "snap")
    return one, found, plain_request(world, found)


def encrypted_of_volume(world: FakeWorld) -> Prepared:
    one = volume(world)
    return one, one, clone_request(world, one, secrets={**OTHER, **SOURCE})


KINDS = [of_volume, of_snapshot]


def deaths(
    prepare: Callable[[FakeWorld], Prepared],
    check: Callable[[FakeWorld, Prepared, list[str]], None],
    first: int = 1,
    step: int = 1,
) -> int:
    """Let a clone die at every call, and check what comes of it."""
    for at in range(first, MOST, step):
        world = FakeWorld()
        prepared = prepare(world)
        died, calls = interrupted(
            world,
            lambda c: c.volumes.create(prepared[2]),  # noqa: B023
            at,
        )
        if not died:
            return at
        check(world, prepared, calls)
        world.close()
    message = f"it takes more than {MOST} calls"
    raise AssertionError(message)


def delete_source(world: FakeWorld, one: VolumeId, source: Source) -> None:
    """Delete what is cloned; only a clone in the making is waited for."""
    forget_the_dead(world)
    if isinstance(source, SnapshotId):
        until_free(lambda: world.volumes.delete_snapshot(source))
    world.volumes.delete(one)
    world.collect()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("prepare", [*KINDS, encrypted_of_volume])
def test_a_clone_that_died_is_made_by_the_next_call(
    prepare: Callable[[FakeWorld], Prepared],
) -> None:
    def check(world: FakeWorld, prepared: Prepared, calls: list[str]) -> None:
        one, _, request = prepared
        made = until_free(lambda: world.volumes.create(request))
        assert content_of(world, made.volume_id, OTHER) == {"the source's"}, calls
        forget_the_dead(world)
        assert world.names() == ["clone", "one"]
        world.collect_all()
        assert len(world.images()) == 2, calls
        # Whoever looks at the source next lets go of what nobody makes any more.
        world.snapshot(one, "another")
        record = world.record(one)
        assert record.children == ()
        assert [each.name for each in record.snapshots if each.internal] == []
        remove_all(world)

    # Up to the 20th call an encrypted clone is made like another one, and its
    # headers take their time.
    first, step = (20, 2) if prepare is encrypted_of_volume else (1, 1)
    assert deaths(prepare, check, first, step) > 30


@pytest.mark.parametrize("prepare", KINDS)
def test_a_clone_that_died_needs_its_source_only_to_begin(
    prepare: Callable[[FakeWorld], Prepared],
) -> None:
    outcomes = set()

    def check(world: FakeWorld, prepared: Prepared, calls: list[str]) -> None:
        one, source, request = prepared
        delete_source(world, one, source)
        try:
            made = until_free(lambda: world.volumes.create(request))
        except NotFoundError:
            outcomes.add("refused")
            assert world.names() == []
        else:
            outcomes.add("made")
            assert content_of(world, made.volume_id, OTHER) == {"the source's"}, calls
        forget_the_dead(world)
        remove_all(world)

    assert deaths(prepare, check) > 20
    assert outcomes == {"refused", "made"}


@pytest.mark.parametrize("prepare", KINDS)
def test_a_clone_that_died_for_good_does_not_keep_its_source(
    prepare: Callable[[FakeWorld], Prepared],
) -> None:
    def check(world: FakeWorld, prepared: Prepared, calls: list[str]) -> None:
        one, source, _ = prepared
        delete_source(world, one, source)
        with world.pool() as pool:
            begun = [each for _, each in Directory(pool).volumes("", 10)]
        # A name alone may be left: that is as if nothing had been made.
        if any(each.image_id for each in begun):
            assert len(world.images()) == 2, calls
            return
        world.collect_all()
        assert world.images() == [], calls

    assert deaths(prepare, check) > 20


@pytest.mark.parametrize("deleted", [False, True])
def test_a_snapshot_that_died_is_taken_by_the_next_call(*, deleted: bool) -> None:
    for at in range(1, MOST):
        world = FakeWorld()
        one = plain_volume(world)
        request = SnapshotRequest("snap", one)
        died, calls = interrupted(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            at,
        )
        if not died:
            assert at > 10
            return
        if deleted:
            forget_the_dead(world)
            world.volumes.delete(one)
            world.collect()
            for each in world.volumes.list_snapshots("", 0, one).snapshots:
                world.volumes.delete_snapshot(each.snapshot_id)
            world.collect_all()
            assert world.content() == {}, calls
            continue
        made = world.volumes.create_snapshot(request)
        assert world.volumes.create_snapshot(request) == made
        assert world.volumes.list_snapshots("", 0).snapshots == (made,)
        assert len(world.record(one).snapshots) == 1
        forget_the_dead(world)
        remove_all(world)
        world.close()


@pytest.mark.parametrize("repeated", [False, True])
def test_a_deleted_snapshot_that_died_goes(*, repeated: bool) -> None:
    for at in range(1, MOST):
        world = FakeWorld()
        one = plain_volume(world)
        found = world.snapshot(one, "snap")
        died, calls = interrupted(
            world,
            lambda c: c.volumes.delete_snapshot(found),  # noqa: B023
            at,
        )
        if not died:
            assert at > 8
            return
        if repeated:
            world.volumes.delete_snapshot(found)
            assert world.record(one).snapshots == (), calls
            assert world.volumes.list_snapshots("", 0).snapshots == ()
        forget_the_dead(world)
        remove_all(world)
        world.close()
