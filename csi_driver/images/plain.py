# SPDX-License-Identifier: Apache-2.0
"""A handle on a plaintext image over python-rbd: its bytes as they stand."""

from __future__ import annotations

from csi_driver.domain.sizes import RawSize
from csi_driver.images.whole import CephWholeImage


class CephPlainImage(CephWholeImage):
    """A handle without encryption on an image that has none: raw offsets."""

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        return RawSize(self._bytes())

    def shrink(self, size: RawSize) -> None:
        """Lower the raw size."""
        self._shrink(size.count)
