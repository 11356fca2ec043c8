# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of what became of the Events of this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from csi_driver.kube.events import EventCounts


class EventMetrics(Collector):
    """One row for each fate that a notice can have."""

    def __init__(self, counts: Callable[[], EventCounts]) -> None:
        """Take what tells the present counts."""
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Return the counts."""
        found = CounterMetricFamily(
            "rbdcrypt_events",
            "Notices to users by what became of them: posted, repeated (a count"
            " raised), limited, nameless (no claim known), failed, dropped",
            labels=["fate"],
        )
        for fate, count in dataclasses.asdict(self._counts()).items():
            found.add_metric([fate], count)
        return (found,)
