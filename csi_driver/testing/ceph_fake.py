# SPDX-License-Identifier: Apache-2.0
"""The port to Ceph from memory, proven equal to librbd by the contract suite.

Several connectors and instances work on one `FakeStore`, from any thread.
What no contract test can show without harm to a real cluster, and rests on
this module alone: the switch `full` of a pool.
"""

from __future__ import annotations

from typing import Final

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import CephKeyError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import NotFoundError
from csi_driver.domain.errors import UnavailableError
from csi_driver.domain.ids import Location
from csi_driver.testing.ceph_fake_images import Instance
from csi_driver.testing.ceph_fake_pools import FakePool
from csi_driver.testing.ceph_fake_store import Cluster
from csi_driver.testing.ceph_fake_store import FakeStore


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
                raise CephKeyError(message)
            return FakeCeph(self.store, cluster)
