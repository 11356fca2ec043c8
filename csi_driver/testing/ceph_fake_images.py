# SPDX-License-Identifier: Apache-2.0
"""Images of the fake and what hangs on them: clients, openings, locks, snapshots.

Plain state; who may change it when is left to the handles, and the life of
snapshots and clones to `ceph_fake_snapshots`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.images.values import ImageSnapshot
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from csi_driver.testing.ceph_fake_data import RawData

if TYPE_CHECKING:
    from csi_driver.testing.ceph_fake_store import StoredPool


@dataclasses.dataclass(eq=False, slots=True)
class Instance:
    """One Rados instance as the cluster sees it."""

    client: int
    address: str
    fenced: bool = False
    closed: bool = False

    def require_open(self, doing: str) -> None:
        """InternalError once the connection was closed."""
        if self.closed:
            message = f"{doing} is used after its connection was closed"
            raise InternalError(message)

    def require_alive(self, doing: str) -> None:
        """FencedError once the instance is on the blocklist."""
        self.require_open(doing)
        if self.fenced:
            message = f"{doing}: this client was put on the blocklist"
            raise FencedError(message)


@dataclasses.dataclass(eq=False, slots=True)
class OpenHandle:
    """One opening of an image; `loaded` matters for a proxied resize."""

    instance: Instance
    cookie: int
    read_only: bool
    loaded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Lock:
    """The exclusive lock; `exclusive` is librbd's mode EXCLUSIVE.

    In the other, automatic mode it moves to whoever writes.
    """

    holder: OpenHandle
    exclusive: bool


@dataclasses.dataclass(eq=False, slots=True, kw_only=True)
class View:
    """What can be read: an image's head or a snapshot; `size` is raw."""

    size: int
    data: RawData
    parent: Parent | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Parent:
    """The snapshot that a view reads through, and its first raw bytes at most."""

    snapshot: StoredSnapshot
    overlap: int

    @property
    def link(self) -> ParentLink:
        """The port's form of it."""
        image = self.snapshot.image
        path = SnapshotPath(
            image.pool.name, image.namespace, image.name, self.snapshot.name
        )
        return ParentLink(path, image.image_id, RawSize(self.overlap))


@dataclasses.dataclass(eq=False, slots=True, kw_only=True)
class StoredSnapshot(View):
    """One snapshot with what its image held at the time."""

    image: StoredImage
    number: int
    name: str
    created: int
    lingering: bool = False

    @property
    def listed(self) -> ImageSnapshot:
        """The port's form of it."""
        return ImageSnapshot(
            self.number, self.name, RawSize(self.size), self.created, self.lingering
        )


@dataclasses.dataclass(eq=False, slots=True, kw_only=True)
class StoredImage(View):
    """One image, whose own fields are its head."""

    image_id: str
    name: str
    pool: StoredPool
    namespace: str
    striping: Striping
    features: frozenset[str]
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    snapshots: list[StoredSnapshot] = dataclasses.field(default_factory=list)
    handles: list[OpenHandle] = dataclasses.field(default_factory=list)
    lock: Lock | None = None
    listeners: list[Callable[[bytes], None]] = dataclasses.field(default_factory=list)

    @property
    def watchers(self) -> list[OpenHandle]:
        """Openings for writing; read-only ones do not watch."""
        return [handle for handle in self.handles if not handle.read_only]

    def snapshot_named(self, name: str) -> StoredSnapshot:
        """Return the snapshot that was given this name; NotFoundError without it."""
        for each in self.snapshots:
            if each.name == name and not each.lingering:
                return each
        message = f"image {self.name} has no snapshot {name}"
        raise NotFoundError(message)

    def snapshot_numbered(self, number: int) -> StoredSnapshot:
        """Return the snapshot of that number; NotFoundError without it."""
        for each in self.snapshots:
            if each.number == number:
                return each
        message = f"image {self.name} has no snapshot number {number}"
        raise NotFoundError(message)

    def take_lock(self, handle: OpenHandle, *, exclusive: bool, doing: str) -> None:
        """Give the lock to a handle; InUseError if it may not have it."""
        held = self.lock
        if handle.read_only:
            # EINVAL for the lock, EROFS for a write, as librbd has it
            kind = InvalidRequestError if exclusive else InUseError
            message = f"{doing}: the handle is read-only"
            raise kind(message)
        if held is not None and held.holder is not handle and held.exclusive:
            message = f"{doing}: {held.holder.instance.address} holds the lock"
            raise InUseError(message)
        kept = held is not None and held.holder is handle and held.exclusive
        self.lock = Lock(handle, exclusive or kept)

    def drop_handle(self, handle: OpenHandle) -> None:
        """Forget an opening and with it its watch and its lock."""
        if handle in self.handles:
            self.handles.remove(handle)
        if self.lock is not None and self.lock.holder is handle:
            self.lock = None
