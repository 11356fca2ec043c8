# SPDX-License-Identifier: Apache-2.0
"""The collector that runs in the controller all the time.

It looks through the tombstones of every pool the driver owns, every few
seconds and at once after a delete, and now and then through the volumes, for
what calls that died have left (`sweeping`).  Two controllers may run one each:
the owner lock and compare-and-set keep them apart.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Final

import structlog

from csi_driver.domain.clusters import ClusterConfig
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import UnavailableError
from csi_driver.images.connections import SharedConnections
from csi_driver.images.directory import Entry
from csi_driver.images.port import Connector
from csi_driver.images.port import Pool
from csi_driver.provisioning.collection import Collected
from csi_driver.provisioning.collection import Outcome
from csi_driver.provisioning.collection import collect
from csi_driver.provisioning.collection import pending
from csi_driver.provisioning.patience import LockPatience
from csi_driver.provisioning.sweeping import ABANDONED_SECONDS
from csi_driver.provisioning.sweeping import SWEEP_SECONDS
from csi_driver.provisioning.sweeping import Sweep
from csi_driver.provisioning.tally import Tallies
from csi_driver.provisioning.tally import Tally
from csi_driver.provisioning.waiting import Waiting

INTERVAL: Final = 5.0
"""Seconds between two looks; an empty look is one small read for each pool."""

_log = structlog.get_logger(__name__)


class Collector:
    """Removes tombstones, in threads of its own, or by hand with `look`."""

    def __init__(
        self,
        connector: Connector,
        connections: SharedConnections,
        clusters: Clusters,
        patience: LockPatience | None = None,
        abandoned_after: float = ABANDONED_SECONDS,
    ) -> None:
        """`abandoned_after` is in seconds, as in `sweeping`."""
        self._connector = connector
        self._connections = connections
        self._clusters = clusters
        self._patience = patience or LockPatience()
        self._waiting = Waiting()
        self._tally = Tally()
        self._sweeps = {
            (config.cluster, *place): Sweep(abandoned_after)
            for config in clusters.by_id.values()
            for place in _places(config)
        }
        self._wake = {cluster: threading.Event() for cluster in clusters.by_id}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def counted(self) -> Tallies:
        """Return what was done since the process began."""
        return self._tally.counts

    def start(self) -> None:
        """Begin collecting, in a thread for each cluster.

        Calls to a cluster that hangs cannot be cut short, and must not keep the
        other clusters' tombstones.
        """
        self._threads = [
            threading.Thread(
                target=self.run,
                args=(cluster,),
                name=f"collector {cluster}",
                daemon=True,
            )
            for cluster in self._clusters.by_id
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop after the present tombstone; waits up to `timeout` seconds."""
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def wake(self) -> None:
        """Look now, at everything: something was deleted."""
        self._waiting.reset()
        for event in self._wake.values():
            event.set()

    def run(self, cluster: str) -> None:
        """Look again and again until stopped; a failure is logged, not fatal."""
        wake = self._wake[cluster]
        sweep_at = time.monotonic()
        while not self._stopping.is_set():
            wake.clear()
            steps = [self._look_until_done]
            if time.monotonic() >= sweep_at:
                # First, so that what is given up is collected at once.
                steps.insert(0, self.sweep)
                sweep_at = time.monotonic() + SWEEP_SECONDS
            for pool, namespace in _places(self._clusters.get(cluster)):
                for step in steps:
                    if self._stopping.is_set():
                        return
                    self._safely(step, cluster, pool, namespace)
            wake.wait(INTERVAL)

    def _look_until_done(self, cluster: str, pool: str, namespace: str) -> None:
        """Look; what was removed may have been the last that needed another one."""
        while self._removed_some(cluster, pool, namespace):
            self._waiting.reset()

    def _removed_some(self, cluster: str, pool: str, namespace: str) -> bool:
        """Look at what is due; True if something went."""
        found = self.look(cluster, pool, namespace, due_only=True)
        return not self._stopping.is_set() and any(
            each.outcome is Outcome.REMOVED for each in found
        )

    def look(
        self, cluster: str, pool: str, namespace: str, *, due_only: bool = False
    ) -> list[Collected]:
        """Collect what can be collected in one pool and namespace.

        With `due_only` those are left out that were kept a short while ago.
        """
        with self._connections.pool(cluster, pool, namespace) as shared:
            entries = pending(shared)
        if due_only:
            due = self._waiting.due
            entries = [each for each in entries if due(each.image_name)]
        if not entries:
            return []
        results = []
        with self._own(cluster, pool, namespace) as own:
            for entry in entries:
                if self._stopping.is_set():
                    break
                with self._others_kept("tombstone cannot be collected", entry):
                    results.append(collect(own, entry, self._patience))
                    self._note(results[-1])
        return results

    def sweep(self, cluster: str, pool: str, namespace: str) -> None:
        """Tidy up what calls that died have left in one pool and namespace.

        A place is swept by one thread only.
        """
        sweep = self._sweeps[cluster, pool, namespace]
        with self._connections.pool(cluster, pool, namespace) as shared:
            found = sweep.find(shared)
        if not found:
            return
        with self._own(cluster, pool, namespace) as own:
            for left, seconds in found:
                if self._stopping.is_set():
                    break
                with self._others_kept("what a call left stays", left.entry):
                    if sweep.tidy(own, left, seconds):
                        self._tally.given_up()

    @contextlib.contextmanager
    def _own(self, cluster: str, pool: str, namespace: str) -> Iterator[Pool]:
        """Lend a place through a Rados instance of its own, for work under locks."""
        ceph = self._connector.connect(cluster)
        try:
            yield ceph.pool(pool, namespace)
        finally:
            ceph.close()

    def pending(self) -> Iterator[tuple[str, str, str, Entry]]:
        """Go through all tombstones: (cluster, pool, namespace, entry)."""
        for config in self._clusters.by_id.values():
            for pool, namespace in _places(config):
                with self._connections.pool(config.cluster, pool, namespace) as shared:
                    for entry in pending(shared):
                        yield config.cluster, pool, namespace, entry

    def _note(self, result: Collected) -> None:
        image = result.entry.image_name
        if result.outcome is Outcome.KEPT:
            self._waiting.kept(image)
        else:
            self._waiting.forget(image)
        if result.outcome is Outcome.REMOVED:
            self._tally.removed()
        level = _log.info if result.outcome is Outcome.REMOVED else _log.debug
        level(
            "tombstone",
            volume=result.entry.name,
            image=result.entry.image_name,
            outcome=result.outcome.value,
        )

    def _safely(
        self,
        step: Callable[[str, str, str], None],
        cluster: str,
        pool: str,
        namespace: str,
    ) -> None:
        """Take a step, and log what fails: the next one may fare better."""
        place = {"cluster": cluster, "pool": pool, "namespace": namespace}
        try:
            step(cluster, pool, namespace)
        except DriverError as error:
            self._tally.failed()
            _log.warning("collecting failed", error=str(error), **place)
        except Exception:  # noqa: BLE001  # a bug must not end the collector
            self._tally.failed()
            _log.exception("collecting failed unforeseen", **place)

    @contextlib.contextmanager
    def _others_kept(self, event: str, entry: Entry) -> Iterator[None]:
        """Log what fails with one volume, which must not keep the others."""
        try:
            yield
        except UnavailableError:
            raise
        except DriverError as error:
            self._tally.failed()
            _log.warning(
                event, volume=entry.name, image=entry.image_name, error=str(error)
            )


def _places(config: ClusterConfig) -> Iterator[tuple[str, str]]:
    """Go through the pools and namespaces of a cluster."""
    for pool in config.pools:
        for namespace in pool.namespaces:
            yield pool.name, namespace
