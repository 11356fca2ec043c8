# SPDX-License-Identifier: Apache-2.0
"""A real gRPC server on a unix socket, over services kept in memory."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from csi_driver.domain.access import Capability
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PendingError
from csi_driver.domain.ids import Location
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.observability import logs
from csi_driver.provisioning.requests import Capacity
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import Expansion
from csi_driver.provisioning.requests import SnapshotInfo
from csi_driver.provisioning.requests import SnapshotPage
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.requests import VolumePage
from csi_driver.rpc.controller import Controller
from csi_driver.rpc.health import Health
from csi_driver.rpc.identity import Identity
from csi_driver.rpc.identity import Plugin
from csi_driver.rpc.node import Node
from csi_driver.rpc.server import CsiServer
from csi_driver.rpc.server import Services
from csi_driver.rpc.stubs import csi_pb2_grpc
from csi_driver.rpc.workers import Workers
from csi_driver.staging.requests import ExpandRequest
from csi_driver.staging.requests import PublishRequest
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.requests import Usage

CREATED = 1_700_000_000_123_456_789
"""When every snapshot was taken, in nanoseconds since 1970."""


class MemoryProvisioner:
    """Volumes and snapshots in dictionaries; `before` runs first in every call."""

    def __init__(self) -> None:
        self.volumes: dict[str, VolumeInfo] = {}
        self.snapshots: dict[str, SnapshotInfo] = {}
        self.taken = 0
        self.asked: list[Any] = []
        self.before: Callable[[], None] = lambda: None

    def _enter(self, asked: Any) -> None:
        self.asked.append(asked)
        self.before()

    def create(self, request: CreateRequest) -> VolumeInfo:
        self._enter(request)
        size = request.capacity.choose()
        present = self.volumes.get(request.name)
        if present is None:
            image = f"{len(self.volumes):x}abc"
            volume_id = VolumeId(Location("memory", 1), image)
            self._require(request.source)
            context = {"encryption": "keyring"}
            present = VolumeInfo(volume_id, size, context, source=request.source)
            self.volumes[request.name] = present
        if present.size != size:
            message = f"volume {request.name!r} has {present.size}"
            raise AlreadyExistsError(message)
        return present

    def _require(self, source: Source | None) -> None:
        if isinstance(source, SnapshotId):
            self.get_snapshot(source)
        elif source is not None:
            self.get(source)

    def delete(self, volume_id: VolumeId) -> None:
        self._enter(volume_id)
        self.volumes = {
            name: info
            for name, info in self.volumes.items()
            if info.volume_id != volume_id
        }

    def get(self, volume_id: VolumeId) -> VolumeInfo:
        self._enter(volume_id)
        for info in self.volumes.values():
            if info.volume_id == volume_id:
                return info
        message = f"no volume {volume_id}"
        raise NotFoundError(message)

    def list(self, token: str, limit: int) -> VolumePage:
        self._enter((token, limit))
        return VolumePage(tuple(self.volumes.values())[: limit or None], "")

    def modify(self, volume_id: VolumeId, mutable: Mapping[str, str]) -> None:
        NO_LIMITS.changed_by(mutable)
        self.get(volume_id)
        self.asked.append(mutable)

    def create_snapshot(self, request: SnapshotRequest) -> SnapshotInfo:
        self._enter(request)
        size = self.get(request.volume).size
        present = self.snapshots.get(request.name)
        if present is None:
            self.taken += 1
            snapshot_id = SnapshotId(request.volume, self.taken)
            present = SnapshotInfo(snapshot_id, size, CREATED)
            self.snapshots[request.name] = present
        if present.snapshot_id.volume != request.volume:
            message = f"snapshot {request.name!r} is one of another volume"
            raise AlreadyExistsError(message)
        return present

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        self._enter(snapshot_id)
        self.snapshots = {
            name: info
            for name, info in self.snapshots.items()
            if info.snapshot_id != snapshot_id
        }

    def get_snapshot(self, snapshot_id: SnapshotId) -> SnapshotInfo:
        self._enter(snapshot_id)
        for info in self.snapshots.values():
            if info.snapshot_id == snapshot_id:
                return info
        message = f"no snapshot {snapshot_id}"
        raise NotFoundError(message)

    def list_snapshots(
        self, token: str, limit: int, volume: VolumeId | None = None
    ) -> SnapshotPage:
        self._enter((token, limit, volume))
        if token and not token.isdecimal():
            message = f"starting_token {token!r} was not given out by this driver"
            raise PendingError(message)
        found = [
            info
            for info in self.snapshots.values()
            if volume in {None, info.snapshot_id.volume}
        ]
        begin = int(token or 0)
        end = begin + limit if limit else len(found)
        return SnapshotPage(
            tuple(found[begin:end]), str(end) if end < len(found) else ""
        )

    def expand(self, volume_id: VolumeId, capacity: CapacityRange) -> Expansion:
        self.get(volume_id)
        return Expansion(capacity.choose(), node_required=True)

    def capacity(
        self, parameters: Mapping[str, str], capabilities: tuple[Capability, ...]
    ) -> Capacity:
        self._enter((parameters, capabilities))
        return Capacity(available=1 << 40, largest=1 << 39, smallest=4096)

    def refusal(
        self,
        volume_id: VolumeId,
        capabilities: tuple[Capability, ...],
        context: Mapping[str, str],
        parameters: Mapping[str, str],
    ) -> str | None:
        self.get(volume_id)
        return next((each.refusal() for each in capabilities), None)


class MemoryStager:
    """Remembers what it was asked; `before` runs first in every call."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.before: Callable[[], None] = lambda: None

    def _enter(self, asked: Any) -> None:
        self.asked.append(asked)
        self.before()

    def stage(self, request: StageRequest) -> None:
        self._enter(request)

    def unstage(self, volume_id: VolumeId, staging_path: Path) -> None:
        self._enter((volume_id, staging_path))

    def publish(self, request: PublishRequest) -> None:
        self._enter(request)

    def unpublish(self, volume_id: VolumeId, target_path: Path) -> None:
        self._enter((volume_id, target_path))

    def stats(self, volume_id: VolumeId, volume_path: Path) -> tuple[Usage, ...]:
        self._enter((volume_id, volume_path))
        return Usage("bytes", 100, 60, 40), Usage("inodes", 10, 4, 6)

    def expand(self, request: ExpandRequest) -> EffectiveSize:
        self._enter(request)
        return request.capacity.choose()


