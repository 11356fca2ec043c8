# SPDX-License-Identifier: Apache-2.0
"""What the driver asks of Ceph, as small protocols.

A handle is either *raw* or *loaded* from the moment it exists.  A raw handle
reaches the header area and nothing else, because data read or written through
it would be ciphertext in the wrong place; a loaded handle shows effective
sizes.  There is no way from one to the other: librbd has no unload, and a load
has to come right after the open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol
from typing import Self

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.ids import Location
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping


@dataclasses.dataclass(frozen=True, slots=True)
class NewImage:
    """What an image is made from; `features` by their names in rbd(8)."""

    name: str
    size: RawSize
    striping: Striping
    features: Sequence[str]
    data_pool: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds an image's exclusive lock: `owner` is librbd's own token."""

    owner: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class Watcher:
    """A client that has the image open for writing; address as Ceph prints it."""

    address: str
    client: int
    cookie: int


@dataclasses.dataclass(frozen=True, slots=True)
class Dependants:
    """What keeps an image from being removed, children in the trash included."""

    snapshots: int
    children: int

    def __bool__(self) -> bool:
        return bool(self.snapshots or self.children)


class Image(Protocol):
    """What a raw and a loaded handle have in common."""

    @property
    def image_id(self) -> str:
        """RBD's id of the image."""

    @property
    def name(self) -> str:
        """The image's name in its pool."""

    def acquire_lock(self) -> None:
        """Take the EXCLUSIVE lock, which refuses every other writer.

        InUseError when somebody holds it.
        """

    def lock_owner(self) -> LockOwner | None:
        """Return who holds the exclusive lock, of either mode."""

    def break_lock(self, owner: LockOwner) -> None:
        """Take the lock from an owner known to be dead, fencing that client.

        librbd puts the owner's whole Rados instance on the blocklist: what
        reaches the cluster from there is FencedError from then on.
        NotFoundError if nobody holds the lock, InUseError if another does.
        """

    def foreign_watchers(self) -> list[Watcher]:
        """Return who has the image open for writing, this client left out."""

    def close(self) -> None:
        """Close the handle; closing twice is no error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class RawImage(Image, Protocol):
    """An image whose encryption is not loaded: header area only.

    A read-only handle does not watch the image: it goes on showing the size
    and the snapshots that it found when it was opened.
    """

    def raw_size(self) -> RawSize:
        """Return the image's size in the image header."""

    def striping(self) -> Striping:
        """Return how the image is cut into objects."""

    def features(self) -> frozenset[str]:
        """Return the image's features by their names in rbd(8)."""

    def dependants(self) -> Dependants:
        """Count snapshots and clones."""

    def has_parent(self) -> bool:
        """Tell whether the image is a clone that was not flattened."""

    def read_header(self, length: int) -> bytes:
        """Read from raw offset 0; at most HEADER_ROOM bytes."""

    def write_header(self, header: bytes) -> None:
        """Write a whole LUKS header at raw offset 0.

        HeaderExistsError if a LUKS magic stands there; SizeError, and nothing
        written, if the image is smaller; AlreadyLoadedError on a loaded handle.
        """

    def erase_header(self, length: int) -> None:
        """Overwrite `length` bytes from raw offset 0 with zeros.

        SizeError, and nothing written, if the image is smaller.
        """


class LoadedImage(Image, Protocol):
    """An image whose whole chain is loaded: decrypted, effective offsets."""

    def size(self) -> EffectiveSize:
        """Return the size behind the header."""

    def read(self, offset: int, length: int) -> bytes:
        """Read decrypted bytes at an effective offset."""

    def write(self, offset: int, data: bytes) -> None:
        """Write at an effective offset; durable when it returns."""

    def grow(self, size: EffectiveSize) -> None:
        """Raise the effective size; SizeError if it would shrink."""

    def load(self, specs: LoadSpecs) -> None:
        """Refuse: AlreadyLoadedError, always."""

    def write_header(self, header: bytes) -> None:
        """Refuse: AlreadyLoadedError, always.

        librbd itself does not refuse a format here, and destroys the data.
        """


class Pool(Protocol):
    """One pool and RADOS namespace, reached through one Rados instance."""

    @property
    def location(self) -> Location:
        """Where this is, by pool number."""

    @property
    def pool_name(self) -> str:
        """The pool's present name."""

    def create_image(self, image: NewImage) -> None:
        """Make an image; AlreadyExistsError if the name is taken."""

    def remove_image(self, name: str) -> None:
        """Remove an image nobody has open for writing.

        NotFoundError if it is gone, InUseError if a handle of any client
        watches it, PreconditionError if it has snapshots or clones.
        """

    def find_image(self, name: str) -> str | None:
        """Return the id of the image of that name, None without one."""

    def open_raw(self, image_id: str, *, read_only: bool = False) -> RawImage:
        """Open without loading.  NotFoundError if there is no such image."""

    def open_loaded(
        self,
        image_id: str,
        specs: LoadSpecs,
        *,
        read_only: bool = False,
    ) -> LoadedImage:
        """Open and load at once.

        SecretError for a wrong passphrase; HeaderError when librbd finds no
        header or one that it cannot use; UnsupportedError for a cipher that
        it does not know and for a striping that it cannot encrypt.
        """

    def read_metadata(self, image_id: str, key: str) -> str | None:
        """Return one metadata value of an image; None if the key is absent.

        NotFoundError if the image is.
        """

    def swap_metadata(self, image_id: str, key: str, old: str | None, new: str) -> None:
        """Set a metadata value if its present one is `old` (None: absent).

        One atomic operation.  ConflictError if it is not; NotFoundError if
        there is no such image.
        """

    def read_entries(
        self,
        name: str,
        *,
        prefix: str,
        after: str = "",
        limit: int = 1000,
    ) -> list[tuple[str, str]]:
        """Page through an object's omap, in key order; [] without the object."""

    def read_entry(self, name: str, key: str) -> str | None:
        """Return one omap value of an object, None if there is none."""

    def swap_entries(
        self,
        name: str,
        *,
        expect: Mapping[str, str | None],
        put: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        """Change an object's omap if every expected value is as given.

        One atomic operation; the object is made when it is absent.
        ConflictError if an expectation fails.
        """

    def free_bytes(self) -> int:
        """Return how many more bytes the pool takes, replication counted in."""


class Ceph(Protocol):
    """One Rados instance: the unit of fencing and of a connection."""

    @property
    def address(self) -> str:
        """This client's address as lock and watcher lists show it."""

    def pool(self, name: str, namespace: str = "") -> Pool:
        """Open a pool by name; NotFoundError without it."""

    def pool_at(self, location: Location) -> Pool:
        """Open a pool by number; NotFoundError without it."""

    def close(self) -> None:
        """Disconnect; handles still open through this instance are closed first.

        Pools opened through it cannot be used any more.
        """


class Connector(Protocol):
    """Makes Rados instances."""

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        """Connect a new instance in bounded time.

        `user` is None for the driver's own user of that cluster.

        UnavailableError when no monitor answers; SecretError when the key is
        refused.
        """
