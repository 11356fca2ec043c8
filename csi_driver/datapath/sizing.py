# SPDX-License-Identifier: Apache-2.0
"""The size of a worker's image: told, brought to a target, and read back.

A resize that a foreign client asks for is handed to the owner of the lock,
which takes the raw bytes of such a request for effective ones.  So no size is
trusted before a handle that never was loaded has shown it.
"""

from __future__ import annotations

import structlog

from csi_driver.datapath.messages import OpenVolume
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.record import EncryptionMode
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.images.port import Pool
from csi_driver.nbd.librbd_image import LibrbdImage

_log = structlog.get_logger(__name__)


class Sizing:
    """Resizes one open image; `pool` is for looking at it unloaded."""

    def __init__(self, volume: OpenVolume, image: LibrbdImage, pool: Pool) -> None:
        self._volume = volume
        self._image = image
        self._pool = pool
        self._found = EffectiveSize(0)

    def found(self, layout: Layout) -> EffectiveSize:
        """Return the size, and remember it as the one at the opening."""
        self._found = self._present(layout)
        return self._found

    def fit(self, layout: Layout, target: EffectiveSize) -> None:
        """Grow the image to `target`, or mend a size that others shifted.

        Nothing behind `target` was ever exported.  What a foreign client added
        there since this one has the lock is empty and goes; what was there
        before may hold data where others have the keys, and stays.
        PreconditionError if Ceph shows another raw size afterwards, and for a
        read-only image that would have to grow.
        """
        present = self._present(layout)
        if present < target:
            self._require_writable(target)
            self._image.grow(self._handle_size(layout, target))
            _log.info("image grown", volume=self._name, size=target.count)
        elif present > target and self._may_shrink(target):
            self._image.shrink(self._handle_size(layout, target))
            _log.warning(
                "a foreign resize was undone", volume=self._name, size=present.count
            )
        self._verify(layout, target)

    @property
    def _name(self) -> str:
        return str(self._volume.volume_id)

    def _present(self, layout: Layout) -> EffectiveSize:
        """Return what the image can export: a plaintext handle shows raw bytes."""
        size = self._image.size()
        if self._volume.mode.encrypted:
            return EffectiveSize(size)
        return layout.effective(RawSize(size))

    def _handle_size(self, layout: Layout, size: EffectiveSize) -> int:
        return size.count if self._volume.mode.encrypted else layout.raw(size).count

    def _may_shrink(self, target: EffectiveSize) -> bool:
        if self._volume.read_only:
            return False
        # Where the record has the keys, nobody else could write anything.
        return self._volume.mode is EncryptionMode.KEYRING or self._found <= target

    def _require_writable(self, target: EffectiveSize) -> None:
        if self._volume.read_only:
            message = (
                f"volume {self._name} is staged read-only and cannot grow to"
                f" {target}: it grows at its next writable stage"
            )
            raise PreconditionError(message)

    def _verify(self, layout: Layout, target: EffectiveSize) -> None:
        """Read the raw size back through a handle that never was loaded."""
        present = self._present(layout)
        with self._pool.open_raw(
            self._volume.volume_id.image_id, read_only=True
        ) as raw:
            found = raw.raw_size()
        if present < target or found != layout.raw(present):
            message = (
                f"volume {self._name} should have {layout.raw(target)} after growing;"
                f" Ceph shows {found}, and {present} of them are exported: nothing"
                " was recorded"
            )
            raise PreconditionError(message)
