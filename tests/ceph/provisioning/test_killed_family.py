# SPDX-License-Identifier: Apache-2.0
"""A controller killed by SIGKILL while it takes, deletes or clones snapshots.

It is killed before and behind each call that changes anything; what dies at a
call that only reads leaves the same as one of those.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.testing.crash import Crash
from csi_driver.testing.faults import Fault
from csi_driver.testing.faults import FaultyConnector
from csi_driver.testing.faults import Steps
from csi_driver.testing.faults import When
from tests.ceph.provisioning import work
from tests.ceph.provisioning.real import CephWorld
from tests.ceph.provisioning.test_killed import killed
from tests.unit.provisioning.family import OTHER
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import content_of
from tests.unit.provisioning.family import plain_volume
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import until_free

CHANGING = {
    "image.acquire_lock",
    "image.change_setting",
    "image.close",
    "image.create_snapshot",
    "image.erase_header",
    "image.remove_snapshot",
    "image.write_clone_header",
    "pool.clone_image",
    "pool.open_raw",
    "pool.swap_entries",
    "pool.swap_metadata",
}
AT_ONCE = 3
WAITING = 8
"""Retries at once: they mostly wait for the watch of a dead process to end."""

type Subject = Callable[[str], dict[str, Any]]
type Case = dict[str, Any]


def kill_around_changes(world: CephWorld, name: str, subject: Subject) -> list[Case]:
    """Kill fresh work around each change it makes; returns what it was done to."""
    steps = Steps(Fault(0))
    getattr(work, name)(
        FaultyConnector(world.connector, steps), _given(world, subject, f"{name} whole")
    )
    changes = [n for n, call in enumerate(steps.names, 1) if call in CHANGING]
    faults = [Fault(n, When.BEFORE) for n in changes]
    faults.append(Fault(changes[-1], When.AFTER))
    names = set()

    def run(fault: Fault) -> Case:
        given = _given(world, subject, f"{name} {fault.at} {fault.when.value}")
        crash: Crash | None = killed(name, given, fault)
        assert crash is not None
        names.add(crash.name)
        return given

    with ThreadPoolExecutor(AT_ONCE) as threads:
        cases = list(threads.map(run, faults))
    assert len(names) > 3
    return cases


def _given(world: CephWorld, subject: Subject, name: str) -> Case:
    return {"name": name, "config": world.config_text, **subject(name)}


def for_all[T](cases: list[Case], call: Callable[[Case], T]) -> list[T]:
    with ThreadPoolExecutor(WAITING) as threads:
        return list(threads.map(call, cases))


def remove_everything(world: CephWorld) -> None:
    """Delete all that is listed; nothing may be left."""
    snapshots = world.volumes.list_snapshots("", 0).snapshots
    volumes = world.volumes.list("", 0).volumes
    delete = world.volumes.delete
    with ThreadPoolExecutor(WAITING) as threads:
        list(
            threads.map(
                lambda s: until_free(
                    lambda: world.volumes.delete_snapshot(s.snapshot_id)
                ),
                snapshots,
            )
        )
        list(threads.map(lambda v: until_free(lambda: delete(v.volume_id)), volumes))
    world.collect_all()
    assert world.content() == {}


@pytest.mark.timeout(300)
def test_create_snapshot_killed_around_every_change(world: CephWorld) -> None:
    cases = kill_around_changes(
        world, "take_snapshot", lambda name: {"id": str(plain_volume(world, name))}
    )

    def again(case: Case) -> None:
        volume_id = VolumeId.parse(case["id"])
        found = until_free(lambda: world.snapshot(volume_id, case["name"]))
        assert world.snapshot(volume_id, case["name"]) == found
        (snapshot,) = world.record(volume_id).snapshots
        assert snapshot.size.count == SIZE
        with world.pool() as pool, pool.open_raw(volume_id.image_id) as image:
            assert [each.name for each in image.snapshots()] == [snapshot.rbd_name]

    for_all(cases, again)
    assert len(world.volumes.list_snapshots("", 0).snapshots) == len(cases) + 1
    remove_everything(world)


@pytest.mark.timeout(300)
def test_delete_snapshot_killed_around_every_change(world: CephWorld) -> None:
    def subject(name: str) -> dict[str, Any]:
        return {"id": str(world.snapshot(plain_volume(world, name), name))}

    cases = kill_around_changes(world, "delete_snapshot", subject)

    def again(case: Case) -> None:
        found = SnapshotId.parse(case["id"])
        until_free(lambda: world.volumes.delete_snapshot(found))
        assert world.record(found.volume).snapshots == ()

    for_all(cases, again)
    assert world.volumes.list_snapshots("", 0).snapshots == ()
    remove_everything(world)


@pytest.mark.timeout(300)
def test_a_clone_of_a_volume_killed_around_every_change(world: CephWorld) -> None:
    cases = kill_around_changes(
        world, "clone", lambda name: {"id": str(volume(world, f"of {name}"))}
    )

    def again(case: Case) -> None:
        request = work.clone_of(world, case)
        made = until_free(lambda: world.volumes.create(request))
        assert world.volumes.create(request) == made
        assert content_of(world, made.volume_id, OTHER) == {"the source's"}

    for_all(cases, again)
    world.collect_all()
    # Half-made clones are gone, and every source has one.
    assert len(world.images()) == 2 * (len(cases) + 1)
    remove_everything(world)


@pytest.mark.timeout(300)
def test_a_clone_of_a_snapshot_killed_and_its_source_deleted(world: CephWorld) -> None:
    one = volume(world)
    cases = kill_around_changes(
        world, "clone", lambda name: {"id": str(world.snapshot(one, f"of {name}"))}
    )

    def delete(case: Case) -> None:
        found = SnapshotId.parse(case["id"])
        until_free(lambda: world.volumes.delete_snapshot(found))

    def again(case: Case) -> bool:
        request = work.clone_of(world, case)
        try:
            made = until_free(lambda: world.volumes.create(request))
        except NotFoundError:
            return False
        assert content_of(world, made.volume_id, OTHER) == {"the source's"}
        return True

    for_all(cases, delete)
    until_free(lambda: world.volumes.delete(one))
    world.collect()
    assert set(for_all(cases, again)) == {True, False}
    remove_everything(world)
