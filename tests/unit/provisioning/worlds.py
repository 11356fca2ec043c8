# SPDX-License-Identifier: Apache-2.0
"""A place of its own for each test of the controller's work.

The same rules are tested on the fake and on real Ceph; what differs between
the two is behind `World`.  Here is the fake one.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import Final

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.chain import specs_for
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import SnapshotId
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.chains import read_chain
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Connector
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import Pool
from csi_driver.images.records import change_record
from csi_driver.images.records import read_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import SnapshotRequest
from csi_driver.provisioning.requests import Source
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.sweeping import ABANDONED_SECONDS
from csi_driver.provisioning.volumes import Volumes
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_layers import raw_layers
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Namespace

SECRET: Final = {"encryptionKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
DRIVER: Final = "rbdcrypt.csi.ceph.io"
NO_SECRETS: Final = SourceSecrets(DRIVER, None, None)
WRITER: Final = Capability(AccessMode.SINGLE_NODE_WRITER)


@dataclasses.dataclass(frozen=True, slots=True)
class Controller:
    """What one controller process has, with connections of its own."""

    volumes: Volumes
    collector: Collector
    shared: SharedConnections


class World(abc.ABC):
    """A pool and namespace for one test, and a first controller on it."""

    cluster: str
    pool_name: str
    namespace: str
    patience = 0.5
    """Seconds after which the maker of a half-made volume is taken for dead."""
    abandoned_after = ABANDONED_SECONDS
    """Seconds after which a half-made volume is given up."""

    def __init__(self, connector: Connector, clusters: Clusters) -> None:
        self.connector = connector
        self.clusters = clusters
        self._controllers: list[Controller] = []
        first = self.controller()
        self.volumes, self.collector, self.shared = (
            first.volumes,
            first.collector,
            first.shared,
        )

    def controller(
        self,
        connector: Connector | None = None,
        secrets: SourceSecrets = NO_SECRETS,
        abandoned_after: float | None = None,
    ) -> Controller:
        """Return another controller on the same place."""
        used = connector or self.connector
        shared = SharedConnections(used, self.clusters)
        after = self.abandoned_after if abandoned_after is None else abandoned_after
        patience = LockPatience(self.patience)
        collector = Collector(used, shared, self.clusters, patience, after)
        volumes = Volumes(
            places=Places(used, shared, self.clusters),
            collector=collector,
            secrets=secrets,
            patience=LockPatience(self.patience),
        )
        made = Controller(volumes, collector, shared)
        self._controllers.append(made)
        return made

    def close(self) -> None:
        """Disconnect all controllers."""
        for each in self._controllers:
            each.shared.close()

    def request(
        self,
        name: str,
        size: int = GIB,
        *,
        limit: int = 0,
        secrets: Mapping[str, str] = SECRET,
        capability: Capability = WRITER,
        source: Source | None = None,
        mutable: Mapping[str, str] | None = None,
        **parameters: str,
    ) -> CreateRequest:
        """Return a request for this place, unless the parameters name another."""
        place = {
            "clusterID": self.cluster,
            "pool": self.pool_name,
            "radosNamespace": self.namespace,
        }
        return CreateRequest(
            name,
            CapacityRange(size, limit),
            (capability,),
            {**place, **parameters},
            secrets,
            source,
            mutable or {},
        )

    def plaintext(self, name: str, size: int = GIB) -> CreateRequest:
        """Return a request for a volume without encryption, quick to make."""
        return self.request(name, size, secrets={}, encrypted="false")

    def create(self, name: str) -> VolumeInfo:
        """Create a plaintext volume."""
        return self.volumes.create(self.plaintext(name))

    def snapshot(self, volume_id: VolumeId, name: str) -> SnapshotId:
        """Take a snapshot."""
        request = SnapshotRequest(name, volume_id)
        return self.volumes.create_snapshot(request).snapshot_id

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """Lend the pool through a Rados instance of its own."""
        ceph = self.connector.connect(self.cluster)
        try:
            yield ceph.pool(self.pool_name, self.namespace)
        finally:
            ceph.close()

    @contextlib.contextmanager
    def pool_of(self, volume_id: VolumeId) -> Iterator[Pool]:
        """Lend the pool where a volume is."""
        ceph = self.connector.connect(self.cluster)
        try:
            yield ceph.pool_at(volume_id.location)
        finally:
            ceph.close()

    def record(self, volume_id: VolumeId) -> Record:
        """Return a volume's record."""
        with self.pool_of(volume_id) as pool:
            return read_record(pool, volume_id.image_id)

    def change(self, volume_id: VolumeId, **changes: Any) -> Record:
        """Change a volume's record, as a node does."""
        with self.pool_of(volume_id) as pool:
            return change_record(
                pool,
                volume_id.image_id,
                lambda present: dataclasses.replace(present, **changes),
            )

    def names(self) -> list[str]:
        """Return the names of the listed volumes, sorted."""
        listed = self.volumes.list("", 0).volumes
        return sorted(self.record(each.volume_id).name for each in listed)

    def collect(self) -> None:
        """Look for tombstones once, everywhere."""
        for config in self.clusters.by_id.values():
            for pool in config.pools:
                for namespace in pool.namespaces:
                    self.collector.look(config.cluster, pool.name, namespace)

    def collect_all(self, seconds: float = 60.0) -> None:
        """Collect until no tombstone is left."""
        deadline = time.monotonic() + seconds
        while left := list(self.collector.pending()):
            assert time.monotonic() < deadline, f"not collected: {left}"
            self.collect()
            time.sleep(0.05)

    @abc.abstractmethod
    def content(self) -> dict[str, object]:
        """Return everything that is stored there, for comparing."""

    @abc.abstractmethod
    def images(self) -> list[str]:
        """Return the names of all images, sorted."""

    @abc.abstractmethod
    def write_raw(self, volume_id: VolumeId, offset: int, data: bytes) -> None:
        """Write to an image that is not encrypted, as its tenant does."""

    @abc.abstractmethod
    def read_raw(self, volume_id: VolumeId, offset: int, length: int) -> bytes:
        """Read from an image that is not encrypted, as its tenant does."""

    @abc.abstractmethod
    def elsewhere(self) -> list[dict[str, str]]:
        """Return class parameters for other places: a namespace, a pool."""

    @abc.abstractmethod
    def allocated(self, volume_id: VolumeId) -> int:
        """Return the bytes that an image takes without its parent."""

    @abc.abstractmethod
    def rename_snapshot(self, image_id: str, old: str, new: str) -> None:
        """Rename an RBD snapshot as an administrator would."""

    def add_snapshot(self, image_id: str, name: str) -> None:
        """Make an RBD snapshot as an administrator would."""
        with self.pool() as pool, pool.open_raw(image_id) as image:
            image.create_snapshot(name)

    def remove_snapshot(self, image_id: str, name: str) -> None:
        """Remove it."""
        with self.pool() as pool, pool.open_raw(image_id) as image:
            image.remove_snapshot(name)

    def add_clone(self, image_id: str, snapshot: str, clone: str) -> None:
        """Clone a snapshot to a new image."""
        with self.pool() as pool:
            with pool.open_raw(image_id, read_only=True) as image:
                name, striping = image.name, image.striping()
            source = SnapshotPath(self.pool_name, self.namespace, name, snapshot)
            pool.clone_image(source, NewClone(clone, striping, DEFAULT_FEATURES))

    def remove_image(self, name: str) -> None:
        """Remove an image, as `rbd rm` does."""
        with self.pool() as pool:
            pool.remove_image(name)


