# SPDX-License-Identifier: Apache-2.0
"""Volumes, their devices, and a datapath that runs beside the test."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from csi_driver.datapath.client import Datapath
from csi_driver.datapath.messages import OpenVolume
from csi_driver.datapath.state import current_boot_id
from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.pools import CephPool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.images.users import own_user
from csi_driver.testing.lab_images import load_specs

NODE = "node-a"


@dataclasses.dataclass(frozen=True)
class Volume:
    """A volume of the lab, and what opens it."""

    volume_id: VolumeId
    name: str
    mode: EncryptionMode
    dek: bytes
    pool: CephPool
    config: ClusterConfig
    below: tuple[bytes, ...] = ()
    """The keys of what a clone reads, its parent's first."""

    def request(
        self,
        *,
        dek: bytes | None = None,
        read_only: bool = False,
        node_id: str = NODE,
        mode: EncryptionMode | None = None,
    ) -> OpenVolume:
        mode = mode or self.mode
        specs = None
        if mode.encrypted:
            specs = load_specs(dek or self.dek, *self.below)
        user = own_user(self.config)
        return OpenVolume(
            volume_id=self.volume_id,
            monitors=self.config.monitors,
            user_id=user.user_id,
            key=user.key,
            pool_name=self.pool.pool_name,
            specs=specs,
            mode=mode,
            read_only=read_only,
            node_id=node_id,
            boot_id=current_boot_id(),
        )

    def record(self) -> Record:
        return read_record(self.pool, self.volume_id.image_id)

    def change(self, change: Callable[[Record], Record]) -> Record:
        return change_record(self.pool, self.volume_id.image_id, change)

    def desire(self, size: EffectiveSize) -> None:
        self.change(lambda record: dataclasses.replace(record, desired=size))

    def raw_size(self) -> int:
        with self.pool.open_raw(self.volume_id.image_id, read_only=True) as raw:
            return raw.raw_size().count

    def lock_owner(self) -> str | None:
        with self.pool.open_raw(self.volume_id.image_id) as raw:
            owner = raw.lock_owner()
            return None if owner is None else owner.address


class Disk:
    """A block device, read and written past the page cache in whole blocks."""

    BLOCK = 4096

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, offset: int, content: bytes) -> None:
        device = os.open(self._path, os.O_RDWR | os.O_DIRECT)
        try:
            with mmap.mmap(-1, self.BLOCK) as page:
                page[:] = content
                assert os.pwritev(device, [page], offset) == self.BLOCK
                os.fsync(device)
        finally:
            os.close(device)

    def read(self, offset: int) -> bytes:
        device = os.open(self._path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, self.BLOCK) as page:
                assert os.preadv(device, [page], offset) == self.BLOCK
                return page[:]
        finally:
            os.close(device)

    def size(self) -> int:
        with self._path.open("rb") as device:
            return device.seek(0, os.SEEK_END)


@dataclasses.dataclass
class Running:
    """A datapath process on its own directories."""

    process: subprocess.Popen[bytes]
    client: Datapath
    directory: Path

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def state_files(self) -> list[Path]:
        return sorted((self.directory / "state").glob("*.json"))

    def worker_pid(self, volume: Volume) -> int:
        status = self.client.status(volume.volume_id)
        assert status is not None
        assert status.worker_pid
        return status.worker_pid

    def disk(self, volume: Volume) -> Disk:
        status = self.client.status(volume.volume_id)
        assert status is not None
        assert status.device is not None
        return Disk(status.device.path)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
