# SPDX-License-Identifier: Apache-2.0
"""A small CSI client: what kubelet and the sidecars would send, by hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import grpc

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

WRITER = csi_pb2.VolumeCapability.AccessMode.SINGLE_NODE_WRITER
TIMEOUT = 120.0


def mounted(fs_type: str) -> csi_pb2.VolumeCapability:
    """Return the capability of a mounted filesystem."""
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(fs_type=fs_type),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=WRITER),
    )


def block() -> csi_pb2.VolumeCapability:
    """Return the capability of a raw block device."""
    return csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=csi_pb2.VolumeCapability.AccessMode(mode=WRITER),
    )


class Driver:
    """The controller and the node service, over their sockets."""

    def __init__(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> None:
        self.parameters = dict(parameters)
        self.secrets = dict(secrets)
        self._controller_channel = grpc.insecure_channel(
            os.environ["CSI_CONTROLLER_ENDPOINT"],
        )
        self._node_channel = grpc.insecure_channel(os.environ["CSI_NODE_ENDPOINT"])
        self.controller = csi_pb2_grpc.ControllerStub(self._controller_channel)
        self.node = csi_pb2_grpc.NodeStub(self._node_channel)

    def create(
        self,
        name: str,
        size: int,
        capability: csi_pb2.VolumeCapability,
    ) -> csi_pb2.Volume:
        """CreateVolume."""
        return self._create(self._wanted(name, size, capability))

    def clone(
        self,
        name: str,
        size: int,
        capability: csi_pb2.VolumeCapability,
        source: csi_pb2.Volume | csi_pb2.Snapshot,
        secrets: Mapping[str, str] | None = None,
    ) -> csi_pb2.Volume:
        """CreateVolume from a volume or a snapshot, with its own Secret if given."""
        request = self._wanted(name, size, capability)
        if isinstance(source, csi_pb2.Snapshot):
            request.volume_content_source.snapshot.snapshot_id = source.snapshot_id
        else:
            request.volume_content_source.volume.volume_id = source.volume_id
        if secrets is not None:
            request.secrets.clear()
            request.secrets.update(secrets)
        return self._create(request)

    def _wanted(
        self, name: str, size: int, capability: csi_pb2.VolumeCapability
    ) -> csi_pb2.CreateVolumeRequest:
        return csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
            volume_capabilities=[capability],
            parameters=self.parameters,
            secrets=self.secrets,
        )

    def _create(self, request: csi_pb2.CreateVolumeRequest) -> csi_pb2.Volume:
        return self.controller.CreateVolume(request, timeout=TIMEOUT).volume

    def snapshot(self, volume: csi_pb2.Volume, name: str) -> csi_pb2.Snapshot:
        """CreateSnapshot, without a Secret."""
        answer = self.controller.CreateSnapshot(
            csi_pb2.CreateSnapshotRequest(
                source_volume_id=volume.volume_id,
                name=name,
            ),
            timeout=TIMEOUT,
        )
        return answer.snapshot

    def delete_snapshot(self, snapshot: csi_pb2.Snapshot) -> None:
        """DeleteSnapshot, without a Secret."""
        self.controller.DeleteSnapshot(
            csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id),
            timeout=TIMEOUT,
        )

    def stage(
        self,
        volume: csi_pb2.Volume,
        path: Path,
        capability: csi_pb2.VolumeCapability,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """NodeStageVolume, with the volume's own Secret unless another is given."""
        path.mkdir(parents=True, exist_ok=True)
        self.node.NodeStageVolume(
            csi_pb2.NodeStageVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=str(path),
                volume_capability=capability,
                secrets=self.secrets if secrets is None else secrets,
                volume_context=volume.volume_context,
            ),
            timeout=TIMEOUT,
        )

    def publish(
        self,
        volume: csi_pb2.Volume,
        staging: Path,
        target: Path,
        capability: csi_pb2.VolumeCapability,
    ) -> None:
        """NodePublishVolume."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self.node.NodePublishVolume(
            csi_pb2.NodePublishVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=str(staging),
                target_path=str(target),
                volume_capability=capability,
                volume_context=volume.volume_context,
            ),
            timeout=TIMEOUT,
        )

    def unpublish(self, volume: csi_pb2.Volume, target: Path) -> None:
        """NodeUnpublishVolume."""
        self.node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(
                volume_id=volume.volume_id,
                target_path=str(target),
            ),
            timeout=TIMEOUT,
        )

    def unstage(self, volume: csi_pb2.Volume, path: Path) -> None:
        """NodeUnstageVolume."""
        self.node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(
                volume_id=volume.volume_id,
                staging_target_path=str(path),
            ),
            timeout=TIMEOUT,
        )

    def expand(self, volume: csi_pb2.Volume, target: Path, size: int) -> int:
        """ControllerExpandVolume, then NodeExpandVolume; the size it has then."""
        wanted = csi_pb2.CapacityRange(required_bytes=size)
        self.controller.ControllerExpandVolume(
            csi_pb2.ControllerExpandVolumeRequest(
                volume_id=volume.volume_id,
                capacity_range=wanted,
                secrets=self.secrets,
            ),
            timeout=TIMEOUT,
        )
        answer = self.node.NodeExpandVolume(
            csi_pb2.NodeExpandVolumeRequest(
                volume_id=volume.volume_id,
                volume_path=str(target),
                capacity_range=wanted,
            ),
            timeout=TIMEOUT,
        )
        return int(answer.capacity_bytes)

    def total_bytes(self, volume: csi_pb2.Volume, target: Path) -> int:
        """NodeGetVolumeStats: the total in bytes."""
        answer = self.node.NodeGetVolumeStats(
            csi_pb2.NodeGetVolumeStatsRequest(
                volume_id=volume.volume_id,
                volume_path=str(target),
            ),
            timeout=TIMEOUT,
        )
        return next(
            int(line.total)
            for line in answer.usage
            if line.unit == csi_pb2.VolumeUsage.BYTES
        )

    def delete(self, volume: csi_pb2.Volume) -> None:
        """DeleteVolume, without a Secret."""
        self.controller.DeleteVolume(
            csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id),
            timeout=TIMEOUT,
        )

    @contextlib.contextmanager
    def tidy(
        self, volume: csi_pb2.Volume, staging: Path, target: Path
    ) -> Iterator[None]:
        """Take the volume away again if the story stops halfway."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.delete, volume)
            undo.callback(self.unstage, volume, staging)
            undo.callback(self.unpublish, volume, target)
            yield
            undo.pop_all()

    def close(self) -> None:
        """Close both channels."""
        self._controller_channel.close()
        self._node_channel.close()


@contextlib.contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[str]]:
    """Expect a call to fail with `code`; the list then holds its message."""
    message: list[str] = []
    try:
        yield message
    except grpc.RpcError as error:
        if error.code() is not code:
            raise
        message.append(str(error.details()))
    else:
        text = f"the call succeeded, {code.name} was expected"
        raise AssertionError(text)
