# SPDX-License-Identifier: Apache-2.0
"""Every way in which a pod may have a volume."""

from __future__ import annotations

from tests.cluster.tenant import CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim


def test_a_block_volume_keeps_what_was_written_to_its_ends(tenant: Tenant) -> None:
    tenant.claim("device", "64Mi", block=True)
    tenant.pod("writer", "device", block=True)
    tenant.ready("writer")
    tenant.run(
        "writer",
        "out='of=/dev/volume conv=notrunc,fsync'; printf first | dd $out;"
        "printf last | dd $out bs=1 seek=$((64*1024*1024-4))",
    )
    tenant.end("writer")
    tenant.pod("reader", "device", block=True)
    tenant.ready("reader")
    assert (
        tenant.run("reader", "head -c 5 /dev/volume; tail -c 4 /dev/volume")
        == "firstlast"
    )


def test_a_reader_of_a_block_volume_cannot_write_to_it(tenant: Tenant) -> None:
    tenant.claim("device", "64Mi", block=True)
    tenant.pod("writer", "device", block=True)
    tenant.ready("writer")
    tenant.run("writer", "printf first | dd of=/dev/volume conv=notrunc,fsync")
    tenant.pod("reader", "device", block=True, read_only=True)
    tenant.ready("reader")
    read = "dd if=/dev/volume iflag=direct bs=4096 count=1 2>&1 | head -c 5"
    assert tenant.run("reader", read) == "first"
    status, output = tenant.kube.try_run(
        "reader", tenant.namespace, "printf other | dd of=/dev/volume conv=notrunc"
    )
    assert (status, "Operation not permitted" in output) == (1, True), output
    tenant.run("writer", "printf third | dd of=/dev/volume conv=notrunc,fsync")
    assert tenant.run("reader", read) == "third"


def test_a_second_pod_waits_for_a_read_write_once_pod_volume(tenant: Tenant) -> None:
    tenant.claim("mine", XFS, mode="ReadWriteOncePod")
    tenant.pod("first", "mine")
    tenant.ready("first")
    tenant.pod("second", "mine")
    tenant.kube.wait_event(
        "second", tenant.namespace, "FailedScheduling", "ReadWriteOncePod"
    )
    tenant.end("first")
    tenant.ready("second")


def test_a_read_only_clone_serves_several_pods(tenant: Tenant) -> None:
    tenant.claim("source", XFS)
    tenant.pod("writer", "source")
    tenant.ready("writer")
    tenant.run("writer", "echo shared > /data/file && sync /data/file")
    tenant.claim("many", XFS, mode="ReadOnlyMany", source=from_claim("source"))
    names = ("one", "two", "three")
    for name in names:
        tenant.pod(name, "many", read_only=True)
    for name in names:
        tenant.ready(name)
        assert tenant.run(name, "cat /data/file").strip() == "shared"
        status, _ = tenant.kube.try_run(name, tenant.namespace, "touch /data/new")
        assert status != 0


def test_files_belong_to_the_group_that_the_pod_wants(tenant: Tenant) -> None:
    tenant.claim("files", XFS)
    context = {"runAsUser": 1234, "runAsNonRoot": True, "fsGroup": 4321}
    tenant.pod("user", "files", securityContext=context)
    tenant.ready("user")
    tenant.run("user", "touch /data/file")
    assert tenant.run("user", "stat -c %g /data /data/file").split() == ["4321", "4321"]


def test_a_read_only_mount_cannot_be_written(tenant: Tenant) -> None:
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    tenant.pod("reader", "files", mount={"readOnly": True})
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "kept"
    status, output = tenant.kube.try_run("reader", tenant.namespace, "touch /data/new")
    assert (status, "Read-only file system" in output) == (1, True)


def test_a_sub_path_shows_one_directory(tenant: Tenant) -> None:
    tenant.claim("files", XFS)
    tenant.pod("whole", "files")
    tenant.ready("whole")
    tenant.run("whole", "mkdir /data/part && echo inner > /data/part/file")
    tenant.pod("part", "files", mount={"subPath": "part"})
    tenant.ready("part")
    assert tenant.run("part", "ls /data").strip() == "file"


def test_an_ephemeral_volume_lives_as_long_as_its_pod(tenant: Tenant) -> None:
    template = {
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "resources": {"requests": {"storage": XFS}},
        }
    }
    source = {"ephemeral": {"volumeClaimTemplate": template}}
    tenant.pod_with("user", [source], mount={})
    tenant.ready("user")
    tenant.run("user", "echo scratch > /data/file")
    claim = "user-volume-0"
    volume = tenant.bound(claim)["metadata"]["name"]
    tenant.end("user")
    tenant.kube.wait_gone("PersistentVolumeClaim", claim, tenant.namespace)
    tenant.kube.wait_gone("PersistentVolume", volume)
