# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of a process as a whole, of its RPCs and its registration.

They are counted and served only where an HTTP address is configured.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import Info
from prometheus_client import ProcessCollector

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2, 5, 10, 30, 60, 120)


class RpcMetrics:
    """Counts and times every call; implements `rpc.recorder.Recorder`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "rbdcrypt_rpc_calls",
            "CSI calls by method and status code",
            ["method", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "rbdcrypt_rpc_seconds",
            "Time until a CSI call was answered, in seconds",
            ["method", "code"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._stuck = Gauge(
            "rbdcrypt_rpc_stuck",
            "Calls that were given up and whose work has not ended yet",
            registry=registry,
        )

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method, code).observe(seconds)

    def stuck(self, count: int) -> None:
        """Set how much given-up work is still running."""
        self._stuck.set(count)


def registry_of(version: str) -> CollectorRegistry:
    """Return a registry with what every process tells of itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    build = Info("rbdcrypt_build", "The version of this process", registry=registry)
    build.info({"version": version})
    return registry


def add_registration(
    registry: CollectorRegistry, registered: Callable[[], bool]
) -> None:
    """Tell whether kubelet has the driver registered, asked at each scrape."""
    Gauge(
        "rbdcrypt_kubelet_registered",
        "1 if kubelet has this driver registered on its node, else 0",
        registry=registry,
    ).set_function(registered)
