# SPDX-License-Identifier: Apache-2.0
"""From a claim to a file: the driver's main job, as a tenant sees it."""

from __future__ import annotations

import json
import re

from tests.cluster.pool import CephView
from tests.cluster.tenant import PER_PVC_CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant

TEXT = "Here lies the plaintext that nobody on the cluster shall read."
FINGERPRINT = re.compile(r"\b[0-9a-f]{4}(?:-[0-9a-f]{4}){3}\b")
LUKS_MAGIC = b"LUKS\xba\xbe"


def test_what_one_pod_wrote_another_reads_and_ceph_cannot(
    tenant: Tenant, ceph: CephView
) -> None:
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    tenant.run("writer", f"echo '{TEXT}' > /data/file && sync /data/file")
    assert ceph.holders(LUKS_MAGIC) != [], "the search itself finds what is there"
    assert ceph.holders(TEXT.encode()) == []
    tenant.end("writer")
    assert ceph.holders(TEXT.encode()) == []
    tenant.pod("reader", "files")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == TEXT


def test_a_pod_waits_for_the_right_secret_and_then_starts_by_itself(
    tenant: Tenant,
) -> None:
    right = tenant.secret("own")
    tenant.claim("own", XFS, storage_class=PER_PVC_CLASS)
    tenant.pod("first", "own")
    tenant.ready("first")
    tenant.run("first", f"echo '{TEXT}' > /data/file")
    tenant.end("first")
    wrong = tenant.secret("own", passphrase="not what it was made with")
    tenant.pod("second", "own")
    why = tenant.kube.wait_event(
        "second", tenant.namespace, "FailedMount", "fingerprint"
    )
    told = tenant.kube.wait_reason(
        "PersistentVolumeClaim", "own", tenant.namespace, "WrongSecret"
    )
    assert told["type"] == "Warning"
    assert told["involvedObject"]["uid"] == tenant.claim_uid("own")
    assert told["message"] in why, "kubelet shows the driver's sentence"
    assert len(set(FINGERPRINT.findall(told["message"]))) == 2
    told_of_all = json.dumps(tenant.kube.all("Event", tenant.namespace))
    assert "WrongSecret" in told_of_all
    for secret in (right, wrong):
        assert secret not in told_of_all
    tenant.secret("own", passphrase=right)
    tenant.ready("second")
    assert tenant.run("second", "cat /data/file").strip() == TEXT
