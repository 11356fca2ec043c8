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

_WRITER = """
n=0
cd /data
while :; do
  n=$((n+1)); name=$((n % 40))
  dd if=/dev/urandom of=block-$name bs=256K count=1 conv=fsync 2>/dev/null \
    && sha256sum block-$name > new && sync new && mv new sum-$name \
    && echo $n > /tmp/written || echo $n >> /tmp/failed
done
"""

pytestmark = pytest.mark.usefixtures("restless_controllers")


def written(tenant: Tenant) -> int:
    """Return how many blocks the writer has written."""
    return int(tenant.run("writer", "cat /tmp/written"))


@pytest.fixture
def writer(tenant: Tenant) -> Tenant:
    """Give a tenant whose pod writes blocks and their checksums without end."""
    tenant.claim("files", XFS)
    tenant.pod("writer", "files", script=_WRITER)
    tenant.ready("writer")
    return tenant


@pytest.mark.parametrize("component", ["node", "controller"])
def test_a_writer_notices_nothing_of_a_replaced_pod(
    writer: Tenant, component: str
) -> None:
    parts.replace(writer.kube, component)
    count = written(writer)
    writer.run("writer", "sleep 2; test ! -e /tmp/failed")
    assert written(writer) > count
    writer.end("writer")
    writer.pod("reader", "files")
    writer.ready("reader")
    whole = "cd /data && for s in sum-*; do sha256sum -c $s || exit 1; done"
    assert "OK" in writer.run("reader", whole)


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
    writer.ready("again", seconds=120)
    assert writer.run("again", "cat /data/before") == before
    writer.run("again", "echo more > /data/more && sync /data/more")
