# SPDX-License-Identifier: Apache-2.0
"""What those handles of the fake share that reach an image's data.

Offsets are the handle's own: behind the header of a loaded image, raw on a
plaintext one.
"""

from __future__ import annotations

from collections.abc import Callable

from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import RawSize
from csi_driver.images.values import OnProgress
from csi_driver.testing.ceph_fake_data import BLOCK
from csi_driver.testing.ceph_fake_handles import FakeImage
from csi_driver.testing.ceph_fake_handles import Opened
from csi_driver.testing.ceph_fake_images import Parent
from csi_driver.testing.ceph_fake_layers import Layer
from csi_driver.testing.ceph_fake_layers import raw_layers
from csi_driver.testing.ceph_fake_snapshots import let_go


class FakeWholeImage(FakeImage):
    """A handle that reads data and flattens; `load` opens its layers."""

    def __init__(self, opened: Opened, load: Callable[[], Layer]) -> None:
        super().__init__(opened)
        with self._asking("loading the encryption"):
            self._layer = load()

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes."""
        self._require_inside(offset, length)
        with self._asking("reading data"):
            return self._layer.read(offset, length)

    def flatten(self, on_progress: OnProgress) -> None:
        """Copy what the parent holds and let go of it.

        The store is free between two objects, as a cluster is.
        """
        total = self._objects_to_copy()
        header = self._layer.data_offset
        for number in range(self._image.data.count_in(header), total):
            self._require_owner("flattening it")
            with self._writing("flattening it"):
                self._layer.copy_up(number)
            if not on_progress(number, total):
                message = f"the flatten of image {self.image_id} was cancelled"
                raise CancelledError(message)
        with self._writing("flattening it") as doing:
            self._end_flatten(doing)
            parent, self._image.parent = self._image.parent, None
            let_go(self._store, parent)

    def close(self) -> None:
        """Close the handle and forget the volume keys."""
        super().close()
        self._layer.wipe()

    def _end_flatten(self, doing: str) -> None:
        """Do what belongs to the header."""

    def _bytes(self) -> int:
        with self._doing("reading its size"):
            return self._known().size - self._layer.data_offset

    def _shrink(self, count: int) -> None:
        present = self._bytes()
        if count > present:
            message = f"image {self.image_id} has {present} bytes, less than {count}"
            raise SizeError(message)
        self._require_owner("shrinking it")
        if count == present:
            return
        with self._asking("shrinking it"):
            image, raw = self._image, count + self._layer.data_offset
            rest = min(-count % BLOCK, present - count)
            self._layer.write(count, bytes(rest))
            image.data.truncate(raw)
            image.size = raw
            if image.parent is not None:
                overlap = min(image.parent.overlap, raw)
                image.parent = Parent(image.parent.snapshot, overlap)

    def _objects_to_copy(self) -> int:
        self._require_owner("flattening it")
        with self._asking("flattening it"):
            image = self._image
            if image.parent is None:
                message = f"image {self.image_id} has no parent"
                raise PreconditionError(message)
            if "deep-flatten" in image.features and image.snapshots:
                message = f"the snapshots of image {self.image_id} would be orphaned"
                raise PreconditionError(message)
            return image.data.count_in(image.parent.overlap)

    def _require_owner(self, what: str) -> None:
        with self._asking(what) as doing:
            lock = self._image.lock
            if lock is None or lock.holder is not self._handle:
                message = f"{doing}: only the owner of its lock may"
                raise InUseError(message)

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._bytes():
            message = f"{length} bytes at {offset} reach beyond {self.image_id}"
            raise SizeError(message)


class FakePlainImage(FakeWholeImage):
    """A handle on a plaintext image: raw size and offsets."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened, lambda: raw_layers(opened.view))

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        return RawSize(self._bytes())

    def shrink(self, size: RawSize) -> None:
        """Lower the raw size."""
        self._shrink(size.count)
