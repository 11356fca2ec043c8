# SPDX-License-Identifier: Apache-2.0
"""What became of the Events, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest

from csi_driver.kube.events import EventCounts
from csi_driver.observability.events import EventMetrics


def test_every_fate_has_a_count() -> None:
    registry = CollectorRegistry()
    registry.register(EventMetrics(lambda: EventCounts(1, 2, 3, 4, 5, 6)))
    lines = generate_latest(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'rbdcrypt_events_total{fate="posted"} 1.0',
        'rbdcrypt_events_total{fate="repeated"} 2.0',
        'rbdcrypt_events_total{fate="limited"} 3.0',
        'rbdcrypt_events_total{fate="nameless"} 4.0',
        'rbdcrypt_events_total{fate="failed"} 5.0',
        'rbdcrypt_events_total{fate="dropped"} 6.0',
    ]
