# SPDX-License-Identifier: Apache-2.0
"""What tests want to know of a volume's snapshots."""

from __future__ import annotations

from csi_driver.domain.ids import VolumeId
from csi_driver.domain.snapshots import Snapshot
from csi_driver.images.directory import Directory
from csi_driver.images.directory import SnapshotEntry
from csi_driver.images.records import change_record
from csi_driver.provisioning import taking
from csi_driver.provisioning.requests import SnapshotInfo
from tests.unit.provisioning.worlds import World


def rbd_names(world: World, volume_id: VolumeId) -> list[str]:
    """Return the names of the RBD snapshots that do not linger."""
    with (
        world.pool_of(volume_id) as pool,
        pool.open_raw(volume_id.image_id, read_only=True) as image,
    ):
        return [each.name for each in image.snapshots() if not each.lingering]


def begin(world: World, volume_id: VolumeId, name: str) -> str:
    """Leave what a CreateSnapshot does that dies after the RBD snapshot: its name."""
    image_id = volume_id.image_id
    with world.pool() as pool:
        Directory(pool).claim(SnapshotEntry(name, image_id))
        record = change_record(
            pool, image_id, lambda present: taking.intended(present, name)
        )
        (intent,) = record.snapshots
        with pool.open_raw(image_id) as image:
            image.create_snapshot(intent.rbd_name)
    return intent.rbd_name


def listed(world: World, volume_id: VolumeId | None = None) -> list[SnapshotInfo]:
    """Return the snapshots that are listed."""
    return list(world.volumes.list_snapshots("", 0, volume_id).snapshots)


def named(world: World, volume_id: VolumeId, name: str) -> Snapshot:
    """Return the record's entry of a snapshot."""
    found = world.record(volume_id).snapshot_named(name)
    assert found is not None
    return found


def source_of(secrets: dict[str, str]) -> dict[str, str]:
    """Return a Secret's keys as those of a source."""
    return {
        key.replace("encryption", "sourceEncryption"): v for key, v in secrets.items()
    }
