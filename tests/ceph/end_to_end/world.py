# SPDX-License-Identifier: Apache-2.0
"""A controller and nodes, and the volumes that a test makes with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import grpc

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.devices import mounts
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import Record
from csi_driver.images.ceph import CephConnector
from csi_driver.images.connections import SharedConnections
from csi_driver.images.records import read_record
from csi_driver.rpc.stubs import csi_pb2
from tests.ceph.end_to_end import traces
from tests.ceph.end_to_end.client import MIB
from tests.ceph.end_to_end.client import Controller
from tests.ceph.end_to_end.client import Node
from tests.ceph.end_to_end.client import Secrets
from tests.ceph.end_to_end.parts import Part


class Machine:
    """One node: its service, its datapath, and a client of the service."""

    def __init__(
        self,
        node_id: str,
        directory: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.node_id = node_id
        self.directory = directory
        self.service = Part("node", directory, node_id, settings)
        self.datapath = Part("datapath", directory, node_id, settings)
        self.control = Datapath(self.datapath.socket)
        self.parts = (self.service, self.datapath)
        self.client = Node(self.service.endpoint)

    def staging(self, volume: csi_pb2.Volume) -> Path:
        return self.directory / "staging" / volume.volume_id[-12:]

    def target(self, volume: csi_pb2.Volume, pod: str = "one") -> Path:
        return self.directory / "pods" / pod / volume.volume_id[-12:]

    def stage(
        self,
        volume: csi_pb2.Volume,
        secrets: Secrets,
        capability: csi_pb2.VolumeCapability | None = None,
    ) -> Path:
        """Stage and publish; return the target path."""
        self.client.stage(volume, self.staging(volume), secrets, capability)
        target = self.target(volume)
        self.client.publish(volume, self.staging(volume), target, capability)
        return target

    def unstage(self, volume: csi_pb2.Volume) -> None:
        """Unpublish and unstage."""
        self.client.unpublish(volume, self.target(volume))
        self.client.unstage(volume, self.staging(volume))

    def worker_pid(self, volume: csi_pb2.Volume) -> int:
        status = self.control.status(VolumeId.parse(volume.volume_id))
        assert status is not None
        assert status.alive
        return status.worker_pid

    def alive(self, volume: csi_pb2.Volume) -> bool:
        status = self.control.status(VolumeId.parse(volume.volume_id))
        return status is not None and status.alive


@contextlib.contextmanager
def machine(
    node_id: str, settings: Mapping[str, str] | None = None
) -> Iterator[Machine]:
    """Give a node that runs; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="e2e-"))
    found = Machine(node_id, directory, settings)
    try:
        found.datapath.start()
        found.service.start()
        yield found
    finally:
        found.client.close()
        unmount_below(directory)
        found.service.stop()
        found.datapath.stop()
        shutil.rmtree(directory)


