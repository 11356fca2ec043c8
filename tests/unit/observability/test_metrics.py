# SPDX-License-Identifier: Apache-2.0
"""The metrics as Prometheus reads them."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from csi_driver.domain.errors import UnavailableError
from csi_driver.observability import metrics


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_calls_are_served_by_method_and_code() -> None:
    registry = CollectorRegistry()
    counted = metrics.RpcMetrics(registry)
    counted.answered("Probe", "OK", 0.01)
    counted.answered("Probe", "OK", 0.3)
    counted.stuck(3)
    port = free_port()
    server, thread = metrics.serve(registry, "127.0.0.1", port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
            text = reply.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert 'rbdcrypt_rpc_calls_total{code="OK",method="Probe"} 2.0' in text
    assert 'rbdcrypt_rpc_seconds_bucket{code="OK",le="0.02",method="Probe"} 1.0' in text
    assert "rbdcrypt_rpc_stuck 3.0" in text


def test_a_taken_port_is_a_readable_failure() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
            metrics.serve(CollectorRegistry(), "127.0.0.1", port)
