# SPDX-License-Identifier: Apache-2.0
"""What raw and loaded handles over python-rbd have in common."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any
from typing import Final
from typing import Self

import rbd

from csi_driver.domain.sizes import Striping
from csi_driver.images.errors import mapped
from csi_driver.images.values import LockOwner
from csi_driver.images.values import Watcher

FEATURE_BITS: Final = {
    "layering": rbd.RBD_FEATURE_LAYERING,
    "exclusive-lock": rbd.RBD_FEATURE_EXCLUSIVE_LOCK,
    "object-map": rbd.RBD_FEATURE_OBJECT_MAP,
    "fast-diff": rbd.RBD_FEATURE_FAST_DIFF,
    "deep-flatten": rbd.RBD_FEATURE_DEEP_FLATTEN,
    "journaling": rbd.RBD_FEATURE_JOURNALING,
    "data-pool": rbd.RBD_FEATURE_DATA_POOL,
    "striping": rbd.RBD_FEATURE_STRIPINGV2,
}


class CephImage:
    """What raw and loaded handles share; use one of those two."""

    def __init__(self, image: Any, own_address: str) -> None:
        self._image = image
        self._own_address = own_address
        with mapped("reading the image's id"):
            self._id = str(image.id())

    @property
    def image_id(self) -> str:
        """RBD's id of the image."""
        return self._id

    @property
    def name(self) -> str:
        """The image's name in its pool."""
        with self._doing("reading the name"):
            return str(self._image.get_name())

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock; InUseError when somebody holds it."""
        with self._doing("taking the exclusive lock"):
            self._image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)

    def lock_owner(self) -> LockOwner | None:
        """Return who holds the exclusive lock."""
        with self._doing("reading the lock's owner"):
            owners = [dict(each) for each in self._image.lock_get_owners()]
        if not owners:
            return None
        # librbd's token is the owner's address.  list_lockers shows addresses
        # too, but from a cache that may still name the owner before this one.
        token = str(owners[0]["owner"])
        return LockOwner(owner=token, address=token)

    def break_lock(self, owner: LockOwner) -> None:
        """Take the lock from a dead owner, which fences its client."""
        with self._doing(f"breaking the lock of {owner.address}"):
            self._image.lock_break(rbd.RBD_LOCK_MODE_EXCLUSIVE, owner.owner)

    def foreign_watchers(self) -> list[Watcher]:
        """Return other clients that have the image open for writing."""
        with self._doing("reading the watchers"):
            found = [dict(each) for each in self._image.watchers_list()]
        return [
            Watcher(str(each["addr"]), int(each["id"]), int(each["cookie"]))
            for each in found
            if str(each["addr"]) != self._own_address
        ]

    def close(self) -> None:
        """Close the handle."""
        with self._doing("closing it"):
            self._image.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _striping(self) -> Striping:
        with self._doing("reading the striping"):
            return Striping(
                object_size=int(self._image.stat()["obj_size"]),
                stripe_unit=int(self._image.stripe_unit()),
                stripe_count=int(self._image.stripe_count()),
            )

    def _doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        return mapped(f"image {self._id}: {what}")
