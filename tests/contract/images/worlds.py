# SPDX-License-Identifier: Apache-2.0
"""Two worlds that the contract holds to one behaviour: the fake and real Ceph.

A world makes connectors and does what the port offers no way to do: bytes are
written past its checks, and plain objects removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import Protocol

from csi_driver.domain.ids import Location
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.images.values import NewClone
from csi_driver.images.values import SnapshotPath
from csi_driver.testing.ceph_fake import FakeConnector
from csi_driver.testing.ceph_fake_images import StoredImage
from csi_driver.testing.ceph_fake_layers import raw_layers
from csi_driver.testing.ceph_fake_store import FakeStore
from csi_driver.testing.ceph_fake_store import Namespace

POOL = "rbd"
OTHER_POOL = "rbd2"
NAMESPACE = "tenant"


FEATURES = ("layering", "exclusive-lock", "object-map", "fast-diff")

type MakeImage = Callable[..., str]
"""make_image(size=bytes, header=bytes, striping=..., into=pool) -> its name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clients:
    """Two clients of one cluster, each with the same pool and namespace."""

    ceph: Ceph
    pool: Pool
    peer: Ceph
    peer_pool: Pool


class World(Protocol):
    """What the contract needs beside the port."""

    @property
    def cluster(self) -> str:
        """The clusterID."""

    @property
    def connector(self) -> Connector:
        """Connects to the cluster."""

    def unreachable(self) -> Connector:
        """Return a connector to a cluster that does not answer."""

    def wrong_key(self) -> Connector:
        """Return a connector whose key is refused."""

    def write_raw(self, pool: Pool, name: str, data: bytes) -> None:
        """Write at raw offset 0 whatever stands there."""

    def remove_object(self, pool: Pool, name: str) -> None:
        """Remove a plain object, if it is there."""


class FakeWorld:
    """The fake."""

    cluster = "fake"

    def __init__(self) -> None:
        self._store = FakeStore(pools={POOL: ("", NAMESPACE), OTHER_POOL: ("",)})
        self.connector: Connector = FakeConnector(self._store)

    def unreachable(self) -> Connector:
        store = FakeStore()
        store.clusters["fake"].unreachable = True
        return FakeConnector(store)

    def wrong_key(self) -> Connector:
        store = FakeStore()
        store.clusters["fake"].key_refused = True
        return FakeConnector(store)

    def write_raw(self, pool: Pool, name: str, data: bytes) -> None:
        raw_layers(self._image(pool, name)).write(0, data)

    def remove_object(self, pool: Pool, name: str) -> None:
        self._space(pool.location).omaps.pop(name, None)

    def _image(self, pool: Pool, name: str) -> StoredImage:
        image = self._space(pool.location).named(name)
        assert image is not None
        return image

    def _space(self, location: Location) -> Namespace:
        pool = self._store.clusters["fake"].pools[location.pool_id]
        return pool.namespaces[location.namespace]


class RealWorld:
    """The single-node Ceph of `hack/lab`, through its configuration."""

    cluster = "lab"

    def __init__(self) -> None:
        try:
            import rados  # noqa: PLC0415  # exists inside the lab only
            import rbd  # noqa: PLC0415
        except ImportError as error:
            message = "librbd is not here: run this with `hack/lab exec pytest ...`"
            raise AssertionError(message) from error
        # Imported late: it needs rados and rbd.
        from csi_driver.domain.clusters import parse_clusters  # noqa: PLC0415
        from csi_driver.images.ceph import CephConnector  # noqa: PLC0415

        self.rados: Any = rados
        self.rbd: Any = rbd
        conf = Path(os.environ.get("CEPH_CONF", "/etc/ceph/ceph.conf"))
        self.conf = conf
        self._clusters = parse_clusters((conf.parent / "config.json").read_text())
        self.connector: Connector = CephConnector(self._clusters)

    def unreachable(self) -> Connector:
        return self._changed(monitors=("127.0.0.1:1",))

    def wrong_key(self) -> Connector:
        return self._changed(key_file=str(Path(__file__).parent / "wrong.key"))

    def write_raw(self, pool: Pool, name: str, data: bytes) -> None:
        with self._image(pool, name) as image:
            image.write(data, 0)

    def remove_object(self, pool: Pool, name: str) -> None:
        with self._ioctx(pool) as ioctx, contextlib.suppress(self.rados.ObjectNotFound):
            ioctx.remove_object(name)

    def _changed(self, **changes: Any) -> Connector:
        from csi_driver.domain.clusters import Clusters  # noqa: PLC0415
        from csi_driver.images.ceph import CephConnector  # noqa: PLC0415

        config = dataclasses.replace(self._clusters.get("lab"), **changes)
        return CephConnector(Clusters({"lab": config}))

    def _image(self, pool: Pool, name: str) -> Any:
        return _Backdoor(self, pool, name)

    def _ioctx(self, pool: Pool) -> Any:
        return _Backdoor(self, pool, None)


class _Backdoor:
    """An image, or without a name its pool, opened by python-rbd as admin."""

    def __init__(self, world: RealWorld, pool: Pool, name: str | None) -> None:
        self._world = world
        self._pool = pool
        self._name = name

    def __enter__(self) -> Any:
        world = self._world
        self._cluster = world.rados.Rados(conffile=str(world.conf), name="client.admin")
        self._cluster.connect()
        self._ioctx = self._cluster.open_ioctx(self._pool.pool_name)
        self._ioctx.set_namespace(self._pool.location.namespace)
        if self._name is None:
            return self._ioctx
        self._image = world.rbd.Image(self._ioctx, self._name)
        return self._image

    def __exit__(self, *_: object) -> None:
        if self._name is not None:
            self._image.close()
        self._ioctx.close()
        self._cluster.shutdown()


def id_of(pool: Pool, name: str) -> str:
    """Return the id of an image that has to exist."""
    found = pool.find_image(name)
    assert found is not None
    return found


def make_snapshot(pool: Pool, name: str, snapshot: str) -> int:
    """Take a snapshot and return its number."""
    with pool.open_raw(id_of(pool, name)) as image:
        image.create_snapshot(snapshot)
        return image.snapshots()[-1].number


def remove_snapshot(pool: Pool, name: str, snapshot: str) -> None:
    """Remove a snapshot."""
    with pool.open_raw(id_of(pool, name)) as image:
        image.remove_snapshot(snapshot)


def path_of(pool: Pool, name: str, snapshot: str) -> SnapshotPath:
    """Return the path of a snapshot in a pool."""
    return SnapshotPath(pool.pool_name, pool.location.namespace, name, snapshot)


def make_clone(
    pool: Pool, name: str, snapshot: str, clone: str, into: Pool | None = None
) -> str:
    """Clone a snapshot, with its image's striping; return the clone's id."""
    with pool.open_raw(id_of(pool, name), read_only=True) as image:
        striping = image.striping()
    target = into or pool
    path = path_of(pool, name, snapshot)
    target.clone_image(path, NewClone(clone, striping, FEATURES))
    return id_of(target, clone)
