# SPDX-License-Identifier: Apache-2.0
"""Claims grow: while a pod uses them, and while none does."""

from __future__ import annotations

import pytest

from tests.cluster.tenant import Tenant

MIB = 1 << 20


def filesystem_size(tenant: Tenant, pod: str) -> int:
    """Return the bytes of the filesystem at /data."""
    return int(tenant.run(pod, "echo $(($(stat -f -c '%b * %S' /data)))"))


def test_a_mounted_filesystem_grows(tenant: Tenant) -> None:
    tenant.claim("files", "320Mi")
    tenant.pod("user", "files")
    tenant.ready("user")
    before = filesystem_size(tenant, "user")
    tenant.run(
        "user",
        "head -c 64M /dev/urandom > /data/file; sync; md5sum /data/file > /data/sum",
    )
    tenant.resized("files", "640Mi")
    assert filesystem_size(tenant, "user") >= before + 300 * MIB
    tenant.run("user", "md5sum -c /data/sum")


def test_a_block_device_grows_under_its_user(tenant: Tenant) -> None:
    tenant.claim("device", "64Mi", block=True)
    tenant.pod("user", "device", block=True)
    tenant.ready("user")
    assert tenant.run("user", "blockdev --getsize64 /dev/volume").strip() == str(
        64 * MIB
    )
    tenant.resized("device", "96Mi")
    assert tenant.run("user", "blockdev --getsize64 /dev/volume").strip() == str(
        96 * MIB
    )
    tenant.run(
        "user", "dd if=/dev/zero of=/dev/volume bs=1M seek=95 count=1 conv=fsync"
    )


@pytest.mark.parametrize("storage_class", ["rbdcrypt", "rbdcrypt-ext4"])
def test_a_detached_filesystem_grows_with_its_next_pod(
    tenant: Tenant, storage_class: str
) -> None:
    tenant.claim("files", "320Mi", storage_class=storage_class)
    tenant.pod("first", "files")
    tenant.ready("first")
    before = filesystem_size(tenant, "first")
    tenant.run("first", "echo kept > /data/file")
    tenant.end("first")
    request = {"spec": {"resources": {"requests": {"storage": "640Mi"}}}}
    kube = tenant.kube
    kube.patch("PersistentVolumeClaim", "files", tenant.namespace, request)
    volume = tenant.bound("files")["metadata"]["name"]
    kube.wait(
        "PersistentVolume",
        volume,
        "",
        lambda it: it["spec"]["capacity"]["storage"] == "640Mi",
    )
    tenant.pod("second", "files")
    tenant.ready("second")
    kube.wait(
        "PersistentVolumeClaim",
        "files",
        tenant.namespace,
        lambda it: it["status"]["capacity"]["storage"] == "640Mi",
    )
    assert filesystem_size(tenant, "second") >= before + 250 * MIB
    assert tenant.run("second", "cat /data/file").strip() == "kept"