class World:
    """A controller beside the first node, and what was made with them."""

    def __init__(self, first: Machine) -> None:
        self.first = first
        self.controller_part = Part(
            "controller", first.directory, first.node_id, first.settings
        )
        self.controller_part.start()
        self.controller = Controller(
            self.controller_part.endpoint, {"clusterID": "lab", "pool": pool_name()}
        )
        self._clusters = parse_clusters(
            Path(os.environ["RBDCRYPT_CLUSTERS_FILE"]).read_text()
        )
        self._connections = SharedConnections(
            CephConnector(self._clusters), self._clusters
        )
        self._made: list[csi_pb2.Volume] = []
        self._snapshots: list[csi_pb2.Snapshot] = []
        self._count = 0
        self._machines = [first]

    def create(
        self,
        secrets: Secrets,
        *,
        size: int = 64 * MIB,
        capability: csi_pb2.VolumeCapability | None = None,
    ) -> csi_pb2.Volume:
        volume = self.controller.create(
            self.new_name(), secrets, size=size, capability=capability
        )
        self._made.append(volume)
        return volume

    def snapshot(
        self, volume: csi_pb2.Volume, secrets: Secrets | None = None
    ) -> csi_pb2.Snapshot:
        snapshot = self.controller.snapshot(volume, self.new_name(), secrets)
        self._snapshots.append(snapshot)
        return snapshot

    def clone(
        self,
        secrets: Secrets,
        source: csi_pb2.Volume | csi_pb2.Snapshot,
        *,
        size: int | None = None,
        capability: csi_pb2.VolumeCapability | None = None,
        **parameters: str,
    ) -> csi_pb2.Volume:
        """Make a clone whose class has these parameters besides."""
        given = {**self.controller.parameters, **parameters}
        with Controller(self.controller_part.endpoint, given) as controller:
            volume = controller.clone(
                self.new_name(), secrets, source, size=size, capability=capability
            )
        self._made.append(volume)
        return volume

    def flatten(self, volume: csi_pb2.Volume) -> None:
        """Flatten a clone that is staged on the first node."""
        self.first.control.flatten(VolumeId.parse(volume.volume_id))
        self.await_flat(volume)

    def await_flat(self, volume: csi_pb2.Volume) -> None:
        """Wait until a clone is flat and its ring has no key but its own."""
        eventually("flattening", lambda: flattened(self.first.control, volume), 60)
        record = self.record(volume)
        assert record.ancestors == 0
        assert record.ring is not None
        assert len(record.layers) == 1
        keys = [entry.header_uuid for entry in record.ring.entries]
        assert keys == list(record.layers)

    def new_name(self) -> str:
        self._count += 1
        return f"e2e-{os.getpid()}-{time.monotonic_ns()}-{self._count}"

    def forget(self, volume: csi_pb2.Volume) -> None:
        """Leave a volume to its test, which deletes it."""
        self._made.remove(volume)

    def remember(self, volume: csi_pb2.Volume) -> None:
        """Delete a volume at the end that was not made by `create`."""
        if volume not in self._made:
            self._made.append(volume)

    def join(self, other: Machine) -> None:
        """Have a further node tidied as well."""
        if other not in self._machines:
            self._machines.append(other)

    def record(self, volume: csi_pb2.Volume) -> Record:
        found = VolumeId.parse(volume.volume_id)
        with self._connections.pool_at(found.location) as pool:
            return read_record(pool, found.image_id)

    def left_in_ceph(self, *volumes: csi_pb2.Volume) -> set[str]:
        """Return the objects of Ceph that belong to the volumes."""
        ids = [VolumeId.parse(each.volume_id).image_id for each in volumes]
        with traces.pool_at(os.environ["CEPH_CONF"], pool_name()) as pool:
            names = {item.key for item in pool.list_objects()}
        return {name for name in names if any(each in name for each in ids)}

    def tidy(self) -> None:
        """Unstage and delete everything; a failure is the test's."""
        for each in self._machines:
            unmount_below(each.directory)
            for status in each.control.list():
                each.control.close(status.volume_id)
            for state in (each.directory / "state" / "node").glob("*.json"):
                state.unlink()
        while self._made:
            self.controller.delete(self._made.pop())
        while self._snapshots:
            self.controller.delete_snapshot(self._snapshots.pop())

    def logs(self) -> str:
        """Return the end of every log, for a test that failed."""
        parts = [self.controller_part]
        parts += [part for each in self._machines for part in each.parts]
        return "\n".join(f"--- {part.name}\n{part.log[-4000:]}" for part in parts)

    def close(self) -> None:
        self.controller.close()
        self._connections.close()
        self.controller_part.stop()


def pool_name() -> str:
    return os.environ.get("CEPH_POOL", "rbd")


def unmount_below(directory: Path) -> None:
    """Unmount what is mounted below a directory, the export's FUSE apart."""
    below = [
        Path(mount.mount_point)
        for mount in mounts.read_mounts()
        if mount.mount_point.startswith(f"{directory}/")
        and not mount.filesystem.startswith("fuse")
    ]
    for path in reversed(below):
        mounts.unmount_once(path, lazy=True)


def flattened(control: Datapath, volume: csi_pb2.Volume) -> bool:
    """Tell whether the flatten of a staged clone has ended, and well."""
    status = control.status(VolumeId.parse(volume.volume_id))
    assert status is not None
    if status.counters is None or status.counters.flatten is None:
        return False
    assert status.counters.flatten.state is not FlattenState.FAILED, status
    return status.counters.flatten.state is FlattenState.DONE


def eventually(what: str, holds: Callable[[], bool], seconds: float) -> float:
    """Wait until something holds; return the seconds that it took."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begin


def sync(path: Path) -> None:
    """Have a mounted filesystem write out everything."""
    subprocess.run(["sync", "--file-system", str(path)], check=True)


def code_of(error: BaseException) -> str:
    assert isinstance(error, grpc.RpcError)
    return str(error.code().name)
