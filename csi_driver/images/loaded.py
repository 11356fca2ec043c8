# SPDX-License-Identifier: Apache-2.0
"""A loaded handle over python-rbd: decrypted bytes and effective sizes."""

from __future__ import annotations

import errno
from typing import Any
from typing import Final
from typing import NoReturn

import rbd

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.errors import mapped_load
from csi_driver.images.handles import CephImage
from csi_driver.images.values import OnProgress

_LOADED: Final = (
    "the encryption of image {} is loaded already: a second load or a format"
    " on it would destroy its data; close the image first"
)


class CephLoadedImage(CephImage):
    """A handle whose whole chain is loaded: effective sizes and offsets."""

    def require_encryptable(self) -> None:
        """Refuse an image whose blocks librbd would mix up (UnsupportedError)."""
        self._striping().require_encryptable(self._id)

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""
        with self._doing("reading the effective size"):
            return EffectiveSize(int(self._image.size()))

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes."""
        self._require_inside(offset, length)
        with self._doing("reading data"):
            return bytes(self._image.read(offset, length))

    def write(self, offset: int, data: bytes) -> None:
        """Write and flush."""
        self._require_inside(offset, len(data))
        with self._doing("writing data"):
            self._image.write(data, offset)
            self._image.flush()

    def grow(self, size: EffectiveSize) -> None:
        """Raise the effective size."""
        present = self.size()
        if size < present:
            message = f"image {self._id} has {present}; growing to {size} would shrink"
            raise SizeError(message)
        if size > present:
            with self._doing("growing it"):
                self._image.resize(size.count, allow_shrink=False)

    def shrink(self, size: EffectiveSize) -> None:
        """Lower the effective size."""
        present = self.size()
        if size > present:
            message = f"image {self._id} has {present}; shrinking to {size} would grow"
            raise SizeError(message)
        self._require_owner("shrunk")
        if size < present:
            with self._doing("shrinking it"):
                self._image.resize(size.count, allow_shrink=True)

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

    def load(self, specs: LoadSpecs) -> NoReturn:
        """Refuse a second load."""
        del specs
        raise AlreadyLoadedError(_LOADED.format(self._id))

    def write_header(self, header: bytes) -> NoReturn:
        """Refuse a format on a loaded image."""
        del header
        raise AlreadyLoadedError(_LOADED.format(self._id))

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
        if offset < 0 or length < 0 or offset + length > self.size().count:
            message = f"{length} bytes at {offset} reach beyond image {self._id}"
            raise SizeError(message)


def load(image: Any, specs: LoadSpecs) -> None:
    """Load the encryption of a just-opened python-rbd image.

    Passphrases go in as bytes: with str and two or more specs, python-rbd
    18.2.7 hands librbd dangling pointers (ceph/ceph pull request 71829).
    """
    with mapped_load("loading the encryption"):
        image.encryption_load2(
            tuple(
                (int(layer.format), layer.passphrase.reveal()) for layer in specs.layers
            ),
        )
