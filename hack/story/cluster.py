# SPDX-License-Identifier: Apache-2.0
"""What an attacker with the pool in hand would see: every byte RADOS keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import rados

CHUNK = 4 << 20


class PoolBytes:
    """All objects of the demo's pool: data, extended attributes, omap."""

    def __init__(self) -> None:
        self._cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
        self._cluster.connect()
        self._ioctx = self._cluster.open_ioctx(os.environ["CEPH_POOL"])

    def objects(self) -> list[str]:
        """Return the names of all objects in the default namespace."""
        return sorted(item.key for item in self._ioctx.list_objects())

    def data_bytes(self) -> int:
        """Return how many bytes the image data objects hold."""
        return sum(
            self._size(name) for name in self.objects() if name.startswith("rbd_data.")
        )

    def find(self, needle: bytes) -> list[str]:
        """Return the objects in which `needle` appears anywhere."""
        return [name for name in self.objects() if self._holds(name, needle)]

    def close(self) -> None:
        """Disconnect."""
        self._ioctx.close()
        self._cluster.shutdown()

    def _size(self, name: str) -> int:
        try:
            return int(self._ioctx.stat(name)[0])
        except rados.ObjectNotFound:
            return 0

    def _holds(self, name: str, needle: bytes) -> bool:
        try:
            return any(needle in part for part in self._parts(name))
        except rados.ObjectNotFound:
            return False  # collected since it was listed

    def _parts(self, name: str) -> Iterator[bytes]:
        size, _ = self._ioctx.stat(name)
        tail = b""
        for offset in range(0, size, CHUNK):
            chunk = self._ioctx.read(name, CHUNK, offset)
            yield tail + chunk
            tail = chunk[-256:]
        for key, value in self._ioctx.get_xattrs(name):
            yield key.encode() + value
        yield from self._omap(name)

    def _omap(self, name: str) -> Iterator[bytes]:
        with rados.ReadOpCtx() as operation:
            values: Any
            values, _ = self._ioctx.get_omap_vals(operation, "", "", 100_000)
            self._ioctx.operate_read_op(operation, name)
            for key, value in values:
                yield key.encode() + (value or b"")
