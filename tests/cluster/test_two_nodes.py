# SPDX-License-Identifier: Apache-2.0
"""A volume that one node writes is not another's, and moves when it is let go."""

from __future__ import annotations

import pytest

from tests.cluster.node import FIRST
from tests.cluster.node import SECOND
from tests.cluster.node_service import stage
from tests.cluster.tenant import SECRET
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant

pytestmark = pytest.mark.usefixtures("restless_controllers")


def test_a_volume_in_use_is_refused_elsewhere_by_the_name_of_its_holder(
    tenant: Tenant,
) -> None:
    passphrase = tenant.secret(SECRET)
    tenant.claim("files", XFS)
    # kubelet alone is slow to look again, where no scheduler has waited for it.
    volume = tenant.bound("files")
    tenant.pod("writer", "files", nodeName=FIRST)
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    secrets = {"encryptionPassphrase": passphrase}
    answer = stage(tenant.kube, SECOND, volume, secrets)
    assert answer.code == "FAILED_PRECONDITION", answer
    assert FIRST in answer.message
    tenant.run("writer", "echo more > /data/more && sync /data/more")
    tenant.end("writer")
    tenant.pod("moved", "files", nodeName=SECOND)
    tenant.ready("moved")
    assert tenant.run("moved", "cat /data/file /data/more").split() == ["kept", "more"]


def test_a_read_only_clone_is_shared_by_two_nodes(tenant: Tenant) -> None:
    tenant.claim("source", XFS)
    tenant.bound("source")
    tenant.pod("writer", "source", nodeName=FIRST)
    tenant.ready("writer")
    tenant.run("writer", "echo shared > /data/file && sync /data/file")
    source = {"kind": "PersistentVolumeClaim", "name": "source"}
    tenant.claim("many", XFS, mode="ReadOnlyMany", source=source)
    tenant.bound("many")
    tenant.pod("one", "many", read_only=True, nodeName=FIRST)
    tenant.pod("two", "many", read_only=True, nodeName=SECOND)
    for name in ("one", "two"):
        tenant.ready(name)
        assert tenant.run(name, "cat /data/file").strip() == "shared"
