# SPDX-License-Identifier: Apache-2.0
"""What happens between two steps of somebody else: found by reading, held here."""

from __future__ import annotations

import contextlib

import pytest

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import OwnedPool
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.directory import Directory
from csi_driver.provisioning import shrinking
from csi_driver.provisioning import taking
from csi_driver.provisioning.flattening import Flattening
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.snapshots import finish_deletion
from csi_driver.provisioning.snapshots import with_state
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from tests.unit.provisioning.family import SIZE
from tests.unit.provisioning.family import clone
from tests.unit.provisioning.family import clone_request
from tests.unit.provisioning.family import volume
from tests.unit.provisioning.worlds import SECRET
from tests.unit.provisioning.worlds import FakeWorld


def test_no_flatten_begins_while_a_snapshot_of_the_clone_is_removed(
    world: FakeWorld,
) -> None:
    """What librbd tells the parent depends on which of the two came first."""
    twin = clone(world, volume(world))
    world.snapshot(twin, "snap")
    record = world.record(twin)
    doomed = with_state(record, record.snapshots[0], SnapshotState.DELETING)
    world.change(twin, snapshots=doomed.snapshots)
    with contextlib.closing(world.connector.connect(world.cluster)) as own:
        work = Flattening(own, world.shared, twin)
        with pytest.raises(PendingError, match="is being deleted"):
            work.run(SECRET)
        assert world.record(twin).flatten is None
        with world.pool() as pool:
            finish_deletion(pool, twin.image_id, doomed.snapshots[0])
        assert work.run(SECRET).ancestors == 0


@pytest.mark.parametrize(
    "state", [SnapshotState.DELETING, SnapshotState.KEPT, SnapshotState.READY]
)
def test_who_comes_late_with_a_snapshot_takes_none_away(
    world: FakeWorld, state: SnapshotState
) -> None:
    """Others completed it and deleted it since; its clones may still need it."""
    one = volume(world)
    found = world.snapshot(one, "snap")
    record = world.record(one)
    changed = with_state(record, record.snapshots[0], state)
    world.change(one, snapshots=changed.snapshots)
    with world.pool() as pool, pool.open_raw(one.image_id) as image:
        taking.withdraw(pool, image, record.snapshots[0].rbd_name)
        assert [each.number for each in image.snapshots()] == [found.number]
    assert world.record(one).snapshots == changed.snapshots


def test_a_shrink_takes_nothing_that_was_promised_meanwhile(
    world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = volume(world)

    def expand(*_: object) -> None:
        world.volumes.expand(one, CapacityRange(2 * SIZE))

    world.change(one, filesystem=world.record(one).filesystem)
    monkeypatch.setattr(shrinking, "require_outside", expand)
    smaller = shrinking.Shrink(EffectiveSize(SIZE // 2))
    with world.pool() as pool, pytest.raises(PendingError, match="meanwhile"):
        shrinking.shrink(pool, one.image_id, smaller, SECRET)
    record = world.record(one)
    assert (record.desired, record.actual) == (
        EffectiveSize(2 * SIZE),
        EffectiveSize(SIZE),
    )


def test_a_late_end_of_a_deletion_leaves_a_later_snapshot_its_name(
    world: FakeWorld,
) -> None:
    one = volume(world)
    first = world.snapshot(one, "snap")
    old = world.record(one).snapshot_numbered(first.number)
    assert old is not None
    world.volumes.delete_snapshot(first)
    second = world.snapshot(one, "snap")
    with world.pool() as pool:
        finish_deletion(pool, one.image_id, old)
        entry = Directory(pool).find_snapshot("snap")
    assert entry is not None
    assert entry.number == second.number
    assert world.volumes.get_snapshot(second).snapshot_id == second


def test_no_clone_is_made_of_what_lies_where_nothing_is_collected(
    world: FakeWorld,
) -> None:
    one = volume(world)
    (config,) = world.clusters.by_id.values()
    fewer = ClusterConfig(
        config.cluster,
        config.monitors,
        config.user_id,
        config.key_file,
        (OwnedPool("rbd", ("tenant",)),),
    )
    places = Places(world.connector, world.shared, Clusters({config.cluster: fewer}))
    elsewhere = Volumes(
        places=places,
        collector=world.collector,
        secrets=SourceSecrets("driver", None, None),
    )
    request = clone_request(world, one)
    request.parameters["radosNamespace"] = "tenant"  # type: ignore[index]
    with pytest.raises(PreconditionError, match="not among those"):
        elsewhere.create(request)
    assert not world.record(one).children
