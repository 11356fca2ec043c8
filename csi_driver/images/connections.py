# SPDX-License-Identifier: Apache-2.0
"""Long-lived connections for work that changes at most a record.

One Rados instance per cluster, made at first use and made anew after it was
fenced.  Work that takes an image's lock brings an instance of its own, since
fencing hits a whole instance.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import Location
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool


class SharedConnections:
    """The driver's own connections, one for each cluster."""

    def __init__(self, connector: Connector, clusters: Clusters) -> None:
        self._connector = connector
        self._clusters = clusters
        self._lock = threading.Lock()
        self._open: dict[str, Ceph] = {}
        self._connecting: dict[str, Future[Ceph]] = {}

    @contextlib.contextmanager
    def pool_at(self, location: Location) -> Iterator[Pool]:
        """Lend the pool at a location.

        A connection that turns out to be fenced is dropped; the next caller
        gets a new one.
        """
        if location.cluster not in self._clusters.by_id:
            message = (
                f"the volume lies on cluster {location.cluster!r}, which is not"
                " configured here: add it to the cluster config"
            )
            raise PreconditionError(message)
        ceph = self._get(location.cluster)
        try:
            yield ceph.pool_at(location)
        except FencedError:
            self._drop(location.cluster, ceph)
            raise

    @contextlib.contextmanager
    def pool(self, cluster: str, pool: str, namespace: str = "") -> Iterator[Pool]:
        """Lend a pool by name, as `pool_at` does."""
        self._clusters.get(cluster)
        ceph = self._get(cluster)
        try:
            yield ceph.pool(pool, namespace)
        except FencedError:
            self._drop(cluster, ceph)
            raise

    def close(self) -> None:
        """Disconnect from every cluster."""
        with self._lock:
            connections, self._open = list(self._open.values()), {}
        for ceph in connections:
            ceph.close()

    def _get(self, cluster: str) -> Ceph:
        """Return the connection, made at most once at a time.

        Who comes while it is being made shares the outcome, so that nobody
        waits longer for a cluster that does not answer than one attempt takes.
        """
        with self._lock:
            present = self._open.get(cluster)
            if present is not None:
                return present
            theirs = self._connecting.get(cluster)
            mine: Future[Ceph] = Future()
            if theirs is None:
                self._connecting[cluster] = mine
        if theirs is not None:
            return theirs.result()
        try:
            made = self._connector.connect(cluster)
        except BaseException as error:
            with self._lock:
                del self._connecting[cluster]
            mine.set_exception(error)
            raise
        with self._lock:
            self._open[cluster] = made
            del self._connecting[cluster]
        mine.set_result(made)
        return made

    def _drop(self, cluster: str, ceph: Ceph) -> None:
        """Forget a dead connection; others may still be inside a call of it."""
        with self._lock:
            if self._open.get(cluster) is ceph:
                del self._open[cluster]
