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
        timeout: float = TIMEOUT,
    ) -> csi_pb2.Volume:
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
            volume_capabilities=[capability or mount()],
            parameters=self.parameters,
            secrets=secrets,
        )
        return self.stub.CreateVolume(request, timeout=timeout).volume

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
