# SPDX-License-Identifier: Apache-2.0
"""Raw and loaded handles of the fake, with librbd's measured behaviour.

Data is encrypted in earnest: the store holds what RADOS would hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Final
from typing import NoReturn
from typing import Self

from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.chain import LuksFormat
from csi_driver.domain.chain import header_kind
from csi_driver.domain.errors import AlreadyLoadedError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import HeaderError
from csi_driver.domain.errors import HeaderExistsError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.values import Dependants
from csi_driver.images.values import LockOwner
from csi_driver.images.values import Watcher
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Lock
from csi_driver.testing.ceph_fake_store import OpenHandle
from csi_driver.testing.ceph_fake_store import StoredImage
from csi_driver.testing.ceph_fake_store import StoredPool
from csi_driver.testing.luks import OpenVolume
from csi_driver.testing.luks import open_volume

_MAGIC_LENGTH: Final = 8


class FakeImage:
    """What raw and loaded handles share; use one of the two below."""

    def __init__(
        self,
        store: FakeStore,
        pool: StoredPool,
        image: StoredImage,
        handle: OpenHandle,
    ) -> None:
        self._store = store
        self._pool = pool
        self._image = image
        self._handle = handle
        self._closed = False

    @property
    def image_id(self) -> str:
        """RBD's id of the image."""
        return self._image.image_id

    @property
    def name(self) -> str:
        """The image's name in its pool."""
        with self._doing("reading the name"):
            return self._image.name

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock; InUseError when somebody holds it."""
        with self._asking("taking the exclusive lock") as doing:
            self._image.take_lock(self._handle, exclusive=True, doing=doing)

    def lock_owner(self) -> LockOwner | None:
        """Return who holds the exclusive lock."""
        with self._asking("reading the lock's owner") as doing:
            if self._handle.read_only:
                message = f"{doing}: the handle is read-only"
                raise InvalidRequestError(message)
            lock = self._image.lock
            if lock is None:
                return None
            instance = lock.holder.instance
            return LockOwner(owner=instance.address, address=instance.address)

    def break_lock(self, owner: LockOwner) -> None:
        """Take the lock from an owner, which fences its client."""
        with self._asking("breaking the lock") as doing:
            lock = self._image.lock
            if lock is None:
                message = f"{doing}: nobody holds it"
                raise NotFoundError(message)
            if lock.holder.instance.address != owner.owner:
                message = f"{doing}: {lock.holder.instance.address} holds it"
                raise InUseError(message)
            self._store.fence(lock.holder.instance)

    def foreign_watchers(self) -> list[Watcher]:
        """Return other clients that have the image open for writing."""
        with self._asking("reading the watchers"):
            return [
                Watcher(
                    watch.instance.address,
                    watch.instance.client,
                    watch.cookie,
                )
                for watch in self._image.watchers
                if watch.instance is not self._handle.instance
            ]

    def close(self) -> None:
        """Close the handle; also a fenced one closes without a word."""
        with self._store.lock:
            self._closed = True
            self._image.drop_handle(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[str]:
        """Hold the store for something that librbd answers from memory."""
        doing = f"image {self.image_id}: {what}"
        with self._store.lock:
            if self._closed or self._handle.instance.closed:
                message = f"{doing}: the handle is closed"
                raise InvalidRequestError(message)
            yield doing

    def _raw_size(self) -> int:
        """Return the raw size as this handle knows it: a reader does not watch."""
        return self._handle.size if self._handle.read_only else self._image.size

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[str]:
        """Hold the store for something that has to reach the cluster."""
        with self._doing(what) as doing:
            self._handle.instance.require_alive(doing)
            yield doing

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[str]:
        """Hold store and lock for a write, as librbd's automatic lock does."""
        with self._asking(what) as doing:
            self._image.take_lock(self._handle, exclusive=False, doing=doing)
            if self._pool.full:
                message = f"{doing}: the pool is full"
                raise ExhaustedError(message)
            yield doing


