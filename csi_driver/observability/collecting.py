# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of what this process's collector did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from csi_driver.provisioning.tally import Tallies


class CollectorMetrics(Collector):
    """One row for each thing that the collector does."""

    def __init__(self, counts: Callable[[], Tallies]) -> None:
        """Take what tells the present counts."""
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        """Return the counts."""
        found = CounterMetricFamily(
            "rbdcrypt_collector",
            "What the collector did: removed (tombstones), given_up (creates that"
            " nobody went on with), failed (what is tried again)",
            labels=["did"],
        )
        for did, count in dataclasses.asdict(self._counts()).items():
            found.add_metric([did], count)
        return (found,)
