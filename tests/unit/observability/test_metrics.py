# SPDX-License-Identifier: Apache-2.0
"""The metrics of a process as Prometheus reads them."""

from __future__ import annotations

from prometheus_client import generate_latest

from csi_driver.observability import metrics


def test_calls_are_counted_by_method_and_code() -> None:
    registry = metrics.registry_of("1.2.3")
    counted = metrics.RpcMetrics(registry)
    counted.answered("Probe", "OK", 0.01)
    counted.answered("Probe", "OK", 0.3)
    counted.stuck(3)
    text = generate_latest(registry).decode()
    assert 'rbdcrypt_rpc_calls_total{code="OK",method="Probe"} 2.0' in text
    assert 'rbdcrypt_rpc_seconds_bucket{code="OK",le="0.02",method="Probe"} 1.0' in text
    assert "rbdcrypt_rpc_stuck 3.0" in text


def test_every_process_tells_its_version_and_its_size() -> None:
    text = generate_latest(metrics.registry_of("1.2.3")).decode()
    assert 'rbdcrypt_build_info{version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_registration_is_asked_at_each_scrape() -> None:
    registry = metrics.registry_of("1.2.3")
    standing = [False]
    metrics.add_registration(registry, lambda: standing[0])
    assert "rbdcrypt_kubelet_registered 0.0" in generate_latest(registry).decode()
    standing[0] = True
    assert "rbdcrypt_kubelet_registered 1.0" in generate_latest(registry).decode()
