# SPDX-License-Identifier: Apache-2.0
"""A node for tests: a datapath process of its own, and calls with short names."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

import pytest

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.state import current_boot_id
from csi_driver.devices import mounts
from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.access import Filesystem
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.images.users import own_user
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.staging.requests import ExpandRequest
from csi_driver.staging.requests import PublishRequest
from csi_driver.staging.requests import StageRequest
from csi_driver.staging.stager import NodeStager

BLOCK = 4096
MIB = 1 << 20
SIZE = 64 * MIB
XFS_SIZE = 304 * MIB
SECRETS = {"encryptionKey": "q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80="}
OTHER_SECRETS = {"encryptionKey": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
WRITER = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, filesystem=Filesystem.EXT4)
XFS_WRITER = dataclasses.replace(WRITER, filesystem=Filesystem.XFS)
READER = Capability(AccessMode.MULTI_NODE_READER_ONLY, filesystem=Filesystem.EXT4)
BLOCK_WRITER = Capability(AccessMode.SINGLE_NODE_MULTI_WRITER, block=True)

_SERVE = """
import sys
from pathlib import Path
from csi_driver.datapath.supervisor import serve
from csi_driver.domain.clusters import parse_clusters
if __name__ == "__main__":
    run, clusters = Path(sys.argv[1]), Path(sys.argv[2])
    serve(
        socket_path=run / "socket",
        run_dir=run / "run",
        state_dir=run / "state",
        clusters=parse_clusters(clusters.read_text()),
    )
"""

type CreateVolume = Callable[..., VolumeInfo]
type Promise = Callable[[VolumeInfo, int], None]


def clusters_file() -> Path:
    path = os.environ.get("RBDCRYPT_CLUSTERS_FILE", "")
    if not path or not Path(path).exists():
        pytest.fail("no Ceph: run this through `hack/test ceph`, or in the lab")
    return Path(path)


class Node:
    """A node's calls with short arguments; `restart` replaces the service."""

    def __init__(
        self,
        directory: Path,
        clusters: Clusters,
        connections: SharedConnections,
        name: str = "node-1",
    ) -> None:
        self.directory = directory
        self.name = name
        self.datapath = Datapath(directory / "datapath" / "socket")
        self.states = directory / "states"
        self.staging = directory / "staging"
        self.target = directory / "pods" / "one"
        self._clusters = clusters
        self._connections = connections
        self._process: subprocess.Popen[bytes] | None = None
        self.staging.mkdir()
        self.target.parent.mkdir()
        self.service = self._service(current_boot_id())

    def pod(self, name: str) -> Path:
        """Return the target path of another pod."""
        return self.target.parent / name

    def _service(self, boot_id: str) -> NodeStager:
        return NodeStager(
            connections=self._connections,
            clusters=self._clusters,
            datapath=self.datapath,
            secrets=None,
            state_dir=self.states,
            node_id=self.name,
            boot_id=boot_id,
            device_method="auto",
        )

    def restart(self) -> None:
        self.service = self._service(current_boot_id())

    def start_datapath(self) -> None:
        script = self.directory / "serve.py"
        script.write_text(_SERVE)
        run = self.directory / "datapath"
        run.mkdir(exist_ok=True)
        repository = str(Path(__file__).resolve().parents[3])
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(run), str(clusters_file())],
            env={**os.environ, "PYTHONPATH": repository},
        )
        deadline = time.monotonic() + 20
        while True:
            assert self._process.poll() is None, "the datapath ended at its start"
            try:
                self.datapath.ping()
            except UnavailableError:
                assert time.monotonic() < deadline, "the datapath does not answer"
                time.sleep(0.05)
            else:
                return

    def stop_datapath(self, number: int = signal.SIGTERM) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise

    def stage(
        self,
        volume: VolumeInfo,
        capability: Capability = WRITER,
        secrets: Mapping[str, str] = SECRETS,
        context: Mapping[str, str] | None = None,
    ) -> None:
        self.service.stage(
            StageRequest(
                volume_id=volume.volume_id,
                staging_path=self.staging,
                capability=capability,
                context=volume.context if context is None else context,
                secrets=secrets,
            )
        )

    def publish(
        self,
        volume: VolumeInfo,
        capability: Capability = WRITER,
        *,
        target: Path | None = None,
        read_only: bool = False,
        secrets: Mapping[str, str] | None = None,
    ) -> Path:
        path = target or self.target
        self.service.publish(
            PublishRequest(
                volume_id=volume.volume_id,
                staging_path=self.staging,
                target_path=path,
                capability=capability,
                read_only=read_only,
                context=volume.context,
                secrets=secrets or {},
            )
        )
        return path

    def unpublish(self, volume: VolumeInfo, target: Path | None = None) -> None:
        self.service.unpublish(volume.volume_id, target or self.target)

    def unstage(self, volume: VolumeInfo) -> None:
        self.service.unstage(volume.volume_id, self.staging)

    def expand(self, volume: VolumeInfo, size: int) -> int:
        request = ExpandRequest(volume.volume_id, self.staging, CapacityRange(size))
        return self.service.expand(request).count

    def kill_worker(self, volume: VolumeInfo) -> None:
        status = self.datapath.status(volume.volume_id)
        assert status is not None
        assert status.alive
        os.kill(status.worker_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (now := self.datapath.status(volume.volume_id)) is not None and now.alive:
            assert time.monotonic() < deadline, "the worker's death went unnoticed"
            time.sleep(0.05)

    def sync(self) -> None:
        """Have the staged filesystem write out everything."""
        subprocess.run(["sync", "--file-system", str(self.staging)], check=True)

    def state_file(self, volume: VolumeInfo) -> Path:
        return self.states / f"{volume.volume_id}.json"

    def record(self, volume: VolumeInfo) -> Record:
        with self._connections.pool_at(volume.volume_id.location) as pool:
            return read_record(pool, volume.volume_id.image_id)

    def change_record(
        self, volume: VolumeInfo, change: Callable[[Record], Record]
    ) -> None:
        with self._connections.pool_at(volume.volume_id.location) as pool:
            change_record(pool, volume.volume_id.image_id, change)


def unmount_below(directory: Path) -> None:
    below = [
        Path(mount.mount_point)
        for mount in mounts.read_mounts()
        if mount.mount_point.startswith(f"{directory}/")
        and not mount.filesystem.startswith("fuse")
    ]
    for path in reversed(below):
        mounts.unmount_once(path, lazy=True)


def write_device(path: Path, data: bytes, offset: int = 0) -> None:
    with path.open("r+b", buffering=0) as device:
        device.seek(offset)
        device.write(data.ljust(BLOCK, b"\0"))
        os.fsync(device.fileno())


def read_device(path: Path, length: int, offset: int = 0) -> bytes:
    with path.open("rb", buffering=0) as device:
        device.seek(offset)
        return device.read(length)


def own_ceph_user() -> dict[str, str]:
    """Return the driver's own Ceph user as a Secret would name one."""
    config = parse_clusters(clusters_file().read_text()).get("lab")
    user = own_user(config)
    return {"userID": user.user_id, "userKey": user.key.reveal().decode()}
