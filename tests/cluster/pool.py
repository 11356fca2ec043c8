# SPDX-License-Identifier: Apache-2.0
"""What is really in Ceph, seen by its administrator without the driver."""

from __future__ import annotations

import os
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
