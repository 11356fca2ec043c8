# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of the RPCs, served only where an address is configured."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Gauge
from prometheus_client import Histogram
from prometheus_client import start_http_server

from csi_driver.domain.errors import UnavailableError

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


def serve(
    registry: CollectorRegistry,
    host: str,
    port: int,
) -> tuple[WSGIServer, threading.Thread]:
    """Serve the registry over HTTP; UnavailableError if the port is taken."""
    try:
        return start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        message = f"metrics cannot be served at {host}:{port}: {error.strerror}"
        raise UnavailableError(message) from error
