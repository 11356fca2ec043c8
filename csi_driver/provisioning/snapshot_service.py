# SPDX-License-Identifier: Apache-2.0
"""The controller's work on snapshots, behind the calls that `rpc` makes."""

from __future__ import annotations

import dataclasses

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import check_snapshot_name
from csi_driver.domain.parameters import check_snapshot_parameters
from csi_driver.domain.record import Record
from csi_driver.domain.record import VolumeState
from csi_driver.domain.snapshots import Snapshot
from csi_driver.domain.snapshots import SnapshotState
from csi_driver.images.records import read_record
from csi_driver.provisioning import children
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.listing import list_snapshots
from csi_driver.provisioning.listing import page_of
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotPage
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.snapshots import create_snapshot
from csi_driver.provisioning.snapshots import delete_snapshot
from csi_driver.provisioning.snapshots import find_snapshot
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.views import snapshot_info


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshots:
    """The part of `requests.Provisioner` that is about snapshots."""

    places: Places
    collector: Collector
    secrets: SourceSecrets
    patience: LockPatience

    def create(self, request: SnapshotRequest) -> SnapshotInfo:
        """Take a snapshot, or return the one that an equal call took."""
        name = check_snapshot_name(request.name)
        check_snapshot_parameters(request.parameters)
        volume_id = request.volume
        self.places.require_configured(volume_id.location)
        with self.places.own_instance(volume_id.location.cluster) as ceph:
            pool = ceph.pool_at(volume_id.location)
            self.places.require_collected(pool)
            children.settle(pool, volume_id.image_id, self.patience)
            snapshot = create_snapshot(pool, volume_id.image_id, name)
            record = read_record(pool, volume_id.image_id)
            self.secrets.remember(pool, record, volume_id)
        return snapshot_info(volume_id, snapshot)

    def delete(self, snapshot_id: SnapshotId) -> None:
        """Delete a snapshot; one that does not exist is deleted already."""
        volume_id = snapshot_id.volume
        self.places.require_configured(volume_id.location)
        with self.places.own_instance(volume_id.location.cluster) as ceph:
            try:
                pool = ceph.pool_at(volume_id.location)
                children.settle(pool, volume_id.image_id, self.patience)
                delete_snapshot(pool, snapshot_id)
            except NotFoundError:
                return
        self.collector.wake()  # it may have been what kept a tombstone

    def get(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        """Return a snapshot; NotFoundError without it."""
        with self.places.connections.pool_at(snapshot_id.volume.location) as pool:
            _, snapshot = find_snapshot(pool, snapshot_id)
        return snapshot_info(snapshot_id.volume, snapshot)

    def page(self, token: str, limit: int, volume: VolumeId | None) -> SnapshotPage:
        """Page through all snapshots, or those of one volume."""
        if volume is None:
            return list_snapshots(
                self.places.connections, self.places.clusters, token, limit
            )
        found = self._of(volume)
        return page_of(found, token, limit)

    def _of(self, volume_id: VolumeId) -> list[SnapshotInfo]:
        if volume_id.location.cluster not in self.places.clusters.by_id:
            return []
        try:
            with self.places.connections.pool_at(volume_id.location) as pool:
                record = read_record(pool, volume_id.image_id)
        except (NotFoundError, InvalidRequestError):
            return []
        return [snapshot_info(volume_id, each) for each in _shown(record)]


def _shown(record: Record) -> list[Snapshot]:
    if record.state not in {VolumeState.READY, VolumeState.DELETED}:
        return []
    usable = (
        each
        for each in record.snapshots
        if each.state is SnapshotState.READY and not each.internal
    )
    return sorted(usable, key=lambda each: each.number)