class Counted:
    """Remembers what a Recorder is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.most_stuck = 0
        self.now_stuck = 0

    def answered(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        self.calls.append((method, code))

    def stuck(self, count: int) -> None:
        self.now_stuck = count
        self.most_stuck = max(self.most_stuck, count)


@dataclasses.dataclass
class Serving:
    """A running server and its clients."""

    server: CsiServer
    socket: Path
    provisioner: MemoryProvisioner
    stager: MemoryStager
    health: Health
    counted: Counted
    channel: grpc.Channel
    log: io.StringIO

    def __post_init__(self) -> None:
        self.identity = csi_pb2_grpc.IdentityStub(self.channel)
        self.controller = csi_pb2_grpc.ControllerStub(self.channel)
        self.node = csi_pb2_grpc.NodeStub(self.channel)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


type Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start servers; `most_running`, `most_stuck` and `longest_call` may be set."""
    with contextlib.ExitStack() as stack:

        def start(
            *, most_running: int = 16, most_stuck: int = 8, longest_call: float = 30.0
        ) -> Serving:
            log = io.StringIO()
            logs.configure(form="json", level="debug", stream=log)
            provisioner, stager = MemoryProvisioner(), MemoryStager()
            health, counted = Health(), Counted()
            socket = tmp_path / f"{len(list(tmp_path.iterdir()))}.sock"
            server = CsiServer(
                socket,
                Services(
                    identity=Identity(Plugin("csi.example.org", "1.2.3"), health),
                    controller=Controller(provisioner),
                    node=Node(stager, "node-1"),
                ),
                recorder=counted,
                workers=Workers(
                    most_running=most_running,
                    most_stuck=most_stuck,
                    recorder=counted,
                ),
                longest_call=longest_call,
            )
            server.start()
            stack.callback(server.stop, 2.0)
            channel = grpc.insecure_channel(f"unix:{socket}")
            stack.callback(channel.close)
            return Serving(
                server, socket, provisioner, stager, health, counted, channel, log
            )

        yield start


@pytest.fixture
def serving(serve: Serve) -> Serving:
    """Serve with plenty of room and time."""
    return serve()
