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
from typing import Final

from csi_driver.domain.access import AccessMode
from csi_driver.domain.access import Capability
from csi_driver.domain.chain import HeaderKind
from csi_driver.domain.chain import Layer
from csi_driver.domain.chain import specs_for
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters
from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import VolumeId
from csi_driver.domain.parameters import DEFAULT_FEATURES
from csi_driver.domain.record import Record
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import CapacityRange
from csi_driver.images.connections import SharedConnections
from csi_driver.images.port import Connector
from csi_driver.images.port import LoadedImage
from csi_driver.images.port import Pool
from csi_driver.images.records import read_record
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.keys.material import parse_key_source
from csi_driver.keys.ring import open_ring
from csi_driver.provisioning.collector import Collector
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.places import Places
from csi_driver.provisioning.requests import CreateRequest
from csi_driver.provisioning.requests import VolumeInfo
from csi_driver.provisioning.source_secrets import SourceSecrets
from csi_driver.provisioning.volumes import Volumes
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Namespace

SECRET: Final = {"encryptionKey": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}
DRIVER: Final = "rbdcrypt.csi.ceph.io"
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

    def controller(self, connector: Connector | None = None) -> Controller:
        """Return another controller on the same place."""
        used = connector or self.connector
        shared = SharedConnections(used, self.clusters)
        collector = Collector(used, shared, self.clusters, LockPatience(self.patience))
        volumes = Volumes(
            places=Places(used, shared, self.clusters),
            collector=collector,
            secrets=SourceSecrets(DRIVER, None, None),
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
        **parameters: str,
    ) -> CreateRequest:
        """Return a request for this place."""
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
        )

    def plaintext(self, name: str, size: int = GIB) -> CreateRequest:
        """Return a request for a volume without encryption, quick to make."""
        return self.request(name, size, secrets={}, encrypted="false")

    def create(self, name: str) -> VolumeInfo:
        """Create a plaintext volume."""
        return self.volumes.create(self.plaintext(name))

    @contextlib.contextmanager
    def pool(self) -> Iterator[Pool]:
        """Lend the pool through a Rados instance of its own."""
        ceph = self.connector.connect(self.cluster)
        try:
            yield ceph.pool(self.pool_name, self.namespace)
        finally:
            ceph.close()

    def record(self, volume_id: VolumeId) -> Record:
        """Return a volume's record."""
        with self.pool() as pool:
            return read_record(pool, volume_id.image_id)

    def names(self) -> list[str]:
        """Return the names of the listed volumes, sorted."""
        with self.pool() as pool:
            return sorted(
                read_record(pool, each.volume_id.image_id).name
                for each in self.volumes.list("", 0).volumes
            )

    def collect(self) -> None:
        """Look for tombstones once."""
        self.collector.look(self.cluster, self.pool_name, self.namespace)

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
        with self.store.lock:
            return {
                **{
                    image.name: (image.size, dict(image.metadata), image.data.allocated)
                    for image in self._space.images.values()
                },
                **{
                    name: dict(omap) for name, omap in self._space.omaps.items() if omap
                },
            }

    def images(self) -> list[str]:
        """Return the names of all images."""
        with self.store.lock:
            return sorted(image.name for image in self._space.images.values())

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
) -> Iterator[LoadedImage]:
    """Open a volume as a node does: by its ring and the Secret."""
    assert record.ring is not None
    with open_ring(record.ring, parse_key_source(secrets)) as ring:
        keys = ring.passphrases()
    (header_uuid,) = keys
    layer = Layer(record.image_id, HeaderKind.LUKS2, header_uuid)
    specs = specs_for([layer], keys)
    with pool.open_loaded(record.image_id, specs, read_only=read_only) as image:
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
