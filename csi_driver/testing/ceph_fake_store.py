# SPDX-License-Identifier: Apache-2.0
"""What all Rados instances of the fake share: clusters, pools, images, locks.

Plain state under one lock, and the switches with which a test makes a cluster
misbehave.  The port's methods are left to `ceph_fake` and
`ceph_fake_handles`.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import Striping
from csi_driver.testing.ceph_fake_data import RawData


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
    """One opening of an image.

    `loaded` matters for a proxied resize.  `size` is the raw size at the
    opening, which is what a read-only handle goes on showing.
    """

    instance: Instance
    cookie: int
    read_only: bool
    size: int
    loaded: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Lock:
    """The exclusive lock; `exclusive` is librbd's mode EXCLUSIVE.

    In the other, automatic mode it moves to whoever writes.
    """

    holder: OpenHandle
    exclusive: bool


@dataclasses.dataclass(eq=False, slots=True)
class StoredImage:
    """One image; `size` is raw."""

    image_id: str
    name: str
    size: int
    striping: Striping
    features: frozenset[str]
    data: RawData
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    snapshots: dict[str, RawData] = dataclasses.field(default_factory=dict)
    removed: set[str] = dataclasses.field(default_factory=set)
    children: list[StoredImage] = dataclasses.field(default_factory=list)
    parent: StoredImage | None = None
    parent_snapshot: str = ""
    handles: list[OpenHandle] = dataclasses.field(default_factory=list)
    lock: Lock | None = None

    @property
    def watchers(self) -> list[OpenHandle]:
        """Openings for writing; read-only ones do not watch."""
        return [handle for handle in self.handles if not handle.read_only]

    def collect_snapshots(self) -> None:
        """Let removed snapshots go that no clone reads any more (clone format 2)."""
        used = {child.parent_snapshot for child in self.children}
        for name in self.removed - used:
            self.snapshots.pop(name, None)
        self.removed &= used

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


@dataclasses.dataclass(eq=False, slots=True)
class Namespace:
    """One RADOS namespace: images by id, and the omaps of plain objects.

    `created` as `rbd namespace create` does; objects need no such thing.
    """

    created: bool = True

    images: dict[str, StoredImage] = dataclasses.field(default_factory=dict)
    omaps: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    def named(self, name: str) -> StoredImage | None:
        """Return the image of that name."""
        found = (image for image in self.images.values() if image.name == name)
        return next(found, None)

    def by_id(self, image_id: str) -> StoredImage:
        """Return the image of that id; NotFoundError without it."""
        if image_id not in self.images:
            message = f"there is no image {image_id}"
            raise NotFoundError(message)
        return self.images[image_id]


@dataclasses.dataclass(eq=False, slots=True)
class StoredPool:
    """One pool.  `full` refuses whatever would need room; sizes in bytes."""

    pool_id: int
    name: str
    namespaces: dict[str, Namespace]
    capacity: int = 1024 * GIB
    full: bool = False

    @property
    def allocated(self) -> int:
        """Bytes that all images of the pool take."""
        return sum(
            image.data.allocated
            for namespace in self.namespaces.values()
            for image in namespace.images.values()
        )


@dataclasses.dataclass(eq=False, slots=True)
class Cluster:
    """One cluster with the switches of its monitors."""

    pools: dict[int, StoredPool]
    unreachable: bool = False
    key_refused: bool = False

    def pool_named(self, name: str) -> StoredPool | None:
        """Return the pool of that name."""
        found = (pool for pool in self.pools.values() if pool.name == name)
        return next(found, None)


class FakeStore:
    """Clusters in memory, shared by every connector made from it.

    Hold `lock` while touching anything inside.
    """

    def __init__(
        self,
        clusters: Iterable[str] = ("fake",),
        pools: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        """Make clusters that all have the same pools with these namespaces."""
        self.lock: Final = threading.RLock()
        self._numbers: Final = itertools.count(4100)
        wanted = {"rbd": ("", "tenant"), "rbd2": ("",)} if pools is None else pools
        self.clusters: Final = {
            cluster: Cluster(
                {
                    number: StoredPool(
                        number,
                        name,
                        {each: Namespace() for each in namespaces},
                    )
                    for number, (name, namespaces) in enumerate(wanted.items(), 1)
                },
            )
            for cluster in clusters
        }

    def next_number(self) -> int:
        """Return a number that nothing else in the store has."""
        with self.lock:
            return next(self._numbers)

    def pool(self, name: str, cluster: str = "fake") -> StoredPool:
        """Return a pool's state, for switches and for looking inside."""
        found = self.clusters[cluster].pool_named(name)
        if found is None:
            message = f"the fake has no pool {name!r}"
            raise NotFoundError(message)
        return found

    def fence(self, instance: Instance) -> None:
        """Blocklist a client: its locks and watches go, its calls fail."""
        with self.lock:
            instance.fenced = True
            self.drop_handles(instance)

    def drop_handles(self, instance: Instance) -> None:
        """Forget all openings of a client."""
        with self.lock:
            for image in self._images():
                for handle in list(image.handles):
                    if handle.instance is instance:
                        image.drop_handle(handle)

    def add_snapshot(self, image: StoredImage, name: str) -> None:
        """Make a snapshot, as `rbd snap create` does."""
        with self.lock:
            image.snapshots[name] = image.data.copy()

    def remove_snapshot(self, image: StoredImage, name: str) -> None:
        """Remove a snapshot; one with clones stays until they are gone."""
        with self.lock:
            image.removed.add(name)
            image.collect_snapshots()

    def add_clone(
        self,
        namespace: Namespace,
        source: StoredImage,
        snapshot: str,
        name: str,
    ) -> StoredImage:
        """Make a clone of a snapshot in the same namespace."""
        with self.lock:
            clone = StoredImage(
                image_id=new_image_id(self.next_number()),
                name=name,
                size=source.size,
                striping=source.striping,
                features=source.features,
                data=RawData(source.striping, source.snapshots[snapshot]),
                metadata={
                    key: value
                    for key, value in source.metadata.items()
                    if not key.startswith(".rbd")
                },
                parent=source,
                parent_snapshot=snapshot,
            )
            source.children.append(clone)
            namespace.images[clone.image_id] = clone
            return clone

    def _images(self) -> list[StoredImage]:
        return [
            image
            for cluster in self.clusters.values()
            for pool in cluster.pools.values()
            for namespace in pool.namespaces.values()
            for image in namespace.images.values()
        ]


def new_image_id(number: int) -> str:
    """Return an id in the form of RBD's own."""
    return f"{number:x}{number * 2654435761 & 0xFFFFFFFF:08x}"
