# SPDX-License-Identifier: Apache-2.0
"""`kubectl rbdcrypt` on a real cluster: volumes by the names that tenants gave them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import parts
from tests.cluster.kube import Kube
from tests.cluster.pool import CephView
from tests.cluster.tenant import PER_PVC_CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim


def plugin(tenant: Tenant, *words: str, status: int = 0) -> str:
    """Run the plugin in the tenant's namespace and return all that it prints."""
    done = subprocess.run(
        ["kubectl", "rbdcrypt", *words, "--namespace", tenant.namespace],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def shown(tenant: Tenant, claim: str) -> dict[str, Any]:
    """Return what `show` says about a claim."""
    return dict(json.loads(plugin(tenant, "show", claim, "--output", "json")))


def test_a_clone_is_listed_shown_checked_and_flattened(tenant: Tenant) -> None:
    passphrases = [tenant.secret(name) for name in ("source", "copy")]
    tenant.claim("source", XFS, storage_class=PER_PVC_CLASS)
    tenant.pod("writer", "source")
    tenant.ready("writer")
    tenant.run("writer", "echo kept > /data/file && sync /data/file")
    copied = from_claim("source")
    tenant.claim("copy", XFS, storage_class=PER_PVC_CLASS, source=copied)
    tenant.bound("copy")
    listed = plugin(tenant, "list")
    assert "source" in listed
    assert "lab-node" in listed
    before = shown(tenant, "copy")
    assert len(before["layers"]) == 2
    assert "source" in plugin(tenant, "show", "copy")
    plugin(tenant, "check", "copy")
    plugin(tenant, "flatten", "copy")
    for reason in ("FlattenStarted", "Flattened"):
        assert tenant.told("PersistentVolumeClaim", "copy", reason)["type"] == "Normal"
    after = shown(tenant, "copy")
    assert len(after["layers"]) == 1
    tenant.pod("reader", "copy")
    tenant.ready("reader")
    assert tenant.run("reader", "cat /data/file").strip() == "kept"
    everything = listed + json.dumps([before, after])
    assert not any(each in everything for each in passphrases)


def test_what_cannot_be_shown_is_one_sentence(tenant: Tenant) -> None:
    output = plugin(tenant, "show", "nothing", status=1)
    assert "nothing" in output
    assert output.count("\n") == 1


@pytest.fixture
def small_objects(kube: Kube) -> Iterator[str]:
    """Give a class of volumes with so many objects that a flatten takes a while."""
    found = kube.get("StorageClass", PER_PVC_CLASS)
    name = f"{PER_PVC_CLASS}-small-objects"
    kube.apply(
        {
            **{key: found[key] for key in ("apiVersion", "kind", "provisioner")},
            "metadata": {"name": name},
            "parameters": {**found["parameters"], "objectSize": str(64 << 10)},
        }
    )
    yield name
    kube.delete("StorageClass", name)


def test_ctrl_c_ends_the_command_in_the_pod(
    tenant: Tenant, ceph: CephView, small_objects: str
) -> None:
    for name in ("source", "copy"):
        tenant.secret(name)
    tenant.claim("source", XFS, storage_class=small_objects)
    tenant.pod("writer", "source")
    tenant.ready("writer")
    tenant.run("writer", "dd if=/dev/urandom of=/data/file bs=1M count=80 && sync")
    tenant.claim("copy", XFS, storage_class=small_objects, source=from_claim("source"))
    tenant.bound("copy")
    image = shown(tenant, "copy")["image"].rpartition("/")[2]
    words = ["kubectl", "rbdcrypt", "flatten", "copy"]
    with (
        ceph.slowed(image),
        subprocess.Popen(
            [*words, "--namespace", tenant.namespace],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as process,
    ):
        tenant.told("PersistentVolumeClaim", "copy", "FlattenStarted")
        assert process.poll() is None, "the flatten ended too soon"
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (130, "")
        assert "goes on with what is left" in errors
    # The command in the pod has ended in order: it holds nothing any more.
    found = shown(tenant, "copy")
    assert (found["flatten"], found["lockOwner"], found["depth"]) == (None, None, 1)
    plugin(tenant, "flatten", "copy")
    assert shown(tenant, "copy")["depth"] == 0
    told = tenant.told("PersistentVolumeClaim", "copy", "FlattenProgress")
    assert told["type"] == "Normal"


def test_the_doctor_finds_everything_in_order(kube: Kube) -> None:
    for component in ("controller", "node", "datapath"):
        parts.wait_until_ready(kube, component)
    done = subprocess.run(
        ["kubectl", "rbdcrypt", "doctor", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    found = json.loads(done.stdout)
    failed = [
        (place["pod"], check)
        for place in found["places"]
        for check in place["checks"]
        if check["status"] == "failed"
    ]
    assert not failed
    assert (done.returncode, found["ok"]) == (0, True)
    components = {each["component"] for each in found["places"]}
    assert components == {None, "controller", "node", "datapath"}
