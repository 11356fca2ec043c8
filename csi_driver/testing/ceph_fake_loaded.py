# SPDX-License-Identifier: Apache-2.0
"""Loaded handles of the fake: decrypted bytes, effective sizes, flattening."""

from __future__ import annotations

from typing import Final
from typing import NoReturn

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import CancelledError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.images.values import OnProgress
from csi_driver.testing.ceph_fake_data import BLOCK
from csi_driver.testing.ceph_fake_handles import FakeImage
from csi_driver.testing.ceph_fake_handles import Opened
from csi_driver.testing.ceph_fake_images import Lock
from csi_driver.testing.ceph_fake_images import Parent
from csi_driver.testing.ceph_fake_layers import Layer
from csi_driver.testing.ceph_fake_layers import load
from csi_driver.testing.ceph_fake_layers import raw_layers
from csi_driver.testing.ceph_fake_snapshots import let_go

_FLAT_MAGICS: Final = {
    b"RBDL\xba\xbe": b"LUKS\xba\xbe",
    b"LDBR\xba\xbe": b"SKUL\xba\xbe",
}
_SECOND_AT: Final = slice(8, 16)
"""Where a LUKS2 header says how long one copy of its metadata is."""


class FakeLoadedImage(FakeImage):
    """A handle whose whole chain is loaded: effective sizes and offsets."""

    def __init__(self, opened: Opened, specs: LoadSpecs) -> None:
        super().__init__(opened)
        with self._asking("loading the encryption"):
            self._layer = load(opened.view, specs)
            self._handle.loaded = True

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""
        with self._doing("reading the effective size"):
            return EffectiveSize(self._known().size - self._layer.data_offset)

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes."""
        self._require_inside(offset, length)
        with self._asking("reading data"):
            return self._layer.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Write."""
        self._require_inside(offset, len(data))
        with self._writing("writing data"):
            self._layer.write(offset, data)

    def grow(self, size: EffectiveSize) -> None:
        """Raise the effective size; the overlap with a parent stays.

        If another client owns the lock, librbd hands the number to it, and it
        takes it for a raw size unless its own handle is loaded.
        """
        present = self.size()
        if size < present:
            message = f"image {self.image_id} has {present}, more than {size}"
            raise SizeError(message)
        if size == present:
            return
        with self._asking("growing it") as doing:
            lock = self._image.lock
            if lock is None or lock.holder is self._handle or self._handle.read_only:
                self._image.take_lock(self._handle, exclusive=False, doing=doing)
                lock = Lock(self._handle, exclusive=False)
            raw = size.count + (self._layer.data_offset if lock.holder.loaded else 0)
            if raw < self._image.size:
                message = f"{doing}: the lock's owner takes {raw} for a raw size"
                raise InvalidRequestError(message)
            self._image.size = raw

    def shrink(self, size: EffectiveSize) -> None:
        """Lower the effective size; the overlap with a parent gets no larger."""
        present = self.size()
        if size > present:
            message = f"image {self.image_id} has {present}, less than {size}"
            raise SizeError(message)
        self._require_owner("shrinking it")
        if size == present:
            return
        with self._asking("shrinking it"):
            image, raw = self._image, size.count + self._layer.data_offset
            rest = min(-size.count % BLOCK, present.count - size.count)
            self._layer.write(size.count, bytes(rest))
            image.data.truncate(raw)
            image.size = raw
            if image.parent is not None:
                overlap = min(image.parent.overlap, raw)
                image.parent = Parent(image.parent.snapshot, overlap)

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
            flat = _flat(self._whole_header(doing))
            self._image.data.write(0, flat)
            parent, self._image.parent = self._image.parent, None
            let_go(self._store, parent)

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

    def _whole_header(self, doing: str) -> bytes:
        """Read the header area, what is absent from the parent's header area."""
        length = self._layer.data_offset
        below: Layer | None = self._layer.below
        room = 0 if below is None else below.data_offset
        data, end = self._image.data, 0
        for number, _, count in data.extents(0, length):
            end += count
            if data.object(number) is None and end > room:
                message = f"{doing}: the parent has no header there"
                raise InvalidRequestError(message)
        return raw_layers(self._image).read(0, length)

    def load(self, specs: LoadSpecs) -> NoReturn:
        """Refuse a second load."""
        del specs
        self._refuse()

    def write_header(self, header: bytes) -> NoReturn:
        """Refuse a format on a loaded image."""
        del header
        self._refuse()

    def close(self) -> None:
        """Close the handle and forget the volume keys."""
        super().close()
        self._layer.wipe()

    def _refuse(self) -> NoReturn:
        message = f"the encryption of image {self.image_id} is loaded already"
        raise AlreadyLoadedError(message)

    def _require_owner(self, what: str) -> None:
        with self._asking(what) as doing:
            lock = self._image.lock
            if lock is None or lock.holder is not self._handle:
                message = f"{doing}: only the owner of its lock may"
                raise InUseError(message)

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size().count:
            message = f"{length} bytes at {offset} reach beyond {self.image_id}"
            raise SizeError(message)


def _flat(header: bytes) -> bytes:
    """Return a formatted clone's header as that of a flat image."""
    flat = bytearray(header)
    for at in (0, int.from_bytes(header[_SECOND_AT], "big")):
        magic = bytes(flat[at : at + 6])
        flat[at : at + 6] = _FLAT_MAGICS.get(magic, magic)
    return bytes(flat)
