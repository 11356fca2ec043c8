# SPDX-License-Identifier: Apache-2.0
"""What handles over python-rbd share that reach the data of an image.

Offsets and sizes are the handle's own: behind the header once encryption is
loaded, raw on a plaintext image.  Which of the two they are is left to
`loaded` and `plain`.
"""

from __future__ import annotations

import errno

import rbd

from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.images.handles import CephImage
from csi_driver.images.values import OnProgress


class CephWholeImage(CephImage):
    """A handle that reads data and flattens; use one of its two kinds."""

    def read(self, offset: int, length: int) -> bytes:
        """Read data."""
        self._require_inside(offset, length)
        with self._doing("reading data"):
            return bytes(self._image.read(offset, length))

    def flatten(self, on_progress: OnProgress) -> None:
        """Copy what the parent holds and let go of it."""
        self._require_owner("flattened")
        with self._doing("reading its parent and snapshots"):
            try:
                self._image.parent_info()
            except rbd.ImageNotFound:
                message = f"image {self._id} has no parent: there is nothing to flatten"
                raise PreconditionError(message) from None
            orphans = bool(self._image.features() & rbd.RBD_FEATURE_DEEP_FLATTEN)
            orphans = orphans and bool(list(self._image.list_snaps()))
        if orphans:
            message = (
                f"image {self._id} has snapshots and the feature deep-flatten: they"
                " would lose their parent and never load again; remove them, or run"
                " `rbd feature disable … deep-flatten`, which cannot be undone"
            )
            raise PreconditionError(message)

        def report(done: int, total: int) -> int:
            return 0 if on_progress(done, total) else -errno.ECANCELED

        with self._doing("flattening it"):
            try:
                self._image.flatten(on_progress=report)
            except rbd.OperationCanceled as error:
                message = f"the flatten of image {self._id} was cancelled"
                raise CancelledError(message) from error

    def _bytes(self) -> int:
        with self._doing("reading its size"):
            return int(self._image.size())

    def _shrink(self, count: int) -> None:
        present = self._bytes()
        if count > present:
            message = (
                f"image {self._id} has {present} bytes; shrinking it to {count} would"
                " grow it"
            )
            raise SizeError(message)
        self._require_owner("shrunk")
        if count < present:
            with self._doing("shrinking it"):
                self._image.resize(count, allow_shrink=True)

    def _require_owner(self, done: str) -> None:
        # A request that is handed to the lock's owner is its to interpret, and
        # goes on raw if the owner ends.
        with self._doing("asking who owns its lock"):
            owner = bool(self._image.is_exclusive_lock_owner())
        if not owner:
            message = f"image {self._id} is {done} by the owner of its lock alone"
            raise InUseError(message)

    def _require_inside(self, offset: int, length: int) -> None:
        # librbd cuts a write across the end silently and reports success.
        if offset < 0 or length < 0 or offset + length > self._bytes():
            message = f"{length} bytes at {offset} reach beyond image {self._id}"
            raise SizeError(message)
