# SPDX-License-Identifier: Apache-2.0
"""What the collector did, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest

from csi_driver.observability.collecting import CollectorMetrics
from csi_driver.provisioning.tally import Tallies


def test_all_that_it_does_has_a_count() -> None:
    registry = CollectorRegistry()
    registry.register(CollectorMetrics(lambda: Tallies(1, 2, 3)))
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'rbdcrypt_collector_total{did="removed"} 1.0',
        'rbdcrypt_collector_total{did="given_up"} 2.0',
        'rbdcrypt_collector_total{did="failed"} 3.0',
    ]
