# SPDX-License-Identifier: Apache-2.0
"""CSI calls with short arguments, over the real sockets."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final
from typing import Self

import grpc

from csi_driver.rpc.stubs import csi_pb2
from csi_driver.rpc.stubs import csi_pb2_grpc

MIB: Final = 1 << 20
TIMEOUT: Final = 110.0

Mode = csi_pb2.VolumeCapability.AccessMode
type Secrets = Mapping[str, str]


def mount(
    fs_type: str = "ext4", mode: Mode.Mode.ValueType = Mode.SINGLE_NODE_WRITER
) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        mount=csi_pb2.VolumeCapability.MountVolume(fs_type=fs_type),
        access_mode=Mode(mode=mode),
    )


def block(
    mode: Mode.Mode.ValueType = Mode.SINGLE_NODE_WRITER,
) -> csi_pb2.VolumeCapability:
    return csi_pb2.VolumeCapability(
        block=csi_pb2.VolumeCapability.BlockVolume(),
        access_mode=Mode(mode=mode),
    )


def reader(fs_type: str = "ext4") -> csi_pb2.VolumeCapability:
    return mount(fs_type, Mode.MULTI_NODE_READER_ONLY)


def content(
    source: csi_pb2.Volume | csi_pb2.Snapshot,
) -> csi_pb2.VolumeContentSource:
    kind = csi_pb2.VolumeContentSource
    if isinstance(source, csi_pb2.Snapshot):
        return kind(snapshot=kind.SnapshotSource(snapshot_id=source.snapshot_id))
    return kind(volume=kind.VolumeSource(volume_id=source.volume_id))


def size_of(source: csi_pb2.Volume | csi_pb2.Snapshot) -> int:
    """Return the bytes that a clone has at least."""
    if isinstance(source, csi_pb2.Snapshot):
        return source.size_bytes
    return source.capacity_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """What a call was refused with."""

    code: str
    message: str


@contextlib.contextmanager
def refused(*codes: grpc.StatusCode) -> Iterator[list[Refusal]]:
    """Expect a call to fail with one of the codes; the list then says how."""
    found: list[Refusal] = []
    try:
        yield found
    except grpc.RpcError as error:
        if error.code() not in codes:
            raise
        found.append(Refusal(error.code().name, str(error.details())))
    else:
        names = ", ".join(code.name for code in codes)
        message = f"the call succeeded, expected was {names}"
        raise AssertionError(message)


def succeeds(call: Callable[[], object], *codes: grpc.StatusCode) -> bool:
    """Call; False if it is refused with one of the codes, for another try."""
    try:
        call()
    except grpc.RpcError as error:
        if error.code() not in codes:
            raise
        return False
    return True


class _Client:
    def __init__(self, endpoint: str) -> None:
        # A part that was restarted is found again at once.
        options = (("grpc.max_reconnect_backoff_ms", 100),)
        self._channel = grpc.insecure_channel(endpoint, options=options)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Controller(_Client):
    """The Controller service."""

    def __init__(self, endpoint: str, parameters: Mapping[str, str]) -> None:
        super().__init__(endpoint)
        self.stub = csi_pb2_grpc.ControllerStub(self._channel)
        self.parameters = dict(parameters)

    def create(
        self,
        name: str,
        secrets: Secrets,
        *,
        size: int = 64 * MIB,
        capability: csi_pb2.VolumeCapability | None = None,
        source: csi_pb2.Volume | csi_pb2.Snapshot | None = None,
        limits: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> csi_pb2.Volume:
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
            volume_capabilities=[capability or mount()],
            parameters=self.parameters,
            secrets=secrets,
            volume_content_source=None if source is None else content(source),
            mutable_parameters=limits,
        )
        return self.stub.CreateVolume(request, timeout=timeout).volume

    def clone(
        self,
        name: str,
        secrets: Secrets,
        source: csi_pb2.Volume | csi_pb2.Snapshot,
        *,
        size: int | None = None,
        capability: csi_pb2.VolumeCapability | None = None,
        timeout: float = TIMEOUT,
    ) -> csi_pb2.Volume:
        """Clone a volume or a snapshot, as large as that unless told otherwise."""
        return self.create(
            name,
            secrets,
            size=size or size_of(source),
            capability=capability,
            source=source,
            timeout=timeout,
        )

    def modify(self, volume: csi_pb2.Volume, **limits: str) -> None:
        request = csi_pb2.ControllerModifyVolumeRequest(
            volume_id=volume.volume_id, mutable_parameters=limits
        )
        self.stub.ControllerModifyVolume(request, timeout=TIMEOUT)

    def snapshot(
        self,
        volume: csi_pb2.Volume,
        name: str,
        secrets: Secrets | None = None,
        timeout: float = TIMEOUT,
    ) -> csi_pb2.Snapshot:
        request = csi_pb2.CreateSnapshotRequest(
            source_volume_id=volume.volume_id, name=name, secrets=secrets
        )
        return self.stub.CreateSnapshot(request, timeout=timeout).snapshot

    def delete_snapshot(
        self, snapshot: csi_pb2.Snapshot, timeout: float = TIMEOUT
    ) -> None:
        request = csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id)
        self.stub.DeleteSnapshot(request, timeout=timeout)

    def get_snapshot(self, snapshot_id: str) -> csi_pb2.Snapshot:
        request = csi_pb2.GetSnapshotRequest(snapshot_id=snapshot_id)
        return self.stub.GetSnapshot(request, timeout=TIMEOUT).snapshot

    def snapshots(self, volume: csi_pb2.Volume | None = None) -> list[csi_pb2.Snapshot]:
        """List all snapshots, or those of one volume, page by page."""
        found: list[csi_pb2.Snapshot] = []
        request = csi_pb2.ListSnapshotsRequest(
            max_entries=2, source_volume_id="" if volume is None else volume.volume_id
        )
        while True:
            reply = self.stub.ListSnapshots(request, timeout=TIMEOUT)
            found += [entry.snapshot for entry in reply.entries]
            if not reply.next_token:
                return found
            request.starting_token = reply.next_token

    def get(self, volume_id: str) -> csi_pb2.Volume:
        request = csi_pb2.ControllerGetVolumeRequest(volume_id=volume_id)
        return self.stub.ControllerGetVolume(request, timeout=TIMEOUT).volume

    def expand(self, volume: csi_pb2.Volume, size: int, secrets: Secrets) -> None:
        request = csi_pb2.ControllerExpandVolumeRequest(
            volume_id=volume.volume_id,
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
            secrets=secrets,
        )
        self.stub.ControllerExpandVolume(request, timeout=TIMEOUT)

    def delete(self, volume: csi_pb2.Volume, timeout: float = TIMEOUT) -> None:
        request = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)
        self.stub.DeleteVolume(request, timeout=timeout)

    def ids(self) -> set[str]:
        reply = self.stub.ListVolumes(csi_pb2.ListVolumesRequest(), timeout=TIMEOUT)
        return {entry.volume.volume_id for entry in reply.entries}


class Node(_Client):
    """The Node service."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.stub = csi_pb2_grpc.NodeStub(self._channel)

    def stage(
        self,
        volume: csi_pb2.Volume,
        staging: Path,
        secrets: Secrets,
        capability: csi_pb2.VolumeCapability | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        staging.mkdir(parents=True, exist_ok=True)
        request = csi_pb2.NodeStageVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(staging),
            volume_capability=capability or mount(),
            secrets=secrets,
            volume_context=volume.volume_context,
        )
        self.stub.NodeStageVolume(request, timeout=timeout)

    def unstage(
        self, volume: csi_pb2.Volume, staging: Path, timeout: float = TIMEOUT
    ) -> None:
        request = csi_pb2.NodeUnstageVolumeRequest(
            volume_id=volume.volume_id, staging_target_path=str(staging)
        )
        self.stub.NodeUnstageVolume(request, timeout=timeout)

    def publish(
        self,
        volume: csi_pb2.Volume,
        staging: Path,
        target: Path,
        capability: csi_pb2.VolumeCapability | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=volume.volume_id,
            staging_target_path=str(staging),
            target_path=str(target),
            volume_capability=capability or mount(),
            readonly=read_only,
            volume_context=volume.volume_context,
        )
        self.stub.NodePublishVolume(request, timeout=TIMEOUT)

    def unpublish(self, volume: csi_pb2.Volume, target: Path) -> None:
        request = csi_pb2.NodeUnpublishVolumeRequest(
            volume_id=volume.volume_id, target_path=str(target)
        )
        self.stub.NodeUnpublishVolume(request, timeout=TIMEOUT)

    def expand(self, volume: csi_pb2.Volume, path: Path, size: int) -> int:
        request = csi_pb2.NodeExpandVolumeRequest(
            volume_id=volume.volume_id,
            volume_path=str(path),
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
        )
        answer = self.stub.NodeExpandVolume(request, timeout=TIMEOUT)
        return int(answer.capacity_bytes)

    def total_bytes(self, volume: csi_pb2.Volume, path: Path) -> int:
        request = csi_pb2.NodeGetVolumeStatsRequest(
            volume_id=volume.volume_id, volume_path=str(path)
        )
        usage = self.stub.NodeGetVolumeStats(request, timeout=TIMEOUT).usage
        (total,) = [
            each.total for each in usage if each.unit == csi_pb2.VolumeUsage.BYTES
        ]
        return int(total)
