# SPDX-License-Identifier: Apache-2.0
"""One pool and RADOS namespace of the fake: images, records and omaps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.chain import LoadSpecs
from csi_driver.domain.errors import AlreadyExistsError
from csi_driver.domain.errors import ConflictError
from csi_driver.domain.errors import ExhaustedError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InUseError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnsupportedError
from csi_driver.domain.ids import Location
from csi_driver.images.values import NewClone
from csi_driver.images.values import NewImage
from csi_driver.images.values import ParentLink
from csi_driver.images.values import SnapshotPath
from csi_driver.testing import ceph_fake_snapshots as snapshots
from csi_driver.testing.ceph_fake_data import RawData
from csi_driver.testing.ceph_fake_handles import Opened
from csi_driver.testing.ceph_fake_images import Instance
from csi_driver.testing.ceph_fake_images import OpenHandle
from csi_driver.testing.ceph_fake_images import Parent
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_images import StoredSnapshot
from csi_driver.testing.ceph_fake_loaded import FakeLoadedImage
from csi_driver.testing.ceph_fake_raw import FakeRawImage
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Namespace
from csi_driver.testing.ceph_fake_store import StoredPool
from csi_driver.testing.ceph_fake_store import new_image_id
from csi_driver.testing.ceph_fake_whole import FakePlainImage

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

    def at(self, location: Location) -> FakePool:
        """Return another place of the cluster, through the same instance."""
        if location.cluster != self._location.cluster:
            message = f"{location} is reached through another cluster's connection"
            raise InternalError(message)
        with self._store.lock:
            self._instance.require_open(f"{location}")
            pool = self._cluster.pools.get(location.pool_id)
            if pool is None:
                message = f"there is no pool {location.pool_id}"
                raise NotFoundError(message)
            return FakePool(self._store, self._instance, pool, location)

    def namespace_exists(self) -> bool:
        """Tell whether images can be made in this RADOS namespace."""
        with self._asking("looking for a namespace") as space:
            return space.created or not self._location.namespace

    def create_image(self, image: NewImage) -> None:
        """Make an image."""
        with self._asking(f"creating image {image.name}") as space:
            self._require_possible(space, image)
            self._add(space, image, image.size.count)

    def clone_image(self, source: SnapshotPath, to: NewClone) -> None:
        """Make a clone of a snapshot."""
        with self._asking(f"cloning {source} to image {to.name}") as space:
            found = self._elsewhere(source).named(source.image_name)
            if found is None:
                message = f"there is no image for {source}"
                raise NotFoundError(message)
            snapshot = found.snapshot_named(source.snapshot_name)
            self._require_possible(space, to)
            if "layering" not in to.features:
                message = "a clone needs the feature layering"
                raise UnsupportedError(message)
            clone = self._add(space, to, snapshot.size)
            clone.parent = Parent(snapshot, snapshot.size)
            clone.metadata = snapshots.inherited(found.metadata)

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
            if image.snapshots:
                message = f"image {name} has snapshots"
                raise PreconditionError(message)
            if image.watchers:
                message = f"image {name} is open"
                raise InUseError(message)
            del space.images[image.image_id]
            snapshots.let_go(self._store, image.parent)

    def find_image(self, name: str) -> str | None:
        """Return the id of the image of that name."""
        with self._asking(f"looking for image {name}") as space:
            image = space.named(name)
            return None if image is None else image.image_id

    def open_raw(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> FakeRawImage:
        """Open without loading."""
        with self._asking(f"opening image {image_id}") as space:
            image = space.by_id(image_id)
            at = image.snapshot_numbered(snapshot) if snapshot else None
            return FakeRawImage(self._open(image, at, read_only=read_only))

    def open_parent(self, link: ParentLink) -> FakeRawImage:
        """Open what a clone reads, read-only."""
        with self._asking(f"opening {link.path}"):
            image = self._elsewhere(link.path).by_id(link.image_id)
            for snapshot in image.snapshots:
                if snapshot.name == link.path.snapshot_name:
                    return FakeRawImage(self._open(image, snapshot, read_only=True))
            message = f"{link.path}, which a clone reads, is gone"
            raise NotFoundError(message)

    def open_loaded(
        self,
        image_id: str,
        specs: LoadSpecs,
        *,
        read_only: bool = False,
        snapshot: int = 0,
    ) -> FakeLoadedImage:
        """Open and load at once."""
        with self._asking(f"opening image {image_id}") as space:
            image = space.by_id(image_id)
            at = image.snapshot_numbered(snapshot) if snapshot else None
            opened = self._open(image, at, read_only=read_only)
            try:
                return FakeLoadedImage(opened, specs)
            except BaseException:
                image.drop_handle(opened.handle)
                raise

    def open_plain(
        self, image_id: str, *, read_only: bool = False, snapshot: int = 0
    ) -> FakePlainImage:
        """Open a plaintext image."""
        with self._asking(f"opening image {image_id}") as space:
            image = space.by_id(image_id)
            at = image.snapshot_numbered(snapshot) if snapshot else None
            return FakePlainImage(self._open(image, at, read_only=read_only))

    @contextlib.contextmanager
    def listening(
        self, image_id: str, heard: Callable[[bytes], None]
    ) -> Iterator[None]:
        """Hear what a test lets other clients say."""
        with self._asking(f"watching image {image_id}") as space:
            image = space.by_id(image_id)
            image.listeners.append(heard)
        try:
            yield
        finally:
            with self._store.lock:
                image.listeners.remove(heard)

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

    def is_full(self) -> bool:
        """Return what a test has set."""
        with self._monitors("asking whether a pool is full"):
            return self._pool.full

    def _open(
        self, image: StoredImage, at: StoredSnapshot | None, *, read_only: bool
    ) -> Opened:
        """Register an opening; one at a snapshot is read-only."""
        number = self._store.next_number()
        handle = OpenHandle(self._instance, number, read_only or at is not None)
        image.handles.append(handle)
        return Opened(self._store, image, handle, at)

    def _elsewhere(self, path: SnapshotPath) -> Namespace:
        """Return another pool's namespace of the same cluster."""
        pool = self._cluster.pool_named(path.pool_name)
        if pool is None:
            message = f"there is no pool {path.pool_name!r}"
            raise NotFoundError(message)
        return pool.namespaces.get(path.namespace, Namespace(created=False))

    def _require_possible(self, space: Namespace, image: NewImage | NewClone) -> None:
        """Refuse an image as librbd does."""
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

    def _add(
        self, space: Namespace, image: NewImage | NewClone, size: int
    ) -> StoredImage:
        features = set(image.features)
        if image.data_pool:
            features.add("data-pool")
        if image.striping.stripe_count > 1:
            features.add("striping")
        made = StoredImage(
            size=size,
            data=RawData(image.striping),
            image_id=new_image_id(self._store.next_number()),
            name=image.name,
            pool=self._pool,
            namespace=self._location.namespace,
            striping=image.striping,
            features=frozenset(features),
        )
        space.images[made.image_id] = made
        return made

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
