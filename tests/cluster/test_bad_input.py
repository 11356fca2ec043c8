# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said where its owner looks: in an Event of the claim or pod."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.kube import Kube
from tests.cluster.tenant import PER_PVC_CLASS
from tests.cluster.tenant import XFS
from tests.cluster.tenant import Tenant
from tests.cluster.tenant import from_claim

_CLASS: Final = "wrong"


@pytest.fixture
def wrong_class(kube: Kube) -> Iterator[str]:
    """Give a class with a parameter that nobody knows."""
    kube.apply(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": _CLASS},
            "provisioner": "csi.rbdcrypt.io",
            "parameters": {"clusterID": "lab", "pool": "rbd", "fastness": "high"},
        }
    )
    yield _CLASS
    kube.delete("StorageClass", _CLASS)


def test_an_unknown_parameter_is_named(tenant: Tenant, wrong_class: str) -> None:
    tenant.claim("files", storage_class=wrong_class)
    tenant.kube.wait_event("files", tenant.namespace, "ProvisioningFailed", "fastness")


def test_a_missing_secret_is_named_and_waited_for(tenant: Tenant) -> None:
    tenant.claim("late", XFS, storage_class=PER_PVC_CLASS)
    tenant.kube.wait_event("late", tenant.namespace, "ProvisioningFailed", '"late"')
    tenant.secret("late")
    tenant.bound("late")


def test_a_source_secret_that_may_not_be_read_names_the_missing_role(
    tenant: Tenant,
) -> None:
    tenant.secret("source")
    tenant.claim("source", XFS, storage_class=PER_PVC_CLASS)
    tenant.bound("source")
    tenant.secret("copy")
    with only_secret(tenant.kube, "copy"):
        source = from_claim("source")
        tenant.claim("copy", XFS, storage_class=PER_PVC_CLASS, source=source)
        missing = ("Role", f"in namespace {tenant.namespace}", "secrets", "source")
        told = tenant.told("PersistentVolumeClaim", "copy", "CloneRefused")
        assert [word for word in missing if word not in told["message"]] == []
        assert told["type"] == "Warning"
        assert told["involvedObject"]["uid"] == tenant.claim_uid("copy")
    tenant.bound("copy")


@contextlib.contextmanager
def only_secret(kube: Kube, name: str) -> Iterator[None]:
    """Let the controller read no Secrets but those of one name."""
    role = "rbdcrypt-csi-controller"
    rules = kube.get("ClusterRole", role)["rules"]
    narrowed = [
        {**each, "resourceNames": [name]} if each["resources"] == ["secrets"] else each
        for each in rules
    ]
    assert narrowed != rules
    kube.patch("ClusterRole", role, "", {"rules": narrowed})
    try:
        yield
    finally:
        kube.patch("ClusterRole", role, "", {"rules": rules})
