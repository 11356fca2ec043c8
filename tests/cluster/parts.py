# SPDX-License-Identifier: Apache-2.0
"""The driver's own pods: found by their labels, deleted, and back again."""

from __future__ import annotations

import time
from typing import Final

from tests.cluster.kube import PATIENCE
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.kube import containers_ready

NAMESPACE: Final = "rbdcrypt-system"
DRIVER: Final = "csi.rbdcrypt.io"


def pods_of(kube: Kube, component: str) -> list[Object]:
    """Return the pods of one component: controller, node or datapath."""
    return kube.all(
        "Pod", NAMESPACE, label_selector=f"app.kubernetes.io/component={component}"
    )


def pod_on(kube: Kube, component: str, node: str) -> str:
    """Return the name of the one pod of a component on a node."""
    found = [
        str(pod["metadata"]["name"])
        for pod in pods_of(kube, component)
        if pod["spec"].get("nodeName") == node
        and not pod["metadata"].get("deletionTimestamp")
    ]
    assert len(found) == 1, f"{component} on {node}: {found}"
    return found[0]


def wait_until_ready(kube: Kube, component: str, seconds: float = PATIENCE) -> None:
    """Wait until a component has pods again and all of them are ready."""
    deadline = time.monotonic() + seconds
    while True:
        pods = pods_of(kube, component)
        if pods and all(map(_serves, pods)):
            return
        assert time.monotonic() < deadline, f"{component}: {pods}"
        time.sleep(0.25)


def replace(kube: Kube, component: str) -> None:
    """Delete the pods of a component and wait until others are ready."""
    for pod in pods_of(kube, component):
        kube.delete("Pod", pod["metadata"]["name"], NAMESPACE)
    for pod in pods_of(kube, component):
        if pod["metadata"].get("deletionTimestamp"):
            kube.wait_gone("Pod", pod["metadata"]["name"], NAMESPACE)
    wait_until_ready(kube, component)


def _serves(pod: Object) -> bool:
    return containers_ready(pod) and not pod["metadata"].get("deletionTimestamp")
