# SPDX-License-Identifier: Apache-2.0
"""The driver's sockets, and a request that only one thing is wrong with."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any
from typing import Final

import grpc
import pytest

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

MODE: Final = csi_pb2.VolumeCapability.AccessMode
SIZE: Final = 64 << 20
PASSPHRASE: Final = "a passphrase of the test's own"


def capability(**mount: Any) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(**mount),
        access_mode=MODE(mode=MODE.SINGLE_NODE_WRITER),
    )


@dataclasses.dataclass
class Driver:
    """Both services and the class parameters of the lab."""

    controller: csi_pb2_grpc.ControllerStub
    node: csi_pb2_grpc.NodeStub
    parameters: dict[str, str]
    made: list[str] = dataclasses.field(default_factory=list)
    taken: list[str] = dataclasses.field(default_factory=list)

    def request(self, **change: Any) -> csi_pb2.CreateVolumeRequest:
        given: dict[str, Any] = {
            "name": f"bad-input-{uuid.uuid4()}",
            "capacity_range": csi_pb2.CapacityRange(required_bytes=SIZE),
            "volume_capabilities": [capability()],
            "parameters": self.parameters,
            "secrets": {"encryptionPassphrase": PASSPHRASE},
        }
        return csi_pb2.CreateVolumeRequest(**(given | change))

    def create(self, **change: Any) -> csi_pb2.Volume:
        made = self.controller.CreateVolume(self.request(**change)).volume
        self.made.append(made.volume_id)
        return made

    def ids(self) -> set[str]:
        reply = self.controller.ListVolumes(csi_pb2.ListVolumesRequest())
        return {entry.volume.volume_id for entry in reply.entries}

    def take(self, volume_id: str, name: str) -> csi_pb2.Snapshot:
        request = csi_pb2.CreateSnapshotRequest(source_volume_id=volume_id, name=name)
        taken = self.controller.CreateSnapshot(request).snapshot
        self.taken.append(taken.snapshot_id)
        return taken

    def snapshots(self, **given: Any) -> set[str]:
        request = csi_pb2.ListSnapshotsRequest(**given)
        reply = self.controller.ListSnapshots(request)
        return {entry.snapshot.snapshot_id for entry in reply.entries}


def refused(call: Any, request: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    details = caught.value.details() or ""
    assert details
    assert "\n" not in details
    assert PASSPHRASE not in details
    return caught.value.code().name, details
