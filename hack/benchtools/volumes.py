# SPDX-License-Identifier: Apache-2.0
"""Volumes that a measurement makes through the driver, and takes away again."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from csi_client import Driver
from csi_client import block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Mapping

    from csi_driver.rpc.stubs import csi_pb2

GIB = 1 << 30
PARAMETERS = {"clusterID": "lab", "pool": os.environ.get("CEPH_POOL", "rbd")}
IDLE_SECONDS = 1.5
"""How long to let the driver be after a call that leaves work behind: a fresh
spare worker after a stage takes most of a second of a processor."""


def random_key() -> dict[str, str]:
    """Return a Secret that holds a random key."""
    return {"encryptionKey": base64.b64encode(secrets.token_bytes(32)).decode()}


def passphrase() -> dict[str, str]:
    """Return a Secret that holds a person's passphrase."""
    return {"encryptionPassphrase": secrets.token_urlsafe(16)}


class Volumes:
    """One Secret, its volumes, and a place to stage them."""

    def __init__(self, secret: Mapping[str, str], folder: Path) -> None:
        self.secret = dict(secret)
        self._driver = Driver(PARAMETERS, secret)
        self._folder = folder
        self._made: list[csi_pb2.Volume] = []

    def create(self) -> tuple[csi_pb2.Volume, float]:
        """CreateVolume of 1 GiB; the volume and the seconds it took."""
        name = f"bench-{secrets.token_hex(8)}"
        begin = time.monotonic()
        volume = self._driver.create(name, GIB, block())
        took = time.monotonic() - begin
        self._made.append(volume)
        return volume, took

    def stage(self, volume: csi_pb2.Volume) -> float:
        """NodeStageVolume for block access; the seconds it took."""
        begin = time.monotonic()
        self._driver.stage(volume, self._path(volume), block())
        return time.monotonic() - begin

    def unstage(self, volume: csi_pb2.Volume) -> None:
        """NodeUnstageVolume, and time to settle."""
        self._driver.unstage(volume, self._path(volume))
        time.sleep(IDLE_SECONDS)

    def close(self) -> None:
        """Unstage and delete everything."""
        for volume in self._made:
            self._driver.unstage(volume, self._path(volume))
            self._driver.delete(volume)
        self._driver.close()

    def _path(self, volume: csi_pb2.Volume) -> Path:
        return self._folder / volume.volume_id.rpartition(":")[2]


@contextlib.contextmanager
def volumes(secret: Mapping[str, str]) -> Iterator[Volumes]:
    """Make volumes under one Secret; nothing is left of them at the end."""
    with tempfile.TemporaryDirectory(prefix="rbdcrypt-bench-") as folder:
        made = Volumes(secret, Path(folder))
        try:
            yield made
        finally:
            made.close()


def connected(endpoint: str) -> grpc.Channel:
    """Return a channel that has connected: the first call does not pay for it."""
    channel = grpc.insecure_channel(endpoint)
    grpc.channel_ready_future(channel).result(timeout=30)
    return channel
