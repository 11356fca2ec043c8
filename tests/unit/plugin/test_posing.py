# SPDX-License-Identifier: Apache-2.0
"""A pod that has a controller's labels and is none gets no Secret and no command."""

from __future__ import annotations

import json
import subprocess
from typing import Final

import pytest

from tests.unit.plugin.answers import FIRST
from tests.unit.plugin.cluster import CONTROLLER
from tests.unit.plugin.cluster import DRIVER
from tests.unit.plugin.cluster import HOME
from tests.unit.plugin.cluster import Cluster

FORBIDDEN: Final = (
    'Error from server (Forbidden): csidrivers.storage.k8s.io is forbidden: User "poor"'
    ' cannot list resource "csidrivers" in API group "storage.k8s.io" at the cluster'
    " scope"
)
NAME_IT: Final = "name the driver's own namespace with --driver-namespace"


@pytest.fixture
def posed(cluster: Cluster) -> Cluster:
    """Give a cluster in which a tenant's pods have all labels of the controller."""
    cluster.claim("data", FIRST, secret="key")
    cluster.secret("key", {"encryptionPassphrase": "canary"})
    for release in ("storage", "a-release"):
        cluster.driver_pod(f"a-{release}", namespace="tenant", release=release)
    done = {"id": FIRST, "ancestors": 0}
    cluster.answers("volume flatten", json.dumps(done) + "\n")
    return cluster


def asked(cluster: Cluster) -> list[str]:
    """Return the pods in which a command was run."""
    calls = [each for each in cluster.calls if "exec" in each]
    words = [(each[each.index("--container=controller") - 1], each) for each in calls]
    return [f"{'tenant/' * ('--namespace=tenant' in each)}{pod}" for pod, each in words]


def refused(cluster: Cluster, done: subprocess.CompletedProcess[str]) -> str:
    """Return the sentence of a refusal; no Secret was read and no command run."""
    assert done.returncode == 1
    assert not done.stdout
    assert not cluster.execs
    assert not [each for each in cluster.calls if "secret" in each]
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize("running", [True, False])
def test_the_passphrase_goes_to_the_release_s_own_namespace(
    posed: Cluster, *, running: bool
) -> None:
    if not running:
        posed.objects = [
            e for e in posed.objects if e["metadata"]["name"] != CONTROLLER
        ]
    done = posed.run("flatten", "data")
    if running:
        assert done.returncode == 0, done.stderr
        assert asked(posed) == [CONTROLLER]
    else:
        found = refused(posed, done)
        assert f"in namespace {HOME} as release storage" in found


def test_a_pod_of_another_release_in_the_namespace_gets_none(posed: Cluster) -> None:
    posed.driver_pod("a-other", release="other")
    assert posed.run("flatten", "data").returncode == 0
    assert asked(posed) == [CONTROLLER]


def test_a_tenant_s_namespace_is_refused_where_helm_names_another(
    posed: Cluster,
) -> None:
    done = posed.run("flatten", "data", "--driver-namespace", "tenant")
    found = refused(posed, done)
    assert found.startswith("no rbdcrypt-csi is installed in namespace tenant:")


@pytest.mark.parametrize("kept", [True, False], ids=["not by Helm", "no object"])
def test_without_helm_s_note_the_user_names_the_namespace(
    posed: Cluster, *, kept: bool
) -> None:
    posed.remove("CSIDriver")
    if kept:
        posed.csi_driver(namespace="")
    found = refused(posed, posed.run("flatten", "data"))
    assert found.endswith(NAME_IT)
    assert (f"CSIDriver {DRIVER} has no annotations meta.helm.sh/" in found) is kept
    done = posed.run("flatten", "data", "--driver-namespace", HOME)
    assert done.returncode == 0, done.stderr
    assert asked(posed) == [CONTROLLER]


def test_without_the_right_to_look_the_user_names_the_namespace(posed: Cluster) -> None:
    posed.refuse = {"csidrivers": FORBIDDEN}
    found = refused(posed, posed.run("flatten", "data"))
    assert "csidrivers.storage.k8s.io is forbidden" in found
    assert found.endswith(f"for that right, or {NAME_IT}")
    done = posed.run("flatten", "data", "--driver-namespace", HOME)
    assert done.returncode == 0, done.stderr
    assert asked(posed) == [CONTROLLER]


def test_another_driver_s_object_says_nothing(posed: Cluster) -> None:
    posed.remove("CSIDriver")
    posed.csi_driver("rbd.csi.ceph.com", namespace="tenant", release="storage")
    posed.objects[-1]["metadata"]["labels"] = {"app.kubernetes.io/name": "ceph-csi-rbd"}
    assert refused(posed, posed.run("flatten", "data")).endswith(NAME_IT)


def test_a_driver_that_helm_did_not_make_is_found_beside_one_that_it_did(
    posed: Cluster,
) -> None:
    posed.csi_driver("other.example.com", namespace="")
    posed.driver_pod("plain", namespace="plain", release="plain")
    posed.answers("volume list", [])
    done = posed.run("list", "--driver-namespace", "plain")
    assert done.returncode == 0, done.stderr
    assert asked(posed) == ["plain"]
