# SPDX-License-Identifier: Apache-2.0
"""Raw and loaded image handles over python-rbd."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any
from typing import Final
from typing import NoReturn
from typing import Self

import rbd

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.errors import mapped
from csi_driver.images.errors import mapped_load
from csi_driver.images.port import Dependants
from csi_driver.images.port import LockOwner
from csi_driver.images.port import Watcher

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

_MAGIC_LENGTH: Final = 8
_LOADED: Final = (
    "the encryption of image {} is loaded already: a second load or a format"
    " on it would destroy its data; close the image first"
)


class CephImage:
    """What raw and loaded handles share; use one of the two below."""

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


class CephRawImage(CephImage):
    """A handle without encryption: reaches the header area and no data."""

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        with self._doing("reading the raw size"):
            return RawSize(int(self._image.size()))

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""
        return self._striping()

    def features(self) -> frozenset[str]:
        """Return the features by name."""
        with self._doing("reading the features"):
            bits = int(self._image.features())
        return frozenset(name for name, bit in FEATURE_BITS.items() if bits & bit)

    def dependants(self) -> Dependants:
        """Count snapshots and clones, also those in the trash."""
        with self._doing("counting its snapshots and clones"):
            return Dependants(
                snapshots=len(list(self._image.list_snaps())),
                children=len(list(self._image.list_children2())),
            )

    def has_parent(self) -> bool:
        """Tell whether the image still reads a parent."""
        with self._doing("reading its parent"):
            try:
                self._image.parent_info()
            except rbd.ImageNotFound:
                return False
            return True

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0, header area only."""
        self._require_header_area(length)
        with self._doing("reading the header"):
            return bytes(self._image.read(0, length))

    def write_header(self, header: bytes) -> None:
        """Write a header where none is."""
        self._require_header_area(len(header))
        found = header_kind(self.read_header(_MAGIC_LENGTH))
        if found.encrypted:
            message = (
                f"image {self._id} has a {found.value} header already; writing"
                " another would make its data unreadable"
            )
            raise HeaderExistsError(message)
        self._require_room(len(header))
        with self._doing("writing the header"):
            self._image.write(header, 0)
            self._image.flush()

    def erase_header(self, length: int) -> None:
        """Overwrite the header area with zeros."""
        self._require_header_area(length)
        self._require_room(length)
        with self._doing("erasing the header"):
            self._image.write(bytes(length), 0)
            self._image.flush()

    def _require_header_area(self, length: int) -> None:
        if not 0 < length <= HEADER_ROOM:
            message = f"{length} bytes reach beyond the header area"
            raise InternalError(message)

    def _require_room(self, length: int) -> None:
        # librbd would write up to the end and report that as an error.
        present = self.raw_size()
        if length > present.count:
            message = f"image {self._id} has {present}, too few for {length} bytes"
            raise SizeError(message)


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

    def load(self, specs: LoadSpecs) -> NoReturn:
        """Refuse a second load."""
        del specs
        raise AlreadyLoadedError(_LOADED.format(self._id))

    def write_header(self, header: bytes) -> NoReturn:
        """Refuse a format on a loaded image."""
        del header
        raise AlreadyLoadedError(_LOADED.format(self._id))

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
