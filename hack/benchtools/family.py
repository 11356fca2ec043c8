# SPDX-License-Identifier: Apache-2.0
"""Volumes, snapshots and clones that a measurement makes, and takes away again."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import rados
import rbd
from csi_client import Driver
from csi_client import block

from benchtools.processes import BenchError
from benchtools.volumes import GIB
from benchtools.volumes import PARAMETERS
from benchtools.volumes import random_key
from csi_driver.datapath.client import Datapath
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Iterator

    from csi_driver.rpc.stubs import csi_pb2


class Chain:
    """Volumes under one key and their clones, each of which has another."""

    def __init__(self, folder: Path) -> None:
        self.secret = random_key()
        self._driver = Driver(PARAMETERS, self.secret)
        self._folder = folder
        self._volumes: list[csi_pb2.Volume] = []
        self._snapshots: list[csi_pb2.Snapshot] = []
        self.secrets_of: dict[str, dict[str, str]] = {}

    def timed(self, call: Callable[..., object], *given: object) -> float:
        """Return the seconds that a call takes."""
        begin = time.monotonic()
        call(*given)
        return time.monotonic() - begin

    def create(
        self, size: int, capability: csi_pb2.VolumeCapability | None = None
    ) -> csi_pb2.Volume:
        """CreateVolume."""
        volume = self._driver.create(_name(), size, capability or block())
        return self._remember(volume, self.secret)

    def snapshot(self, volume: csi_pb2.Volume) -> csi_pb2.Snapshot:
        """CreateSnapshot."""
        snapshot = self._driver.snapshot(volume, _name())
        self._snapshots.append(snapshot)
        return snapshot

    def clone(
        self,
        snapshot: csi_pb2.Snapshot,
        size: int,
        capability: csi_pb2.VolumeCapability | None = None,
    ) -> csi_pb2.Volume:
        """CreateVolume from a snapshot, under a fresh key."""
        theirs = self.secrets_of[snapshot.source_volume_id]
        own = random_key()
        both = {**own, "sourceEncryptionKey": theirs["encryptionKey"]}
        wanted = capability or block()
        volume = self._driver.clone(_name(), size, wanted, snapshot, both)
        return self._remember(volume, own)

    def chain(
        self, depth: int, capability: csi_pb2.VolumeCapability
    ) -> list[csi_pb2.Volume]:
        """Make a volume and clones of clones, `depth` images in all."""
        found = [self.create(GIB, capability)]
        self.stage(found[0], capability)  # it gets its filesystem
        self.unstage(found[0])
        while len(found) < depth:
            snapshot = self.snapshot(found[-1])
            found.append(self.clone(snapshot, GIB, capability))
        return found

    def stage(
        self, volume: csi_pb2.Volume, capability: csi_pb2.VolumeCapability
    ) -> None:
        """NodeStageVolume."""
        secret = self.secrets_of[volume.volume_id]
        self._driver.stage(volume, self._path(volume), capability, secret)

    def unstage(self, volume: csi_pb2.Volume) -> None:
        """NodeUnstageVolume."""
        self._driver.unstage(volume, self._path(volume))

    def device(self, volume: csi_pb2.Volume) -> Path:
        """Return the device of a staged volume."""
        datapath = Datapath(Path(os.environ["RBDCRYPT_RUN_DIR"], "datapath.sock"))
        status = datapath.status(VolumeId.parse(volume.volume_id))
        if status is None or status.device is None:
            raise BenchError(f"volume {volume.volume_id} has no device")
        return status.device.path

    @contextlib.contextmanager
    def image(self, volume: csi_pb2.Volume) -> Iterator[Any]:
        """Lend the volume's image as librbd shows it to an administrator."""
        image_id = VolumeId.parse(volume.volume_id).image_id
        with (
            rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster,
            cluster.open_ioctx(PARAMETERS["pool"]) as context,
            rbd.Image(context, image_id=image_id) as image,
        ):
            yield image

    def snapshot_path(self, snapshot: csi_pb2.Snapshot) -> str:
        """Return POOL/IMAGE@SNAPSHOT, as the rbd tool wants it."""
        found = SnapshotId.parse(snapshot.snapshot_id)
        with (
            rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster,
            cluster.open_ioctx(PARAMETERS["pool"]) as context,
            rbd.Image(context, image_id=found.volume.image_id) as image,
        ):
            name = image.snap_get_name(found.number)
            return f"{PARAMETERS['pool']}/{image.get_name()}@{name}"

    def close(self) -> None:
        """Unstage and delete everything."""
        for volume in self._volumes:
            self.unstage(volume)
        for snapshot in self._snapshots:
            self._driver.delete_snapshot(snapshot)
        for volume in self._volumes:
            self._driver.delete(volume)
        self._driver.close()

    def _remember(
        self, volume: csi_pb2.Volume, secret: dict[str, str]
    ) -> csi_pb2.Volume:
        self._volumes.append(volume)
        self.secrets_of[volume.volume_id] = secret
        return volume

    def _path(self, volume: csi_pb2.Volume) -> Path:
        return self._folder / volume.volume_id.rpartition(":")[2]


@contextlib.contextmanager
def by_key() -> Iterator[Chain]:
    """Make volumes and clones under random keys; nothing is left at the end."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-bench-") as folder:
        made = Chain(Path(folder))
        try:
            yield made
        finally:
            made.close()


def _name() -> str:
    return f"bench-{secrets.token_hex(8)}"
