# SPDX-License-Identifier: Apache-2.0
"""Two layers as `rbd encryption format` makes them, and the least it takes to load.

`rbd-nbd map` does this before it attaches a device, which needs the kernel's nbd.
"""

from __future__ import annotations

import os
import secrets
import time
from types import TracebackType
from typing import Any
from typing import Self

import rados
import rbd

from benchtools.volumes import GIB
from benchtools.volumes import PARAMETERS


class LoadedByHand:
    """A parent and a formatted clone with argon2id headers; removed at the end."""

    def __init__(self) -> None:
        self._name = f"bench-{secrets.token_hex(8)}"
        self._clone = f"{self._name}-clone"
        self._words = [secrets.token_urlsafe(16).encode() for _ in range(2)]

    def __enter__(self) -> Self:
        librbd = rbd.RBD()
        with self._context() as context:
            librbd.create(context, self._name, GIB)
            with rbd.Image(context, self._name) as image:
                image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS2, self._words[1])
                image.create_snap("s")
            librbd.clone(context, self._name, "s", context, self._clone, clone_format=2)
            with rbd.Image(context, self._clone) as image:
                image.encryption_format(rbd.RBD_ENCRYPTION_FORMAT_LUKS2, self._words[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        librbd = rbd.RBD()
        with self._context() as context:
            librbd.remove(context, self._clone)
            with rbd.Image(context, self._name) as image:
                image.remove_snap("s")
            librbd.remove(context, self._name)

    def open(self) -> float:
        """Connect, open and load; the seconds until the image could be read."""
        begin = time.monotonic()
        with (
            self._context() as context,
            rbd.Image(context, self._clone) as image,
        ):
            image.encryption_load2(
                tuple((rbd.RBD_ENCRYPTION_FORMAT_LUKS, word) for word in self._words)
            )
            return time.monotonic() - begin

    @staticmethod
    def _context() -> Any:
        cluster = rados.Rados(conffile=os.environ["CEPH_CONF"])
        cluster.connect()
        return _Context(cluster)


class _Context:
    """A pool of a connection of its own, which ends with it."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    def __enter__(self) -> Any:
        self._ioctx = self._cluster.open_ioctx(PARAMETERS["pool"])
        return self._ioctx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ioctx.close()
        self._cluster.shutdown()
