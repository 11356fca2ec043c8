# SPDX-License-Identifier: Apache-2.0
"""The driver's pods are deleted while a tenant's pod writes.

I/O lives in the datapath alone.  A lost datapath is an I/O error, as documented,
and its volumes serve again when the pod that uses them is started anew.
"""

from __future__ import annotations

import pytest

from tests.cluster import parts
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.writing import WRITER
from tests.cluster.writing import require_progress
from tests.cluster.writing import require_whole

pytestmark = pytest.mark.usefixtures("restless_controllers")


@pytest.fixture
def writer(tenant: Tenant) -> Tenant:
    """Give a tenant whose pod writes blocks and their checksums without end."""
    tenant.claim("files", XFS)
    tenant.pod("writer", "files", script=WRITER)
    tenant.ready("writer")
    return tenant


@pytest.mark.parametrize("component", ["node", "controller"])
def test_a_writer_notices_nothing_of_a_replaced_pod(
    writer: Tenant, component: str
) -> None:
    parts.replace(writer.kube, component)
    require_progress(writer)
    writer.end("writer")
    writer.pod("reader", "files")
    writer.ready("reader")
    require_whole(writer, "reader")


def test_a_volume_serves_again_after_its_datapath_was_deleted(writer: Tenant) -> None:
    writer.run("writer", "cp /tmp/written /data/before && sync /data/before")
    before = writer.run("writer", "cat /data/before")
    parts.replace(writer.kube, "datapath")
    writer.run(
        "writer",
        "for i in $(seq 100); do test -e /tmp/failed && exit; sleep 0.2; done; exit 1",
    )
    writer.end("writer")
    writer.pod("again", "files")
    writer.ready("again")
    assert writer.run("again", "cat /data/before") == before
    writer.run("again", "echo more > /data/more && sync /data/more")


def test_a_volume_that_is_only_published_anew_is_staged_again_first(
    writer: Tenant,
) -> None:
    """The next pod waits for the last one, so that kubelet never unstages."""
    writer.run("writer", "echo kept > /data/before && sync /data/before")
    parts.replace(writer.kube, "datapath")
    writer.pod("again", "files")
    writer.kube.wait_event("again", writer.namespace, "FailedMount", "in use")
    writer.end("writer")
    writer.ready("again")
    assert writer.run("again", "cat /data/before").strip() == "kept"
    writer.run("again", "echo more > /data/more && sync /data/more")
    told = [
        line
        for pod in parts.pods_of(writer.kube, "node")
        for line in writer.kube.logs(
            pod["metadata"]["name"], parts.NAMESPACE, "node"
        ).splitlines()
        if "staging again" in line
    ]
    volume = writer.bound("files")["spec"]["csi"]["volumeHandle"]
    assert any(volume in line and "NodePublishVolume" in line for line in told), told
