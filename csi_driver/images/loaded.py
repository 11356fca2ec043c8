# SPDX-License-Identifier: Apache-2.0
"""A loaded handle over python-rbd: decrypted bytes and effective sizes."""

from __future__ import annotations

from typing import Any
from typing import Final
from typing import NoReturn

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.errors import mapped_load
from csi_driver.images.whole import CephWholeImage

_LOADED: Final = (
    "the encryption of image {} is loaded already: a second load or a format"
    " on it would destroy its data; close the image first"
)


class CephLoadedImage(CephWholeImage):
    """A handle whose whole chain is loaded: effective sizes and offsets."""

    def require_encryptable(self) -> None:
        """Refuse an image whose blocks librbd would mix up (UnsupportedError)."""
        self._striping().require_encryptable(self._id)

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""
        return EffectiveSize(self._bytes())

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
        self._shrink(size.count)

    def load(self, specs: LoadSpecs) -> NoReturn:
        """Refuse a second load."""
        del specs
        raise AlreadyLoadedError(_LOADED.format(self._id))

    def write_header(self, header: bytes) -> NoReturn:
        """Refuse a format on a loaded image."""
        del header
        raise AlreadyLoadedError(_LOADED.format(self._id))


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
