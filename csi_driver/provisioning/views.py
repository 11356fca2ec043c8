# SPDX-License-Identifier: Apache-2.0
"""Records as CSI shows them."""

from __future__ import annotations

from csi_driver.domain.context import volume_context
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.domain.snapshots import Snapshot
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.requests import VolumeInfo


def volume_info(location: Location, record: Record) -> VolumeInfo:
    """Return a volume as CSI shows it."""
    return VolumeInfo(
        volume_id=VolumeId(location, record.image_id),
        size=record.desired,
        context=volume_context(record),
        nodes=tuple(sorted(each.node_id for each in record.exports)),
        source=_source(record),
    )


def snapshot_info(volume_id: VolumeId, snapshot: Snapshot) -> SnapshotInfo:
    """Return a snapshot as CSI shows it."""
    return SnapshotInfo(
        SnapshotId(volume_id, snapshot.number), snapshot.size, snapshot.created
    )


def _source(record: Record) -> Source | None:
    if record.origin is None:
        return None
    try:
        return SnapshotId.parse(record.origin.source)
    except NotFoundError:
        return VolumeId.parse(record.origin.source)
