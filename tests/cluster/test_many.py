# SPDX-License-Identifier: Apache-2.0
"""Many claims at once."""

from __future__ import annotations

import time

import pytest

from tests.cluster.pool import CephView
from tests.cluster.tenant import Tenant

_COUNT = 30

pytestmark = pytest.mark.usefixtures("restless_controllers")


@pytest.mark.timeout(1200)
def test_thirty_claims_at_once_are_mounted_and_leave_nothing(
    tenant: Tenant, ceph: CephView
) -> None:
    before = set(ceph.images())
    names = [f"claim-{number}" for number in range(_COUNT)]
    begin = time.monotonic()
    for name in names:
        tenant.claim(name, "32Mi", storage_class="rbdcrypt-ext4")
    for name in names:
        tenant.bound(name, seconds=300)
    bound = time.monotonic()
    for name in names:
        tenant.pod(name, name)
    for name in names:
        tenant.ready(name, seconds=400)
    mounted = time.monotonic()
    for name in names:
        tenant.run(name, f"echo {name} > /data/file && sync /data/file")
    for name in names:
        assert tenant.run(name, "cat /data/file").strip() == name
    deleting = time.monotonic()
    tenant.end(*names)
    tenant.forget("PersistentVolumeClaim", *names, seconds=300)
    while set(ceph.images()) - before:
        assert time.monotonic() < deleting + 300
        time.sleep(0.3)
    deleted = time.monotonic()
    print(  # noqa: T201  # figures to be compared with those before
        f"{_COUNT} claims: bound in {(bound - begin) / _COUNT:.2f} s each, mounted in"
        f" {(mounted - bound) / _COUNT:.2f} s each, deleted in"
        f" {(deleted - deleting) / _COUNT:.2f} s each"
    )
