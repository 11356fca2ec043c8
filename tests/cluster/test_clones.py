# SPDX-License-Identifier: Apache-2.0
"""Snapshots and clones of claims, each under a Secret of its own."""

from __future__ import annotations

from tests.cluster.node import restart_kubelet
from tests.cluster.tenant import PER_PVC_CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim
from tests.cluster.tenant import from_snapshot


def test_a_clone_outlives_its_source_snapshot_secret_and_a_kubelet_restart(
    tenant: Tenant,
) -> None:
    for name in ("source", "restored", "cloned"):
        tenant.secret(name)
    tenant.claim("source", XFS, storage_class=PER_PVC_CLASS)
    tenant.pod("writer", "source")
    tenant.ready("writer")
    tenant.run("writer", "echo first > /data/file && sync /data/file")
    tenant.snapshot("moment", "source")
    tenant.run("writer", "echo second > /data/file && sync /data/file")
    own = PER_PVC_CLASS
    tenant.claim("restored", XFS, source=from_snapshot("moment"), storage_class=own)
    tenant.claim("cloned", XFS, source=from_claim("source"), storage_class=own)
    tenant.pod("reader", "restored", "cloned")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file /data1/file").split() == [
        "first",
        "second",
    ]
    tenant.end("writer")
    tenant.forget("PersistentVolumeClaim", "source")
    tenant.forget("VolumeSnapshot", "moment")
    tenant.forget("Secret", "source")
    restart_kubelet()
    assert tenant.run("reader", "cat /data/file /data1/file").split() == [
        "first",
        "second",
    ]
    tenant.run("reader", "echo third > /data/file && sync /data/file")
    tenant.end("reader")
    tenant.pod("again", "restored", "cloned")
    tenant.ready("again")
    assert tenant.run("again", "cat /data/file /data1/file").split() == [
        "third",
        "second",
    ]


def test_a_larger_clone_has_the_room_that_it_was_promised(tenant: Tenant) -> None:
    tenant.claim("source", XFS)
    tenant.pod("writer", "source")
    tenant.ready("writer")
    tenant.run("writer", "echo first > /data/file && sync /data/file")
    tenant.end("writer")
    tenant.claim("larger", "640Mi", source=from_claim("source"))
    tenant.pod("reader", "larger")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "first"
    blocks = int(tenant.run("reader", "echo $(($(stat -f -c '%b * %S' /data)))"))
    assert blocks > 500 << 20
