# SPDX-License-Identifier: Apache-2.0
"""Node services and datapaths of two versions side by side, while a pod writes.

The next version is an image whose parts speak a version more to each other.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Final

import pytest

from csi_driver.datapath.messages import VERSION
from tests.cluster import parts
from tests.cluster import release
from tests.cluster.kube import Kube
from tests.cluster.node import FIRST
from tests.cluster.node import SECOND
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.upgrading import Versions
from tests.cluster.upgrading import replace_datapath
from tests.cluster.upgrading import versions_on
from tests.cluster.writing import RESUMING_WRITER
from tests.cluster.writing import require_progress
from tests.cluster.writing import require_whole
from tests.cluster.writing import wait_until_writing

_TAG: Final = "next"
_WRITER: Final = "writer-0"


@pytest.fixture
def next_image() -> str:
    """Give the tag of the driver's next version, which the cluster has to have."""
    listed = subprocess.run(
        ["ctr", "--namespace", "k8s.io", "images", "list", "--quiet"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    name = f"localhost/rbdcrypt-csi:{_TAG}"
    assert name in listed.split(), f"there is no image {name}: hack/cluster up --next"
    return _TAG


@pytest.fixture
def as_before(kube: Kube) -> Iterator[None]:
    """Leave the release and every datapath as they were, and all nodes in use."""
    yield
    kube.patch("Node", SECOND, "", {"spec": {"unschedulable": None}})
    release.install()
    for pod in parts.pods_of(kube, "datapath"):
        if pod["spec"]["containers"][0]["image"].endswith(f":{_TAG}"):
            kube.delete("Pod", pod["metadata"]["name"], parts.NAMESPACE)
            kube.wait_gone("Pod", pod["metadata"]["name"], parts.NAMESPACE)
    for component in ("controller", "node", "datapath"):
        parts.wait_until_ready(kube, component)


def require_versions(kube: Kube, first: Versions, second: Versions) -> None:
    """Fail unless the two nodes run these versions."""
    parts.wait_until_ready(kube, "node")
    assert (versions_on(kube, FIRST), versions_on(kube, SECOND)) == (first, second)


def require_service(tenant: Tenant, other: str, size: str) -> None:
    """Use the writer's node in every way: status, grow, open, close."""
    tenant.resize("files", size)
    tenant.pod(other, other, nodeName=SECOND)
    require_progress(tenant, _WRITER)
    tenant.ready(other)
    tenant.run(other, "echo new > /data/file && sync /data/file")
    tenant.end(other)
    tenant.resized("files", size)
    require_progress(tenant, _WRITER)


@pytest.mark.timeout(600)
def test_a_writer_notices_nothing_of_an_upgrade_its_datapath_and_a_rollback(
    next_image: str, as_before: None, tenant: Tenant
) -> None:
    begin = time.monotonic()
    kube, now, later = tenant.kube, VERSION, VERSION + 1
    for name in ("files", "ahead", "behind"):
        tenant.claim(name, XFS)
    tenant.bound("files")
    tenant.stateful("writer", "files", script=RESUMING_WRITER, node=SECOND)
    tenant.ready(_WRITER)
    wait_until_writing(tenant, _WRITER)
    same = Versions(node=now, datapath=now)
    require_versions(kube, same, same)

    release.install("--set", f"image.tag={next_image}")
    ahead = Versions(node=later, datapath=now)
    require_versions(kube, ahead, ahead)
    require_service(tenant, "ahead", "400Mi")

    replace_datapath(SECOND)
    require_versions(kube, ahead, Versions(node=later, datapath=later))
    tenant.ready(_WRITER)
    wait_until_writing(tenant, _WRITER)

    release.helm("rollback", release.RELEASE, "--wait", "--timeout=3m")
    require_versions(kube, same, Versions(node=now, datapath=later))
    require_service(tenant, "behind", "480Mi")

    tenant.forget("StatefulSet", "writer")
    tenant.kube.wait_gone("Pod", _WRITER, tenant.namespace)
    tenant.pod("reader", "files", nodeName=SECOND)
    tenant.ready("reader")
    require_whole(tenant, "reader")
    print(f"upgraded and rolled back in {time.monotonic() - begin:.0f} s")  # noqa: T201
