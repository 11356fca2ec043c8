# SPDX-License-Identifier: Apache-2.0
"""The release's life: upgraded, rolled back, uninstalled, installed again."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.cluster import parts
from tests.cluster.kube import Kube
from tests.cluster.pool import CephView
from tests.cluster.release import CHART
from tests.cluster.release import RELEASE
from tests.cluster.release import helm
from tests.cluster.release import install
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim


def uids(kube: Kube, component: str) -> set[str]:
    """Return the identities of a component's pods."""
    return {str(pod["metadata"]["uid"]) for pod in parts.pods_of(kube, component)}


@pytest.mark.timeout(900)
def test_an_upgrade_and_a_rollback_replace_all_but_the_datapath(
    tenant: Tenant, installed: None
) -> None:
    kube = tenant.kube
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    node, datapath = uids(kube, "node"), uids(kube, "datapath")
    notes = install("--set", "log.level=debug", "--set", "datapath.podLabels.new=yes")
    assert "create secret generic" in notes
    parts.wait_until_ready(kube, "node")
    assert uids(kube, "node").isdisjoint(node)
    assert uids(kube, "datapath") == datapath
    tenant.run("writer", "echo upgraded > /data/file && sync /data/file")
    helm("rollback", RELEASE, "--wait", "--timeout=3m")
    parts.wait_until_ready(kube, "node")
    assert uids(kube, "datapath") == datapath
    assert tenant.run("writer", "cat /data/file").strip() == "upgraded"
    tenant.end("writer")


@pytest.mark.timeout(900)
def test_uninstalling_leaves_volumes_alone(
    tenant: Tenant, ceph: CephView, installed: None
) -> None:
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    tenant.end("writer")
    volume = tenant.bound("files")["metadata"]["name"]
    images = ceph.images()
    helm("uninstall", RELEASE, "--wait", "--timeout=3m")
    for component in ("controller", "node", "datapath"):
        for pod in parts.pods_of(tenant.kube, component):
            tenant.kube.wait_gone("Pod", pod["metadata"]["name"], parts.NAMESPACE)
    assert tenant.kube.find("StorageClass", "rbdcrypt") is None
    assert tenant.kube.find("CSIDriver", parts.DRIVER) is None
    assert ceph.images() == images
    tenant.kube.get("PersistentVolume", volume)
    install()
    tenant.pod("reader", "files")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "kept"


def test_a_second_release_of_the_same_driver_is_refused(kube: Kube) -> None:
    values = os.environ["CHART_VALUES"]
    command = ["helm", "--namespace", "default", "install", "another", str(CHART)]
    done = subprocess.run(
        [*command, "--values", values], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert parts.DRIVER in done.stderr
    assert RELEASE in done.stderr
    released = json.loads(helm("list", "--output", "json"))
    assert [each["name"] for each in released] == [RELEASE]


@pytest.mark.timeout(900)
def test_the_controller_needs_secrets_of_the_listed_namespaces_alone(
    tenant: Tenant, installed: None
) -> None:
    listed = f"secrets.namespaces={{{tenant.namespace}}}"
    install("--set", "secrets.clusterWide=false", "--set", listed)
    tenant.kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": f"{tenant.namespace}-unlisted"},
        }
    )
    other = Tenant(tenant.kube, f"{tenant.namespace}-unlisted")
    other.secret()
    other.claim("files", XFS)
    other.kube.wait_event("files", other.namespace, "ProvisioningFailed", "forbidden")
    tenant.claim("files", XFS)
    tenant.claim("copy", XFS, source=from_claim("files"))
    tenant.pod("reader", "files", "copy")
    tenant.ready("reader")
    other.forget("PersistentVolumeClaim", "files")
    tenant.kube.delete("Namespace", other.namespace)
