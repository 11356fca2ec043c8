# SPDX-License-Identifier: Apache-2.0
"""The snapshots of the Controller service: proto to domain and back.

A snapshot is ready to use as soon as it is shown: nothing is copied in the
background.  What may be taken and removed is left to the Provisioner.
"""

from __future__ import annotations

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.ids import check_snapshot_name
from csi_driver.provisioning.requests import Provisioner
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotPage
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.rpc import fields
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.unoffered import UnofferedController

_NONE = SnapshotPage(())


class SnapshotController(UnofferedController):
    """Calls a Provisioner.  No snapshot needs a Secret: those sent go unread."""

    def __init__(self, provisioner: Provisioner) -> None:
        self._provisioner = provisioner

    def CreateSnapshot(
        self,
        request: csi_pb2.CreateSnapshotRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.CreateSnapshotResponse:
        """Take a snapshot, or return the one an equal call took."""
        name = check_snapshot_name(request.name)
        text = fields.required("source_volume_id", request.source_volume_id)
        parameters = fields.mapping("parameters", request.parameters)
        info = self._provisioner.create_snapshot(
            SnapshotRequest(name, VolumeId.parse(text), parameters),
        )
        return csi_pb2.CreateSnapshotResponse(snapshot=_snapshot(info))

    def DeleteSnapshot(
        self,
        request: csi_pb2.DeleteSnapshotRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.DeleteSnapshotResponse:
        """Delete a snapshot; what does not exist is deleted already."""
        text = fields.required("snapshot_id", request.snapshot_id)
        try:
            snapshot_id = SnapshotId.parse(text)
        except NotFoundError:
            return csi_pb2.DeleteSnapshotResponse()
        self._provisioner.delete_snapshot(snapshot_id)
        return csi_pb2.DeleteSnapshotResponse()

    def ListSnapshots(
        self,
        request: csi_pb2.ListSnapshotsRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.ListSnapshotsResponse:
        """List the snapshots page by page; of what does not exist there are none."""
        limit = fields.most_entries(request.max_entries)
        try:
            page = self._page(request, limit)
        except NotFoundError:
            page = _NONE
        entry = csi_pb2.ListSnapshotsResponse.Entry
        return csi_pb2.ListSnapshotsResponse(
            entries=[entry(snapshot=_snapshot(info)) for info in page.snapshots],
            next_token=page.next_token,
        )

    def GetSnapshot(
        self,
        request: csi_pb2.GetSnapshotRequest,
        context: grpc.ServicerContext,
    ) -> csi_pb2.GetSnapshotResponse:
        """Return one snapshot."""
        text = fields.required("snapshot_id", request.snapshot_id)
        info = self._provisioner.get_snapshot(SnapshotId.parse(text))
        return csi_pb2.GetSnapshotResponse(snapshot=_snapshot(info))

    def _page(self, request: csi_pb2.ListSnapshotsRequest, limit: int) -> SnapshotPage:
        """Return what both filters let through, as far as they are given."""
        volume = None
        if request.source_volume_id:
            volume = VolumeId.parse(request.source_volume_id)
        if not request.snapshot_id:
            return self._provisioner.list_snapshots(
                request.starting_token, limit, volume
            )
        if request.starting_token:
            message = (
                f"starting_token {request.starting_token!r} was not given out for"
                " snapshot_id: one snapshot has one page"
            )
            raise PendingError(message)
        snapshot_id = SnapshotId.parse(request.snapshot_id)
        if volume not in {None, snapshot_id.volume}:
            return _NONE
        return SnapshotPage((self._provisioner.get_snapshot(snapshot_id),))


def _snapshot(info: SnapshotInfo) -> csi_pb2.Snapshot:
    created = Timestamp()
    created.FromNanoseconds(info.created)
    return csi_pb2.Snapshot(
        size_bytes=info.size.count,
        snapshot_id=str(info.snapshot_id),
        source_volume_id=str(info.snapshot_id.volume),
        creation_time=created,
        ready_to_use=True,
    )