class FakeWorld(World):
    """A place in memory."""

    cluster = "fake"
    pool_name = "rbd"
    namespace = ""
    patience = 0.02

    def __init__(self) -> None:
        self.store = FakeStore()
        pools = [
            {"name": "rbd", "namespaces": ["", "tenant"]},
            {"name": "rbd2", "namespaces": [""]},
        ]
        own = {"userID": "driver", "keyFile": "/nowhere", "pools": pools}
        config = {"clusterID": "fake", "monitors": ["[::1]:1"], "rbdcrypt": own}
        super().__init__(
            FakeConnector(self.store), parse_clusters(json.dumps([config]))
        )

    def content(self) -> dict[str, object]:
        """Return images with their metadata, and the omaps that hold something."""
        found: dict[str, object] = {}
        with self.store.lock:
            for pool in self.store.clusters["fake"].pools.values():
                for namespace, space in pool.namespaces.items():
                    where = f"{pool.name}/{namespace}"
                    for image in space.images.values():
                        found[f"{where}/{image.name}"] = (
                            image.size,
                            dict(image.metadata),
                            image.data.allocated,
                            [each.name for each in image.snapshots],
                        )
                    for name, omap in space.omaps.items():
                        if omap:
                            found[f"{where}/{name}"] = dict(omap)
        return found

    def images(self) -> list[str]:
        """Return the names of all images."""
        with self.store.lock:
            return sorted(image.name for image in self._space.images.values())

    def write_raw(self, volume_id: VolumeId, offset: int, data: bytes) -> None:
        """Write to an image."""
        with self.store.lock:
            raw_layers(self._image(volume_id)).write(offset, data)

    def read_raw(self, volume_id: VolumeId, offset: int, length: int) -> bytes:
        """Read from an image."""
        with self.store.lock:
            return raw_layers(self._image(volume_id)).read(offset, length)

    def rename_snapshot(self, image_id: str, old: str, new: str) -> None:
        """Rename a snapshot."""
        with self.store.lock:
            self._space.by_id(image_id).snapshot_named(old).name = new

    def elsewhere(self) -> list[dict[str, str]]:
        """Return a namespace and a pool."""
        return [
            {"pool": "rbd", "radosNamespace": "tenant"},
            {"pool": "rbd2", "radosNamespace": ""},
        ]

    def allocated(self, volume_id: VolumeId) -> int:
        """Return the bytes of its objects."""
        with self.store.lock:
            return self._image(volume_id).data.allocated

    def _image(self, volume_id: VolumeId) -> StoredImage:
        where = volume_id.location
        pool = self.store.clusters["fake"].pools[where.pool_id]
        return pool.namespaces[where.namespace].by_id(volume_id.image_id)

    @property
    def _space(self) -> Namespace:
        return self.store.pool("rbd").namespaces[""]


@contextlib.contextmanager
def loaded(
    pool: Pool,
    record: Record,
    secrets: Mapping[str, str] = SECRET,
    *,
    read_only: bool = False,
    snapshot: int = 0,
) -> Iterator[LoadedImage]:
    """Open a volume as a node does: by its ring and the Secret."""
    assert record.ring is not None
    with open_ring(record.ring, parse_key_source(secrets)) as ring:
        keys = ring.passphrases()
    chain = read_chain(pool, record.image_id, snapshot=snapshot)
    specs = specs_for(chain, keys)
    with pool.open_loaded(
        record.image_id, specs, read_only=read_only, snapshot=snapshot
    ) as image:
        yield image


def until_free[T](call: Callable[[], T], seconds: float = 45.0) -> T:
    """Repeat a call that a dead process' lock or watch still hinders."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (PreconditionError, PendingError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.03)
