# SPDX-License-Identifier: Apache-2.0
"""What all Rados instances of the fake share: clusters, pools, namespaces.

Plain state under one lock, and the switches with which a test makes a cluster
misbehave.  The port's methods are left to `ceph_fake_pools` and the handles.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Final

from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.sizes import GIB
from csi_driver.testing.ceph_fake_images import Instance
from csi_driver.testing.ceph_fake_images import StoredImage


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
    """One pool.  `full` refuses whatever would need room; sizes in bytes.

    `last_snapshot` is the number that a snapshot in it was given last.
    """

    pool_id: int
    name: str
    namespaces: dict[str, Namespace]
    capacity: int = 1024 * GIB
    full: bool = False
    last_snapshot: int = 0

    @property
    def allocated(self) -> int:
        """Bytes that all images of the pool take; snapshots share all of theirs."""
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
            for image in self.images():
                for handle in list(image.handles):
                    if handle.instance is instance:
                        image.drop_handle(handle)

    def images(self) -> Iterator[StoredImage]:
        """Yield the images of all clusters."""
        for cluster in self.clusters.values():
            for pool in cluster.pools.values():
                for namespace in pool.namespaces.values():
                    yield from namespace.images.values()


def new_image_id(number: int) -> str:
    """Return an id in the form of RBD's own."""
    return f"{number:x}{number * 2654435761 & 0xFFFFFFFF:08x}"
