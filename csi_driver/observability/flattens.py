# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the flattens on this node, asked of the datapath.

They are read when somebody scrapes, and absent while the datapath is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.errors import DriverError

_log = structlog.get_logger(__name__)


class FlattenMetrics(Collector):
    """One row for each open clone that is, or was, flattened."""

    def __init__(self, exports: Callable[[], Iterable[ExportStatus]]) -> None:
        """Take what asks the datapath how all open volumes are."""
        self._exports = exports

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask the datapath."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Ask the datapath and return what it tells."""
        state = GaugeMetricFamily(
            "rbdcrypt_flatten_state",
            "1 for the state that the flatten of an open clone is in",
            labels=["volume", "state"],
        )
        done = GaugeMetricFamily(
            "rbdcrypt_flatten_objects_done",
            "Objects that the flatten of an open clone has copied or passed",
            labels=["volume"],
        )
        total = GaugeMetricFamily(
            "rbdcrypt_flatten_objects",
            "Objects that the flatten of an open clone has to copy or pass",
            labels=["volume"],
        )
        for volume, status in self._flattens():
            state.add_metric([volume, status.state.value], 1)
            if status.total:
                done.add_metric([volume], status.done)
                total.add_metric([volume], status.total)
        return state, done, total

    def _flattens(self) -> list[tuple[str, FlattenStatus]]:
        try:
            exports = list(self._exports())
        except DriverError as error:
            _log.debug("no metrics of flattens", error=str(error))
            return []
        found = (
            (str(export.volume_id), export.counters.flatten)
            for export in exports
            if export.counters is not None
        )
        return [
            (volume, status)
            for volume, status in found
            if status is not None and status.state is not FlattenState.IDLE
        ]
