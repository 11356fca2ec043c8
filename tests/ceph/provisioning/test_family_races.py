# SPDX-License-Identifier: Apache-2.0
"""Snapshots and clones in the making on real Ceph, while others come in between.

tests/unit/provisioning/test_family_races goes through every interleaving on the
fake; here every call is one case, or every one that changes something.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import SnapshotRequest
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.test_killed_family import CHANGING
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
from tests.unit.provisioning.worlds import until_free

MKFS_CASES = 20
CONTROLLERS = 4


@pytest.mark.timeout(240)
def test_a_snapshot_while_its_volume_is_deleted_and_collected(
    world: CephWorld,
) -> None:
    one = plain_volume(world, "whole")
    count = calls_of_snapshot(world, one)
    outcomes = set()
    for at in range(1, count + 1):
        one = plain_volume(world, f"volume {at}")
        request = SnapshotRequest(f"snapshot {at}", one)
        delete = deletion(world, one)
        ended = raced(
            world,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            dict.fromkeys(range(at, 4 * count), delete),
        )
        outcomes.add(type(ended.error))
        if ended.answer is None:
            assert isinstance(ended.error, (NotFoundError, PendingError)), ended
            continue
        found = ended.answer.snapshot_id
        assert world.volumes.get_snapshot(found) == ended.answer
        twin = plain_clone(world, found, f"clone {at}")
        assert content_of(world, twin) == {"the source's"}
    assert {type(None), NotFoundError} <= outcomes
    remove_all(world)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_a_clone_while_its_source_is_deleted_and_collected(
    world: CephWorld, kind: str
) -> None:
    def prepare(name: str) -> tuple[VolumeId, VolumeId | SnapshotId, CreateRequest]:
        if kind == "volume":
            one = plain_volume(world, name)
            return one, one, plain_request(world, one, f"clone of {name}")
        one = volume(world, name)
        found = world.snapshot(one, name)
        secrets = {**OTHER, **SOURCE}
        request = clone_request(world, found, f"clone of {name}", secrets=secrets)
        return one, found, request

    _, _, whole = prepare("whole")
    calls = calls_of(world, lambda c: c.volumes.create(whole))
    changing = [n for n, name in enumerate(calls, 1) if name in CHANGING]
    # Encrypted ones take their time: every other call is enough for them here.
    chosen = changing[:: 1 if kind == "volume" else 2]
    outcomes = set()
    for at in chosen:
        one, source, request = prepare(f"volume {at}")
        doomed = (one,) if source == one else (source, one)
        delete = deletion(world, *doomed)
        ended = raced(
            world,
            lambda c: c.volumes.create(request),  # noqa: B023
            dict.fromkeys(range(at, at + 3), delete),
        )
        outcomes.add(type(ended.error))
        if ended.answer is None:
            assert isinstance(ended.error, (NotFoundError, PendingError)), ended
            assert request.name not in world.names()
            continue
        delete()
        text = content_of(world, ended.answer.volume_id, OTHER)
        assert text == {"the source's"}, ended.calls
    assert {type(None), NotFoundError} <= outcomes
    remove_all(world)


@pytest.mark.timeout(240)
def test_a_snapshot_while_a_filesystem_is_made(world: CephWorld) -> None:
    one = plain_volume(world, "whole")
    count = calls_of_snapshot(world, one)
    chosen = random.Random(7).sample(list(pairs(count)), MKFS_CASES)  # noqa: S311  # no secret
    for number, (first, second) in enumerate(chosen):
        name = f"volume {number}"
        one = world.volumes.create(world.plaintext(name, SIZE)).volume_id
        request = SnapshotRequest(f"snapshot {number}", one)
        raced_by_mkfs(
            world,
            one,
            lambda c: c.volumes.create_snapshot(request),  # noqa: B023
            begin=first,
            finish=second,
        )
        found = world.volumes.create_snapshot(request).snapshot_id
        (snapshot,) = world.record(one).snapshots
        twin = plain_clone(world, found, f"clone {number}")
        assert world.record(twin).filesystem is snapshot.filesystem
        require_right(snapshot.filesystem, content_of(world, twin))
    remove_all(world)


def at_once[T](world: CephWorld, call: Callable[[int], T]) -> list[T]:
    """Call in several threads at once until each has got an answer."""
    found: list[T] = []
    failed: list[DriverError] = []
    start = threading.Barrier(CONTROLLERS)

    def run(number: int) -> None:
        start.wait()
        try:
            found.append(until_free(lambda: call(number)))
        except DriverError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(CONTROLLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert world.names()
    return found


def test_all_controllers_that_take_one_snapshot_get_the_same(world: CephWorld) -> None:
    one = plain_volume(world)
    volumes = [world.controller().volumes for _ in range(CONTROLLERS)]
    for name in ("first", "second", "third"):
        request = SnapshotRequest(name, one)
        found = at_once(world, lambda n: volumes[n].create_snapshot(request))  # noqa: B023
        assert len(set(map(str, found))) == 1
    assert len(world.record(one).snapshots) == 3
    remove_all(world)


def test_all_controllers_that_make_one_clone_get_the_same(world: CephWorld) -> None:
    one = plain_volume(world)
    volumes = [world.controller().volumes for _ in range(CONTROLLERS)]
    for name in ("first", "second"):
        request = clone_request(world, one, name, secrets=OTHER)
        found = at_once(world, lambda n: volumes[n].create(request))  # noqa: B023
        assert len({str(each.volume_id) for each in found}) == 1
        assert content_of(world, found[0].volume_id, OTHER) == {"the source's"}
    world.collect_all()
    assert len(world.images()) == 3
    world.snapshot(one, "it settles what is over")
    assert world.record(one).children == ()
    remove_all(world)