class FakeRawImage(FakeImage):
    """A handle without encryption: reaches the header area and no data."""

    def __init__(
        self,
        store: FakeStore,
        pool: StoredPool,
        image: StoredImage,
        handle: OpenHandle,
    ) -> None:
        super().__init__(store, pool, image, handle)
        self._found = _dependants(image)

    def raw_size(self) -> RawSize:
        """Return the size in the image header."""
        with self._doing("reading the raw size"):
            return RawSize(self._raw_size())

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""
        return self._image.striping

    def features(self) -> frozenset[str]:
        """Return the features by name."""
        return self._image.features

    def dependants(self) -> Dependants:
        """Count snapshots and clones."""
        with self._doing("counting its snapshots and clones"):
            if self._handle.read_only or self._handle.instance.fenced:
                return self._found
            self._found = _dependants(self._image)
            return self._found

    def has_parent(self) -> bool:
        """Tell whether the image still reads a parent."""
        with self._doing("reading its parent"):
            return self._image.parent is not None

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0, header area only."""
        _require_header_area(length)
        with self._asking("reading the header"):
            return self._image.data.read(0, min(length, self._raw_size()))

    def write_header(self, header: bytes) -> None:
        """Write a header where none is."""
        _require_header_area(len(header))
        found = header_kind(self.read_header(_MAGIC_LENGTH))
        if found.encrypted:
            message = f"image {self.image_id} has a {found.value} header already"
            raise HeaderExistsError(message)
        self._write(header, "writing the header")

    def erase_header(self, length: int) -> None:
        """Overwrite the header area with zeros."""
        _require_header_area(length)
        self._write(bytes(length), "erasing the header")

    def _write(self, data: bytes, what: str) -> None:
        present = self.raw_size()
        if len(data) > present.count:
            message = f"image {self.image_id} has {present}, too few"
            raise SizeError(message)
        with self._writing(what):
            self._image.data.write(0, data)


class FakeLoadedImage(FakeImage):
    """A handle whose encryption is loaded: effective sizes and offsets."""

    def __init__(
        self,
        store: FakeStore,
        pool: StoredPool,
        image: StoredImage,
        handle: OpenHandle,
        specs: LoadSpecs,
    ) -> None:
        super().__init__(store, pool, image, handle)
        with self._asking("loading the encryption"):
            self._volume = _opened(image, specs)
            self._sectors = self._volume.sectors()
            handle.loaded = True

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""
        with self._doing("reading the effective size"):
            return EffectiveSize(self._raw_size() - self._volume.data_offset)

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes."""
        self._require_inside(offset, length)
        with self._asking("reading data"):
            start, stop = self._sectors_around(offset, length)
            return self._plain(start, stop)[offset - start :][:length]

    def write(self, offset: int, data: bytes) -> None:
        """Write."""
        self._require_inside(offset, len(data))
        with self._writing("writing data"):
            start, stop = self._sectors_around(offset, len(data))
            plain = bytearray(self._plain(start, stop))
            plain[offset - start : offset - start + len(data)] = data
            sealed = self._sectors.encrypt(start, bytes(plain))
            self._image.data.write(self._volume.data_offset + start, sealed)

    def grow(self, size: EffectiveSize) -> None:
        """Raise the effective size.

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
            raw = size.count + (self._volume.data_offset if lock.holder.loaded else 0)
            if raw < self._image.size:
                message = f"{doing}: the lock's owner takes {raw} for a raw size"
                raise InvalidRequestError(message)
            self._image.size = raw

    def load(self, specs: LoadSpecs) -> NoReturn:
        """Refuse a second load."""
        del specs
        self._refuse()

    def write_header(self, header: bytes) -> NoReturn:
        """Refuse a format on a loaded image."""
        del header
        self._refuse()

    def close(self) -> None:
        """Close the handle and forget the volume key."""
        super().close()
        self._volume.volume_key.wipe()

    def _refuse(self) -> NoReturn:
        message = f"the encryption of image {self.image_id} is loaded already"
        raise AlreadyLoadedError(message)

    def _require_inside(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size().count:
            message = f"{length} bytes at {offset} reach beyond {self.image_id}"
            raise SizeError(message)

    def _sectors_around(self, offset: int, length: int) -> tuple[int, int]:
        unit = self._volume.sector_size
        return offset // unit * unit, -(-(offset + length) // unit) * unit

    def _plain(self, start: int, stop: int) -> bytes:
        """Decrypt sector by sector: what was never written reads as zeros."""
        unit = self._volume.sector_size
        data = self._image.data
        result = bytearray()
        for at in range(start, stop, unit):
            raw = self._volume.data_offset + at
            if data.written(raw, unit):
                result += self._sectors.decrypt(at, data.read(raw, unit))
            else:
                result += bytes(unit)
        return bytes(result)


def _dependants(image: StoredImage) -> Dependants:
    return Dependants(len(image.snapshots), len(image.children))


def _opened(image: StoredImage, specs: LoadSpecs) -> OpenVolume:
    """Load as librbd does; its EINVAL is HeaderError, its EPERM SecretError."""
    if image.parent is not None:
        message = "the fake does not load clones"
        raise UnsupportedError(message)
    own = specs.layers[0]
    kind = header_kind(image.data.read(0, _MAGIC_LENGTH))
    usable = {
        LuksFormat.ANY: (HeaderKind.LUKS1, HeaderKind.LUKS2),
        LuksFormat.LUKS1: (HeaderKind.LUKS1,),
        LuksFormat.LUKS2: (HeaderKind.LUKS2,),
    }[own.format]
    if kind not in usable:
        message = f"the image's first bytes are {kind.value}, not a header to load"
        raise HeaderError(message)
    if kind is HeaderKind.LUKS1:
        message = "the fake does not open LUKS1 headers"
        raise UnsupportedError(message)
    volume = open_volume(image.data.read, own.passphrase.reveal())
    if len(specs.layers) > 1:
        message = "a load has more layers than the image"
        raise HeaderError(message)
    if volume.data_offset % image.striping.period or volume.data_offset > image.size:
        message = f"the data offset {volume.data_offset} does not fit the image"
        raise HeaderError(message)
    if not image.striping.encryptable:
        message = "the fake refuses what librbd would mix up"
        raise UnsupportedError(message)
    return volume


def _require_header_area(length: int) -> None:
    if not 0 < length <= HEADER_ROOM:
        message = f"{length} bytes reach beyond the header area"
        raise InternalError(message)
