# SPDX-License-Identifier: Apache-2.0
"""What is really in Ceph, seen by its administrator without the driver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final

import rados
import rbd

_CHUNK: Final = 4 << 20
POOLS: Final = ("rbd", "rbd2")


class CephView:
    """The pools of the driver."""

    def __init__(self) -> None:
        self._cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
        self._cluster.connect(timeout=20)

    def close(self) -> None:
        """Disconnect."""
        self._cluster.shutdown()

    def images(self) -> list[str]:
        """Return the names of all images, trashed ones included."""
        found = []
        for pool in POOLS:
            with self._cluster.open_ioctx(pool) as context:
                found += rbd.RBD().list(context)
                found += [each["name"] for each in rbd.RBD().trash_list(context)]
        return sorted(found)

    @contextlib.contextmanager
    def slowed(self, image: str, pool: str = "rbd") -> Iterator[None]:
        """Let librbd work on one object of an image after the other."""
        setting = "conf_rbd_concurrent_management_ops"
        with self._cluster.open_ioctx(pool) as context:
            with rbd.Image(context, image) as opened:
                opened.metadata_set(setting, "1")
            yield
            with rbd.Image(context, image) as opened:
                opened.metadata_remove(setting)

    def holders(self, needle: bytes, pool: str = "rbd") -> list[str]:
        """Return the objects whose data contains some bytes."""
        with self._cluster.open_ioctx(pool) as context:
            return [
                each.key
                for each in context.list_objects()
                if self._holds(context, each.key, needle)
            ]

    def _holds(self, context: rados.Ioctx, name: str, needle: bytes) -> bool:
        try:
            size, _ = context.stat(name)
        except rados.ObjectNotFound:
            return False  # removed since it was listed
        tail = b""
        for offset in range(0, size, _CHUNK):
            part = tail + context.read(name, _CHUNK, offset)
            if needle in part:
                return True
            tail = part[-len(needle) :]
        return False
