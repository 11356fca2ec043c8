# SPDX-License-Identifier: Apache-2.0
"""Long-lived connections for work that changes at most a record.

One Rados instance per cluster, made at first use and made anew after it was
fenced, or when another user or key is in its files: Ceph goes on with an old key
for a while only.  Work that takes an image's lock brings an instance of its own,
since fencing hits a whole instance.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final

import structlog

from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import FencedError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.ids import Location
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.images.users import stamp

RENEW_SECONDS: Final = 30.0
"""How long an old connection is used after a new one was refused."""

type _Stamp = tuple[tuple[int, int, int], ...] | None
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(slots=True)
class _Open:
    """A connection, what the files of its user were, and when to look at them."""

    ceph: Ceph
    stamp: _Stamp
    look_at: float = 0.0

    def renewable(self, found: _Stamp) -> bool:
        """Whether another user or key is in the files; missing ones change nothing."""
        return found not in {None, self.stamp} and time.monotonic() >= self.look_at


class SharedConnections:
    """The driver's own connections, one for each cluster."""

    def __init__(self, connector: Connector, clusters: Clusters) -> None:
        self._connector = connector
        self._clusters = clusters
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
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
        for each in connections:
            each.ceph.close()

    def _get(self, cluster: str) -> Ceph:
        """Return the connection, made at most once at a time.

        Who comes while it is being made shares the outcome, so that nobody
        waits longer for a cluster that does not answer than one attempt takes.
        Who comes while it is being made anew has the old one.
        """
        found = stamp(self._clusters.get(cluster))
        mine: Future[Ceph] = Future()
        with self._lock:
            present = self._open.get(cluster)
            if present is not None and not present.renewable(found):
                return present.ceph
            theirs = self._connecting.get(cluster)
            if theirs is None:
                self._connecting[cluster] = mine
        if theirs is not None:
            return theirs.result() if present is None else present.ceph
        try:
            made = _Open(self._connector.connect(cluster), found)
        except DriverError as error:
            if present is None:
                self._connected(cluster, mine, error)
                raise
            _log.error("keeping the old connection", cluster=cluster, reason=str(error))
            present.look_at = time.monotonic() + RENEW_SECONDS
            made = present
        except BaseException as error:
            self._connected(cluster, mine, error)
            raise
        self._connected(cluster, mine, made)
        return made.ceph

    def _connected(
        self, cluster: str, attempt: Future[Ceph], outcome: _Open | BaseException
    ) -> None:
        """Note how an attempt to connect came out, and tell those who wait for it.

        An old connection is forgotten, not closed: others may be inside a call of
        it.
        """
        with self._lock:
            del self._connecting[cluster]
            if isinstance(outcome, _Open):
                self._open[cluster] = outcome
        if isinstance(outcome, _Open):
            attempt.set_result(outcome.ceph)
        else:
            attempt.set_exception(outcome)

    def _drop(self, cluster: str, ceph: Ceph) -> None:
        """Forget a dead connection; others may still be inside a call of it."""
        with self._lock:
            present = self._open.get(cluster)
            if present is not None and present.ceph is ceph:
                del self._open[cluster]
