# SPDX-License-Identifier: Apache-2.0
"""A VolumeAttributesClass limits a volume while a pod uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster.kube import Kube
from tests.cluster.tenant import Tenant

_SLOW = "rbdcrypt-slow"
_IOPS = 50


@pytest.fixture
def slow_class(kube: Kube) -> Iterator[str]:
    """Give a class of 50 operations per second."""
    kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttributesClass",
            "metadata": {"name": _SLOW},
            "driverName": "csi.rbdcrypt.io",
            "parameters": {"iops": str(_IOPS)},
        }
    )
    yield _SLOW
    kube.delete("VolumeAttributesClass", _SLOW)


def operations(tenant: Tenant) -> float:
    """Return the writes per second that fio gets on the device for two seconds."""
    output = tenant.run(
        "user",
        "fio --name=w --filename=/dev/volume --rw=randwrite --bs=4k --direct=1"
        " --ioengine=libaio --iodepth=8 --runtime=2 --time_based --output-format=json",
    )
    report = json.loads(output[output.index("{") :])
    return float(report["jobs"][0]["write"]["iops"])


def test_a_running_pod_is_limited(tenant: Tenant, slow_class: str) -> None:
    tenant.claim("device", "64Mi", block=True)
    tenant.pod("user", "device", block=True)
    tenant.ready("user")
    free = operations(tenant)
    change = {"spec": {"volumeAttributesClassName": slow_class}}
    tenant.kube.patch("PersistentVolumeClaim", "device", tenant.namespace, change)
    tenant.kube.wait(
        "PersistentVolumeClaim",
        "device",
        tenant.namespace,
        lambda it: it["status"].get("currentVolumeAttributesClassName") == slow_class,
    )
    limited = operations(tenant)
    assert free > 4 * _IOPS
    assert limited <= 2 * _IOPS
