# SPDX-License-Identifier: Apache-2.0
"""Reading and writing a volume's bytes as a node does, whatever its mode.

Sizes and offsets are exported ones.  A loaded image shows them itself; of a
plaintext one each world has a way of its own to reach the bytes.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Final
from typing import Protocol

from csi_driver.domain.chain import specs_for
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.record import Record
from csi_driver.domain.secrets import SecretBytes
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.images.chains import read_chain
from csi_driver.images.port import Ceph
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import PlainImage
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.images.values import OnProgress
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from tests.unit.provisioning.worlds import World

SECRETS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {},
    "key-a": {"encryptionKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="},
    "key-b": {"encryptionKey": "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="},
    "words": {"encryptionPassphrase": "correct horse battery staple"},
}
"""By the names that a script of a failed run shows; "" is for plaintext."""


class Data(Protocol):
    """An open volume or snapshot."""

    def size(self) -> int:
        """Return the exported bytes that it has now."""

    def read(self, offset: int, length: int) -> bytes:
        """Read."""

    def write(self, offset: int, data: bytes) -> None:
        """Write, durably."""

    def grow(self, size: int) -> None:
        """Grow to so many exported bytes."""

    def flatten(self, on_progress: OnProgress) -> None:
        """Flatten, as the lock's owner."""

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock."""

    def close(self) -> None:
        """Close."""


class LoadedData:
    """An encrypted volume or snapshot."""

    def __init__(self, image: LoadedImage) -> None:
        self._image = image
        self.read = image.read
        self.write = image.write
        self.flatten = image.flatten
        self.acquire_lock = image.acquire_lock
        self.close = image.close

    def size(self) -> int:
        """Return the exported bytes."""
        return self._image.size().count

    def grow(self, size: int) -> None:
        """Grow."""
        self._image.grow(EffectiveSize(size))


class PlainData(abc.ABC):
    """A plaintext volume or snapshot; how to write differs between the worlds."""

    def __init__(self, image: PlainImage, layout: Layout) -> None:
        self._plain = image
        self._layout = layout
        self.read = image.read
        self.flatten = image.flatten
        self.acquire_lock = image.acquire_lock
        self.close = image.close

    def size(self) -> int:
        """Return the exported bytes."""
        return self._layout.effective(self._plain.raw_size()).count

    def grow(self, size: int) -> None:
        """Grow."""
        self.grow_raw(self._layout.raw(EffectiveSize(size)))

    @abc.abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Write, durably."""

    @abc.abstractmethod
    def grow_raw(self, size: RawSize) -> None:
        """Grow to that raw size."""


class Place(abc.ABC):
    """A world, with what a run of the machine needs beside it."""

    world: World

    def __init__(self) -> None:
        self._unlocked: dict[tuple[str, str], dict[str, SecretBytes]] = {}

    @abc.abstractmethod
    def plain(self, image: PlainImage, layout: Layout) -> PlainData:
        """Give access to the bytes of a plaintext image that was opened."""

    @abc.abstractmethod
    def bury(self, ceph: Ceph) -> None:
        """End a Rados instance as a dead process' one: nothing is closed before."""

    @abc.abstractmethod
    def end(self) -> None:
        """Remove the place with all that is in it."""

    def open(
        self,
        pool: Pool,
        record: Record,
        secret: str,
        *,
        read_only: bool = False,
        snapshot: int = 0,
    ) -> Data:
        """Open a volume by its own Secret alone, or one of its snapshots."""
        image_id = record.image_id
        if not record.mode.encrypted:
            plain = pool.open_plain(image_id, read_only=read_only, snapshot=snapshot)
            return self.plain(plain, record.layout)
        chain = read_chain(pool, image_id, snapshot=snapshot)
        specs = specs_for(chain, self._keys(record, secret))
        image = pool.open_loaded(
            image_id, specs, read_only=read_only, snapshot=snapshot
        )
        return LoadedData(image)

    def _keys(self, record: Record, secret: str) -> dict[str, SecretBytes]:
        """Open the ring, once for each ring: a passphrase costs 0.1 s."""
        ring = record.ring
        assert ring is not None
        known = (str(ring.to_json_object()), secret)
        if known not in self._unlocked:
            with open_ring(ring, parse_key_source(SECRETS[secret])) as opened:
                self._unlocked[known] = opened.passphrases()
        return self._unlocked[known]


@dataclasses.dataclass(slots=True)
class Stage:
    """A volume that is open for writing, as a node's worker has it."""

    ceph: Ceph
    pool: Pool
    image_id: str
    data: Data

    @classmethod
    def open(cls, place: Place, image_id: str, secret: str) -> Stage:
        """Connect, open, load, take the lock, and grow to what was promised.

        A dead predecessor's lock is broken.
        """
        world = place.world
        ceph = world.connector.connect(world.cluster)
        try:
            pool = ceph.pool(world.pool_name, world.namespace)
            data = place.open(pool, read_record(pool, image_id), secret)
            try:
                data.acquire_lock()
            except InUseError:
                _break_lock(pool, image_id)
                data.acquire_lock()
            made = cls(ceph, pool, image_id, data)
            made.grow()
        except BaseException:
            ceph.close()
            raise
        return made

    def grow(self) -> None:
        """Bring the image to its promised size, verify it, and record it.

        As `datapath.session` does.
        """
        record = read_record(self.pool, self.image_id)
        target = max(record.desired, record.actual)
        if self.data.size() < target.count:
            self.data.grow(target.count)
        with self.pool.open_raw(self.image_id, read_only=True) as raw:
            found = raw.raw_size()
        assert found == record.layout.raw(target)
        assert self.data.size() == target.count

        def raised(present: Record) -> Record:
            return dataclasses.replace(present, actual=max(present.actual, target))

        change_record(self.pool, self.image_id, raised)

    def close(self) -> None:
        """Unlock, close and disconnect."""
        self.data.close()
        self.ceph.close()


def _break_lock(pool: Pool, image_id: str) -> None:
    with pool.open_raw(image_id) as raw:
        owner = raw.lock_owner()
        if owner is not None:
            with contextlib.suppress(NotFoundError):
                raw.break_lock(owner)
