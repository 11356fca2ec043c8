# SPDX-License-Identifier: Apache-2.0
"""What a cluster has for snapshots beside any driver: CRDs and a controller."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any
from typing import Final

from clustertools import images

if TYPE_CHECKING:
    from clustertools.kubectl import Kubectl

_NAMESPACE: Final = "kube-system"
_NAME: Final = "snapshot-controller"
"""Of the Deployment, and of the ServiceAccount that upstream's RBAC makes."""


def install(kubectl: Kubectl) -> None:
    """Install both and wait until the API server knows the new kinds."""
    directory = kubectl.programs / "snapshots"
    kubectl.run("apply", "--server-side", "-f", directory)
    kubectl.apply(_deployment())
    crds = ("volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshots")
    names = [f"crd/{each}.snapshot.storage.k8s.io" for each in crds]
    kubectl.run("wait", "--for=condition=Established", *names, "--timeout=60s")


def _deployment() -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": _NAME}
    container = {
        "name": _NAME,
        "image": images.reference(_NAME),
        "imagePullPolicy": "Never",
        "args": ["--leader-election=false"],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _NAME, "namespace": _NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": _NAME,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                },
            },
        },
    }
