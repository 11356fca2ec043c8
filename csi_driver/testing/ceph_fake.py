# SPDX-License-Identifier: Apache-2.0
"""The port to Ceph from memory, proven equal to librbd by the contract suite.

Several connectors and instances work on one `FakeStore`, from any thread.
What no contract test can show without harm to a real cluster, and rests on
this module alone: the switch `full` of a pool.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SecretError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.images.values import NewImage
from csi_driver.testing.ceph_fake_data import RawData
from csi_driver.testing.ceph_fake_handles import FakeLoadedImage
from csi_driver.testing.ceph_fake_handles import FakeRawImage
from csi_driver.testing.ceph_fake_store import Cluster
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Instance
from csi_driver.testing.ceph_fake_store import Namespace
from csi_driver.testing.ceph_fake_store import OpenHandle
from csi_driver.testing.ceph_fake_store import StoredImage
from csi_driver.testing.ceph_fake_store import StoredPool
from csi_driver.testing.ceph_fake_store import new_image_id

_FEATURES: Final = frozenset(
    {
        "layering",
        "exclusive-lock",
        "object-map",
        "fast-diff",
        "deep-flatten",
        "journaling",
    },
)


class FakePool:
    """One pool and namespace through one instance of the fake."""

    def __init__(
        self,
        store: FakeStore,
        instance: Instance,
        pool: StoredPool,
        location: Location,
    ) -> None:
        self._store = store
        self._instance = instance
        self._pool = pool
        self._location = location
        self._cluster = store.clusters[location.cluster]

    @property
    def location(self) -> Location:
        """Where this is, by pool number."""
        return self._location

    @property
    def pool_name(self) -> str:
        """The pool's present name."""
        return self._pool.name

    def create_image(self, image: NewImage) -> None:
        """Make an image."""
        with self._asking(f"creating image {image.name}") as space:
            unknown = set(image.features) - _FEATURES
            if unknown:
                message = f"unknown image features {', '.join(sorted(unknown))}"
                raise InvalidRequestError(message)
            if image.data_pool and self._cluster.pool_named(image.data_pool) is None:
                message = f"there is no pool {image.data_pool!r}"
                raise NotFoundError(message)
            if not space.created:
                message = f"there is no namespace {self._location.namespace!r}"
                raise NotFoundError(message)
            if space.named(image.name) is not None:
                message = f"image {image.name} exists"
                raise AlreadyExistsError(message)
            self._require_room()
            features = set(image.features)
            if image.data_pool:
                features.add("data-pool")
            if image.striping.stripe_count > 1:
                features.add("striping")
            image_id = new_image_id(self._store.next_number())
            space.images[image_id] = StoredImage(
                image_id=image_id,
                name=image.name,
                size=image.size.count,
                striping=image.striping,
                features=frozenset(features),
                data=RawData(image.striping),
            )

    def remove_image(self, name: str) -> None:
        """Remove an image nobody has open."""
        with self._asking(f"removing image {name}") as space:
            image = space.named(name)
            if image is None:
                message = f"there is no image {name}"
                raise NotFoundError(message)
            if image.lock is not None and image.lock.exclusive:
                message = f"image {name} is locked"
                raise InUseError(message)
            if image.snapshots or image.children:
                message = f"image {name} has snapshots"
                raise PreconditionError(message)
            if image.watchers:
                message = f"image {name} is open"
                raise InUseError(message)
            if image.parent is not None:
                image.parent.children.remove(image)
                image.parent.collect_snapshots()
            del space.images[image.image_id]

    def find_image(self, name: str) -> str | None:
        """Return the id of the image of that name."""
        with self._asking(f"looking for image {name}") as space:
            image = space.named(name)
            return None if image is None else image.image_id

    def open_raw(self, image_id: str, *, read_only: bool = False) -> FakeRawImage:
        """Open without loading."""
        with self._asking(f"opening image {image_id}") as space:
            image = space.by_id(image_id)
            handle = self._watch(image, read_only=read_only)
            return FakeRawImage(self._store, self._pool, image, handle)

    def open_loaded(
        self,
        image_id: str,
        specs: LoadSpecs,
        *,
        read_only: bool = False,
    ) -> FakeLoadedImage:
        """Open and load at once."""
        with self._asking(f"opening image {image_id}") as space:
            image = space.by_id(image_id)
            handle = self._watch(image, read_only=read_only)
            try:
                return FakeLoadedImage(self._store, self._pool, image, handle, specs)
            except BaseException:
                image.drop_handle(handle)
                raise

    def read_metadata(self, image_id: str, key: str) -> str | None:
        """Return one metadata value of an image."""
        with self._asking(f"reading image {image_id}") as space:
            return space.by_id(image_id).metadata.get(key)

    def swap_metadata(self, image_id: str, key: str, old: str | None, new: str) -> None:
        """Set a metadata value by compare-and-set."""
        _require_storable(new)
        with self._asking(f"changing the record of image {image_id}") as space:
            metadata = space.by_id(image_id).metadata
            _compare(metadata, {key: old})
            metadata[key] = new

    def read_entries(
        self,
        name: str,
        *,
        prefix: str,
        after: str = "",
        limit: int = 1000,
    ) -> list[tuple[str, str]]:
        """Page through an object's omap."""
        with self._asking(f"reading {name}") as space:
            rows = sorted(
                space.omaps.get(name, {}).items(),
                key=lambda row: row[0].encode(),
            )
            wanted = [
                row
                for row in rows
                if row[0].startswith(prefix) and row[0].encode() > after.encode()
            ]
            return wanted[:limit]

    def read_entry(self, name: str, key: str) -> str | None:
        """Return one omap value of an object."""
        with self._asking(f"reading {name}") as space:
            return space.omaps.get(name, {}).get(key)

    def swap_entries(
        self,
        name: str,
        *,
        expect: Mapping[str, str | None],
        put: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
    ) -> None:
        """Change an object's omap by compare-and-set."""
        for value in (put or {}).values():
            _require_storable(value)
        with self._asking(f"changing {name}") as space:
            _compare(space.omaps.get(name, {}), expect)
            omap = space.omaps.setdefault(name, {})
            omap.update(put or {})
            for key in remove:
                omap.pop(key, None)

    def free_bytes(self) -> int:
        """Return what is left of the pool's capacity."""
        with self._monitors("asking for free space"):
            if self._pool.full:
                return 0
            return max(0, self._pool.capacity - self._pool.allocated)

    def _watch(self, image: StoredImage, *, read_only: bool) -> OpenHandle:
        number = self._store.next_number()
        handle = OpenHandle(self._instance, number, read_only, image.size)
        image.handles.append(handle)
        return handle

    def _require_room(self) -> None:
        if self._pool.full:
            message = f"pool {self._pool.name!r} is full"
            raise ExhaustedError(message)

    @contextlib.contextmanager
    def _asking(self, doing: str) -> Iterator[Namespace]:
        """Hold the store for one operation; yields the namespace."""
        with self._store.lock:
            self._instance.require_alive(doing)
            yield self._space(doing)

    @contextlib.contextmanager
    def _monitors(self, doing: str) -> Iterator[None]:
        """Hold the store for a question that a fenced client may ask, too."""
        with self._store.lock:
            self._instance.require_open(doing)
            yield

    def _space(self, doing: str) -> Namespace:
        if self._pool.pool_id not in self._cluster.pools:
            message = f"{doing}: pool {self._pool.name!r} is gone"
            raise NotFoundError(message)
        return self._pool.namespaces.setdefault(
            self._location.namespace,
            Namespace(created=False),
        )


