# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the volumes that a datapath has open.

They are asked of the workers when somebody scrapes, in a bounded time, and no
more than once a second however many ask.  A worker that is busy or late tells
nothing of its I/O that time; its volume is counted all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Final
from typing import Protocol

from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from csi_driver.datapath.messages import Counters
from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.ids import VolumeId
from csi_driver.observability.flattens import flatten_families

ASK_SECONDS: Final = 3.0
"""How long all workers together may take; Prometheus waits for 10 s."""

FRESH_SECONDS: Final = 1.0
"""How long an answer is good for others who ask."""


class Watched(Protocol):
    """What a datapath tells of itself; from any thread."""

    @property
    def calls(self) -> int:
        """How many calls are at work on volumes."""

    @property
    def spares(self) -> int:
        """How many workers wait for a volume."""

    def status(
        self, volume_id: VolumeId | None, seconds: float
    ) -> tuple[ExportStatus, ...]:
        """Tell how all volumes are, waiting no longer than this for their workers."""


class ExportMetrics(Collector):
    """Rows for each open volume, and what the datapath is at."""

    def __init__(self, datapath: Watched) -> None:
        self._datapath = datapath
        self._lock = threading.Lock()
        self._known: tuple[ExportStatus, ...] = ()
        self._until = 0.0

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask anybody."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Ask and return what was told."""
        exports = self._recent()
        yield _gauge(
            "rbdcrypt_datapath_calls",
            "Calls at work on volumes of this datapath: open, close, grow, flatten",
            self._datapath.calls,
        )
        yield _gauge(
            "rbdcrypt_datapath_spare_workers",
            "Workers of this datapath that wait for a volume",
            self._datapath.spares,
        )
        yield from _volumes(exports)
        yield from _operations(exports)
        yield from flatten_families(exports)

    def _recent(self) -> tuple[ExportStatus, ...]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._known = self._datapath.status(None, ASK_SECONDS)
                self._until = time.monotonic() + FRESH_SECONDS
            return self._known


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _volumes(exports: Iterable[ExportStatus]) -> Iterator[Metric]:
    """Return how the volumes are."""
    alive = GaugeMetricFamily(
        "rbdcrypt_export_alive",
        "1 if an open volume is served, 0 if its I/O fails until it is staged anew",
        labels=["volume"],
    )
    size = GaugeMetricFamily(
        "rbdcrypt_export_size_bytes",
        "Bytes that an open volume's device has",
        labels=["volume"],
    )
    info = GaugeMetricFamily(
        "rbdcrypt_export_info",
        "The block device of an open volume, without /dev/, and its access",
        labels=["volume", "device", "access"],
    )
    for export in exports:
        volume = str(export.volume_id)
        device = export.device.path.name if export.device else ""
        alive.add_metric([volume], export.alive)
        size.add_metric([volume], export.size.count)
        info.add_metric([volume, device, "ro" if export.read_only else "rw"], 1)
    return iter((alive, size, info))


def _operations(exports: Iterable[ExportStatus]) -> Iterator[Metric]:
    """Return what the volumes have done since they were opened."""
    operations = CounterMetricFamily(
        "rbdcrypt_export_operations",
        "Operations that an open volume has answered",
        labels=["volume", "operation"],
    )
    moved = CounterMetricFamily(
        "rbdcrypt_export_bytes",
        "Bytes that an open volume has read and written",
        labels=["volume", "operation"],
    )
    errors = CounterMetricFamily(
        "rbdcrypt_export_errors",
        "Operations of an open volume that failed",
        labels=["volume"],
    )
    rejected = CounterMetricFamily(
        "rbdcrypt_export_rejected",
        "Requests that an open volume refused as malformed or out of bounds",
        labels=["volume"],
    )
    in_flight = GaugeMetricFamily(
        "rbdcrypt_export_in_flight",
        "Operations that an open volume is at",
        labels=["volume"],
    )
    for volume, counters in _counted(exports):
        for operation, count in (
            ("read", counters.reads),
            ("write", counters.writes),
            ("flush", counters.flushes),
        ):
            operations.add_metric([volume, operation], count)
        moved.add_metric([volume, "read"], counters.read_bytes)
        moved.add_metric([volume, "write"], counters.written_bytes)
        errors.add_metric([volume], counters.errors)
        rejected.add_metric([volume], counters.rejected)
        in_flight.add_metric([volume], counters.in_flight)
    return iter((operations, moved, errors, rejected, in_flight))


def _counted(exports: Iterable[ExportStatus]) -> Iterator[tuple[str, Counters]]:
    for export in exports:
        if export.counters is not None:
            yield str(export.volume_id), export.counters
