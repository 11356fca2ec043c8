# SPDX-License-Identifier: Apache-2.0
"""What the owner of a claim is told of Ceph's own troubles, and that it ends well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.dead_node import frozen
from tests.cluster.dead_node import out_of_service
from tests.cluster.kube import Kube
from tests.cluster.kube import Object
from tests.cluster.node import FIRST
from tests.cluster.node import SECOND
from tests.cluster.pool import CephView
from tests.cluster.tenant import CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.writing import WRITER
from tests.cluster.writing import require_progress
from tests.cluster.writing import require_waiting
from tests.cluster.writing import require_whole
from tests.cluster.writing import wait_until_writing

_POOL: Final = "rbd2"
"""A pool of the driver that no other test uses: it may be full."""
_CLASS: Final = "of-its-own-pool"
_CLAIM: Final = "PersistentVolumeClaim"


@pytest.fixture
def own_pool(kube: Kube) -> Iterator[str]:
    """Give a class whose volumes are in a pool that no other test uses."""
    usual = kube.get("StorageClass", CLASS)
    kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _CLASS},
            "provisioner": usual["provisioner"],
            "parameters": {**usual["parameters"], "pool": _POOL},
        }
    )
    yield _CLASS
    kube.delete("StorageClass", _CLASS)


def require_told(tenant: Tenant, pod: str, reason: str, kind: str, *words: str) -> None:
    """Wait until claim and pod are told the same; see that it is of them."""
    on_claim = tenant.told(_CLAIM, "files", reason)
    on_pod = tenant.told("Pod", pod, reason)
    there = tenant.kube.get("Pod", pod, tenant.namespace)
    for event, uid in (
        (on_claim, tenant.claim_uid("files")),
        (on_pod, there["metadata"]["uid"]),
    ):
        assert event["involvedObject"]["uid"] == uid
        assert event["type"] == kind
        assert [word for word in words if word not in event["message"]] == []
    assert on_claim["message"] == on_pod["message"]


def test_writes_into_a_full_pool_wait_and_go_on_and_both_is_told(
    tenant: Tenant, ceph: CephView, own_pool: str
) -> None:
    tenant.claim("files", XFS, storage_class=own_pool)
    tenant.pod("writer", "files", script=WRITER)
    tenant.ready("writer")
    wait_until_writing(tenant, "writer")
    with ceph.full(_POOL):
        words = (f"pool '{_POOL}'", "is full", "none is lost")
        require_told(tenant, "writer", "PoolFull", "Warning", *words)
        require_waiting(tenant, "writer")
    require_told(tenant, "writer", "PoolHasRoom", "Normal", "go on")
    require_progress(tenant, "writer")
    tenant.end("writer")
    tenant.pod("reader", "files")
    tenant.ready("reader")
    require_whole(tenant, "reader")


def handle_of(volume: Object) -> str:
    """Return the id of a PersistentVolume's volume."""
    return str(volume["spec"]["csi"]["volumeHandle"])


def test_a_volume_leaves_a_dead_node_that_is_fenced_and_the_claim_is_told(
    tenant: Tenant,
) -> None:
    """By the steps of docs/troubleshooting.md; and the node is used again."""
    kube = tenant.kube
    tenant.claim("files", XFS)
    volume = tenant.bound("files")
    tenant.pod("writer", "files", script=WRITER, nodeName=SECOND)
    tenant.ready("writer")
    wait_until_writing(tenant, "writer")
    tenant.run("writer", "echo kept > /data/before && sync /data/before")
    with frozen(kube, SECOND, handle_of(volume)):
        kube.kill("writer", tenant.namespace)
        with out_of_service(kube, SECOND):
            tenant.pod("moved", "files", nodeName=FIRST)
            tenant.ready("moved")
            event = tenant.told(_CLAIM, "files", "HolderFenced")
        assert event["type"] == "Warning"
        assert event["involvedObject"]["uid"] == tenant.claim_uid("files")
        assert event["message"].startswith(f"node {SECOND!r} held the volume")
        assert event["message"].endswith(f"opened on node {FIRST!r}")
        assert tenant.run("moved", "cat /data/before").strip() == "kept"
        require_whole(tenant, "moved")
        tenant.run("moved", "echo more > /data/after && sync /data/after")
    # What the dead node had still to write is on its way by now, and arrives nowhere.
    tenant.run("moved", "sleep 2; echo last > /data/last && sync /data/last")
    tenant.end("moved")
    tenant.pod("back", "files", nodeName=SECOND)
    tenant.ready("back")
    texts = tenant.run("back", "cd /data; cat before after last").split()
    assert texts == ["kept", "more", "last"]
    require_whole(tenant, "back")


def test_a_fenced_export_is_told_on_claim_and_pod_and_a_new_pod_serves_again(
    tenant: Tenant, ceph: CephView
) -> None:
    """By the steps of docs/troubleshooting.md."""
    tenant.claim("files", XFS)
    volume = tenant.bound("files")
    tenant.pod("writer", "files", script=WRITER)
    tenant.ready("writer")
    wait_until_writing(tenant, "writer")
    tenant.run("writer", "echo kept > /data/before && sync /data/before")
    assert ceph.fence_clients_of(handle_of(volume).rpartition(":")[2]) == 1
    require_told(tenant, "writer", "ExportLost", "Warning", "fenced", "delete the pods")
    tenant.end("writer")
    tenant.pod("again", "files")
    tenant.ready("again")
    assert tenant.run("again", "cat /data/before").strip() == "kept"
    require_whole(tenant, "again")
    tenant.run("again", "echo more > /data/after && sync /data/after")
