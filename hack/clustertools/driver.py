# SPDX-License-Identifier: Apache-2.0
"""The driver in the cluster: installed by its chart, with classes for tests."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING
from typing import Any
from typing import Final

from labtools import ceph
from labtools import shell

from clustertools import images

if TYPE_CHECKING:
    from pathlib import Path

    from labtools.places import Lab

    from clustertools.kubectl import Kubectl

RELEASE: Final = "rbdcrypt-csi"
NAMESPACE: Final = "rbdcrypt-system"
_PARTS: Final = ("controller", "node", "datapath")
_DATAPATH: Final = "app.kubernetes.io/component=datapath"
_IMAGE: Final = "lab/image"
"""Annotation by which pods are told apart whose image has the same name."""
_CLUSTER: Final = "lab"
_CEPH_SECRET: Final = "rbdcrypt-ceph"  # noqa: S105  (a name)
_SECRET: Final = "rbdcrypt-passphrase"  # noqa: S105  (a name)


def install(lab: Lab, kubectl: Kubectl, archive: Path) -> None:
    """Install the chart of the clone and wait until all of its pods are ready.

    `archive` is the driver's image: pods of another one are replaced.
    """
    kubectl.apply(_namespace(), _ceph_secret(lab))
    values = values_file(lab)
    values.write_text(json.dumps(values_for(lab, archive.stem), indent=2) + "\n")
    shell.run(
        kubectl.programs / "helm",
        *("--kubeconfig", kubectl.kubeconfig, "--namespace", NAMESPACE),
        *("upgrade", "--install", RELEASE, lab.repo / "charts/rbdcrypt-csi"),
        *("--values", values, "--wait", "--timeout", "3m"),
    )
    _replace_datapaths(kubectl, archive.stem)


def _replace_datapaths(kubectl: Kubectl, image: str) -> None:
    """Replace the datapath's pods of other images, which the chart never does."""
    named = ("--namespace", NAMESPACE, "--selector", _DATAPATH)
    pods = json.loads(kubectl.run("get", "pods", *named, "--output", "json"))["items"]
    old = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["annotations"].get(_IMAGE) != image
    ]
    if old:
        kubectl.run("delete", "pod", "--namespace", NAMESPACE, *old)
    ready = ("--for=condition=Ready", "pod", "--timeout=120s")
    kubectl.wait("no datapath", "wait", *ready, *named, seconds=60)


def values_file(lab: Lab) -> Path:
    """Return the file of the chart's values."""
    return lab.etc / "values.json"


def _namespace() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE},
    }


def _ceph_secret(lab: Lab) -> dict[str, Any]:
    """Return the driver's Ceph user as a Secret, with the keys that ceph-csi uses."""
    key = (lab.etc / f"{ceph.USER}.key").read_bytes()
    data = {"userID": ceph.USER.encode(), "userKey": key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _CEPH_SECRET, "namespace": NAMESPACE},
        "data": {name: base64.b64encode(text).decode() for name, text in data.items()},
    }


def values_for(lab: Lab, image: str) -> dict[str, Any]:
    """Return the chart's values for this cluster and one build of the image."""
    repository, _, tag = images.DRIVER.rpartition(":")
    pools = [
        {"name": pool, "namespaces": ["", *namespaces]}
        for pool, namespaces in ceph.POOLS.items()
    ]
    cluster = {
        "clusterID": _CLUSTER,
        "monitors": [ceph.monitor_address(lab)],
        "secretName": _CEPH_SECRET,
        "pools": pools,
    }
    return {
        "image": {"repository": repository, "tag": tag},
        "imagePullPolicy": "Never",
        "clusters": [cluster],
        # Any namespace may become a tenant's here, and there is nobody else.
        "secrets": {"clusterWide": True},
        **{part: {"podAnnotations": {_IMAGE: image}} for part in _PARTS},
        "storageClasses": [
            _storage_class("rbdcrypt", _SECRET, default=True),
            _storage_class("rbdcrypt-per-pvc", "${pvc.name}"),
            _storage_class("rbdcrypt-ext4", _SECRET, filesystem="ext4"),
        ],
        "volumeSnapshotClasses": [{"name": "rbdcrypt", "default": True}],
    }


def _storage_class(
    name: str, secret: str, *, filesystem: str = "xfs", default: bool = False
) -> dict[str, Any]:
    """Return a class whose Secret is in the namespace of the claim.

    xfs, because it grows online without a capability that root may lack.
    """
    return {
        "name": name,
        "default": default,
        "secret": {"name": secret, "namespace": "${pvc.namespace}"},
        "parameters": {
            "clusterID": _CLUSTER,
            "pool": "rbd",
            "csi.storage.k8s.io/fstype": filesystem,
        },
    }