class FakeCeph:
    """One Rados instance of the fake."""

    def __init__(self, store: FakeStore, name: str) -> None:
        self._store = store
        self._name = name
        number = store.next_number()
        self._instance = Instance(number, f"127.0.0.1:0/{number * 7919}")

    @property
    def address(self) -> str:
        """This client's address as lock and watcher lists show it."""
        return self._instance.address

    def pool(self, name: str, namespace: str = "") -> FakePool:
        """Open a pool by name."""
        with self._store.lock:
            pool = self._cluster().pool_named(name)
            if pool is None:
                message = f"cluster {self._name!r} has no pool {name!r}"
                raise NotFoundError(message)
            where = Location(self._name, pool.pool_id, namespace)
            return FakePool(self._store, self._instance, pool, where)

    def pool_at(self, location: Location) -> FakePool:
        """Open a pool by number."""
        with self._store.lock:
            pool = self._cluster().pools.get(location.pool_id)
            if pool is None:
                message = f"cluster {self._name!r} has no pool {location.pool_id}"
                raise NotFoundError(message)
            return FakePool(self._store, self._instance, pool, location)

    def close(self) -> None:
        """Disconnect; handles that are still open are closed first."""
        with self._store.lock:
            self._instance.closed = True
            self._store.drop_handles(self._instance)

    def _cluster(self) -> Cluster:
        self._instance.require_open(f"cluster {self._name!r}")
        return self._store.clusters[self._name]


class FakeConnector:
    """Makes instances over one store.

    An instance that is dropped without `close` looks like a process that was
    killed: its watches and its lock stay until it is fenced.
    """

    def __init__(self, store: FakeStore) -> None:
        self.store: Final = store

    def connect(self, cluster: str, user: CephUser | None = None) -> FakeCeph:
        """Connect a new instance; every user is the same one here."""
        del user
        with self.store.lock:
            found = self.store.clusters.get(cluster)
            if found is None:
                known = ", ".join(sorted(self.store.clusters))
                message = f"clusterID {cluster!r} is not configured; known are {known}"
                raise InvalidRequestError(message)
            if found.unreachable:
                message = f"cluster {cluster!r} did not answer"
                raise UnavailableError(message)
            if found.key_refused:
                message = f"cluster {cluster!r} refused the key"
                raise SecretError(message)
            return FakeCeph(self.store, cluster)


def _compare(present: Mapping[str, str], expect: Mapping[str, str | None]) -> None:
    """ConflictError unless every value is as given; absent equals empty."""
    for key, old in expect.items():
        if present.get(key, "") != (old or ""):
            message = f"the value of {key} is no longer the expected one"
            raise ConflictError(message)


def _require_storable(value: str) -> None:
    if not value or not value.isascii() or "\0" in value:
        message = "a stored value must be non-empty ASCII without NUL"
        raise InternalError(message)
