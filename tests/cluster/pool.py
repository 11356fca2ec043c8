# SPDX-License-Identifier: Apache-2.0
"""What is really in Ceph, seen by its administrator without the driver."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any
from typing import Final

import rados
import rbd

_CHUNK: Final = 4 << 20
_QUOTA_COUNTS_WITHIN: Final = 60.0
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

    @contextlib.contextmanager
    def full(self, pool: str) -> Iterator[None]:
        """Let a pool be over its quota, as Ceph sees it, too."""
        try:
            self._limit(pool, 1)
            yield
        finally:
            self._limit(pool, 0)

    def fence_clients_of(self, image_id: str, pool: str = "rbd") -> int:
        """Put the clients that have an image open on the blocklist; count them."""
        with (
            self._cluster.open_ioctx(pool) as context,
            rbd.Image(context, image_id=image_id, read_only=True) as opened,
        ):
            # One that has opened it to read is no watcher, and so not this one.
            found = {each["addr"] for each in opened.watchers_list()}
        for address in found:
            self._order(prefix="osd blocklist", blocklistop="add", addr=address)
        return len(found)

    def _limit(self, pool: str, size: int) -> None:
        """Give a pool a quota of so many bytes, 0 for none; wait until it counts."""
        quota = {"pool": pool, "field": "max_bytes", "val": str(size)}
        self._order(prefix="osd pool set-quota", **quota)
        deadline = time.monotonic() + _QUOTA_COUNTS_WITHIN
        while ("full_quota" in self._flags(pool)) != bool(size):
            assert time.monotonic() < deadline, self._flags(pool)
            time.sleep(0.2)

    def _flags(self, pool: str) -> list[str]:
        pools = self._order(prefix="osd dump")["pools"]
        (found,) = [each for each in pools if each["pool_name"] == pool]
        return str(found["flags_names"]).split(",")

    def _order(self, **command: Any) -> Any:
        """Send a command to the monitors; return their answer."""
        text = json.dumps({"format": "json", **command})
        status, answer, said = self._cluster.mon_command(text, b"")
        assert status == 0, said
        return json.loads(answer or b"null")

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
