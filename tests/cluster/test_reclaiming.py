# SPDX-License-Identifier: Apache-2.0
"""What becomes of an image when its claim, or all around it, goes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rados
import rbd
import yaml

from tests.cluster.kube import PATIENCE
from tests.cluster.kube import Object
from tests.cluster.pool import CephView
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant

pytestmark = pytest.mark.usefixtures("restless_controllers")


def image_of(volume: Object) -> str:
    """Return the RBD image id in a volume handle."""
    return str(volume["spec"]["csi"]["volumeHandle"]).rpartition(":")[2]


def wait_until_empty(ceph: CephView, before: set[str]) -> None:
    """Wait until the collector has removed what was not there before."""
    deadline = time.monotonic() + PATIENCE
    while left := set(ceph.images()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.3)


def test_a_deleted_claim_takes_its_image_along(tenant: Tenant, ceph: CephView) -> None:
    before = set(ceph.images())
    tenant.claim("files", XFS)
    tenant.bound("files")
    assert len(set(ceph.images()) - before) == 1
    tenant.forget("PersistentVolumeClaim", "files")
    wait_until_empty(ceph, before)


def test_a_retained_volume_can_be_claimed_again(tenant: Tenant) -> None:
    tenant.claim("files", XFS)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    volume = tenant.bound("files")
    name = volume["metadata"]["name"]
    retain = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    tenant.kube.patch("PersistentVolume", name, "", retain)
    tenant.end("writer")
    tenant.forget("PersistentVolumeClaim", "files")
    tenant.kube.wait(
        "PersistentVolume", name, "", lambda it: it["status"]["phase"] == "Released"
    )
    tenant.kube.patch("PersistentVolume", name, "", {"spec": {"claimRef": None}})
    tenant.claim("again", XFS, volumeName=name)
    tenant.bound("again")
    delete = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    tenant.kube.patch("PersistentVolume", name, "", delete)
    tenant.pod("reader", "again")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "kept"


def test_a_namespace_goes_with_its_secret_first(tenant: Tenant, ceph: CephView) -> None:
    before = set(ceph.images())
    tenant.claim("files", XFS)
    tenant.pod("user", "files")
    tenant.ready("user")
    tenant.forget("Secret", "rbdcrypt-passphrase")
    tenant.kube.delete("Namespace", tenant.namespace)
    tenant.kube.wait_gone("Namespace", tenant.namespace)
    wait_until_empty(ceph, before)


def formatted_by_hand(image: str, passphrase: str, scratch: Path) -> None:
    """Make an encrypted image with ext4 as one does without the driver."""
    path = f"rbd/{image}"
    subprocess.run(["rbd", "create", "--size", "80M", path], check=True)
    subprocess.run(
        ["rbd", "encryption", "format", path, "luks2", "/dev/stdin"],
        input=passphrase.encode(),
        check=True,
    )
    with (
        rados.Rados(conffile=os.environ["CEPH_CONF"]) as cluster,
        cluster.open_ioctx("rbd") as context,
        rbd.Image(context, image) as opened,
    ):
        opened.encryption_load(rbd.RBD_ENCRYPTION_FORMAT_LUKS2, passphrase)
        content = scratch / "ext4"
        with content.open("wb") as file:
            file.truncate(opened.size())
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", content], check=True)
        opened.write(content.read_bytes(), 0)


def test_an_image_that_others_formatted_is_used_as_a_static_volume(
    tenant: Tenant, tmp_path: Path
) -> None:
    passphrase = tenant.secret("foreign")
    image = f"foreign-{tenant.namespace}"
    formatted_by_hand(image, passphrase, tmp_path)
    adopt = [
        *(sys.executable, "-m", "csi_driver", "volume", "adopt", image),
        *("--cluster", "lab", "--pool", "rbd"),
        *("--secret", f"{tenant.namespace}/foreign"),
    ]
    done = subprocess.run(adopt, capture_output=True, text=True, check=True)
    manifest = yaml.safe_load(done.stdout)
    manifest["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    tenant.kube.apply(manifest)
    name = manifest["metadata"]["name"]
    tenant.claim("files", "60Mi", storage_class="", volumeName=name)
    tenant.pod("writer", "files")
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    tenant.end("writer")
    tenant.pod("reader", "files")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "kept"
