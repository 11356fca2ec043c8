# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the flattens on this node."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.datapath.messages import ExportStatus


def flatten_families(exports: Iterable[ExportStatus]) -> Iterable[Metric]:
    """Return one row for each open clone that is, or was, flattened."""
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
    for volume, status in _flattens(exports):
        state.add_metric([volume, status.state.value], 1)
        if status.total:
            done.add_metric([volume], status.done)
            total.add_metric([volume], status.total)
    return state, done, total


def _flattens(exports: Iterable[ExportStatus]) -> Iterator[tuple[str, FlattenStatus]]:
    for export in exports:
        status = export.counters.flatten if export.counters else None
        if status is not None and status.state is not FlattenState.IDLE:
            yield str(export.volume_id), status
