# SPDX-License-Identifier: Apache-2.0
"""Kubernetes objects as the driver needs them, and each way in which they differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from csi_driver.doctor import judging
from csi_driver.doctor.check import Check
from csi_driver.doctor.check import Status
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.clusters import parse_clusters

NAME = "csi.rbdcrypt.io"
PREFIX = "csi.storage.k8s.io/"


def clusters() -> Clusters:
    own = {
        "userID": "rbdcrypt",
        "keyFile": "/key",
        "pools": [{"name": "rbd", "namespaces": ["", "tenant"]}],
        "dataPools": ["ec"],
    }
    entry = {"clusterID": "lab", "monitors": ["192.0.2.1"], "rbdcrypt": own}
    return parse_clusters(json.dumps([entry]))


def csi_driver(**spec: Any) -> dict[str, Any]:
    whole = {
        "attachRequired": True,
        "fsGroupPolicy": "File",
        "podInfoOnMount": True,
        "seLinuxMount": True,
        "storageCapacity": False,
    }
    return {"metadata": {"name": NAME}, "spec": whole | spec}


def statuses(found: list[Check]) -> list[str]:
    return [each.status.value for each in found]


def test_the_object_that_the_chart_makes() -> None:
    assert statuses(list(judging.csi_driver(csi_driver(), NAME, "home"))) == ["ok"]


def test_there_is_no_such_object() -> None:
    (check,) = judging.csi_driver(None, NAME, "home")
    assert check.status is Status.FAILED
    assert "install the chart" in check.remedy


@pytest.mark.parametrize(
    ("spec", "status", "text"),
    [
        ({"attachRequired": False}, "failed", "two nodes may be given one volume"),
        ({"fsGroupPolicy": "None"}, "warning", "fsGroupPolicy is 'None'"),
        ({"storageCapacity": True}, "warning", "storageCapacity is True"),
        ({"podInfoOnMount": False}, "warning", "Events name no pods"),
        ({"seLinuxMount": False}, "warning", "seLinuxMount is False"),
        ({"requiresRepublish": True}, "warning", "requiresRepublish is True"),
        ({"volumeLifecycleModes": ["Ephemeral"]}, "warning", "inline volumes"),
    ],
)
def test_a_field_of_another_value(spec: dict[str, Any], status: str, text: str) -> None:
    first, *_ = judging.csi_driver(csi_driver(**spec), NAME, "home")
    assert first.status == status
    assert text in first.found


def test_two_drivers_of_one_name() -> None:
    found = csi_driver()
    notes = {"meta.helm.sh/release-namespace": "elsewhere"}
    found["metadata"]["annotations"] = notes
    (check,) = judging.csi_driver(found, NAME, "home")
    assert check.status is Status.FAILED
    assert "in namespace elsewhere, this driver runs in home" in check.found
    assert statuses(list(judging.csi_driver(found, NAME, "elsewhere"))) == ["ok"]
    # Outside of a pod the own namespace is not known.
    assert statuses(list(judging.csi_driver(found, NAME, ""))) == ["ok"]


@pytest.mark.parametrize(
    ("drivers", "status", "text"),
    [
        ([{"name": NAME, "nodeID": "worker-1"}], "ok", "has registered"),
        ([{"name": "other", "nodeID": "worker-1"}], "failed", "has not registered"),
        ([{"name": NAME, "nodeID": "10.0.0.1"}], "failed", "'10.0.0.1', the driver"),
        (None, "failed", "has not registered"),
    ],
)
def test_a_node_is_known_to_kubelet(
    drivers: list[dict[str, str]] | None, status: str, text: str
) -> None:
    check = judging.csi_node({"spec": {"drivers": drivers}}, NAME, "worker-1")
    assert check.status == status
    assert text in check.found


def test_a_node_without_its_object() -> None:
    assert judging.csi_node(None, NAME, "worker-1").status is Status.FAILED


def secret(purpose: str, name: str = "key", namespace: str = "vault") -> dict[str, str]:
    return {f"{PREFIX}{purpose}-name": name, f"{PREFIX}{purpose}-namespace": namespace}


SECRETS = secret("provisioner-secret") | secret("node-stage-secret")
PLACE = {"clusterID": "lab", "pool": "rbd"}


def judged(parameters: dict[str, str], **fields: Any) -> list[Check]:
    found = {
        "metadata": {"name": "fast"},
        "provisioner": NAME,
        "allowVolumeExpansion": True,
        "parameters": parameters,
    }
    return list(judging.storage_class(found | fields, clusters()))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (PLACE | SECRETS, "encrypted volumes in lab:rbd, Secret vault/key"),
        (PLACE | secret("secret"), "encrypted volumes in lab:rbd"),
        (
            PLACE | {"radosNamespace": "tenant", "encrypted": "false"},
            "plaintext volumes in lab:rbd/tenant",
        ),
        (
            PLACE
            | {
                "passphraseSecretName": "${pvc.name}",
                "passphraseSecretNamespace": "${pvc.namespace}",
                "dataPool": "ec",
            },
            "encrypted volumes in lab:rbd",
        ),
    ],
)
def test_classes_that_work(parameters: dict[str, str], text: str) -> None:
    (check,) = judged(parameters)
    assert check.status is Status.OK
    assert check.found.startswith(text)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (PLACE | SECRETS | {"encrytped": "false"}, "unknown parameter 'encrytped'"),
        ({"pool": "rbd"} | SECRETS, "clusterID is missing"),
        (PLACE | SECRETS | {"clusterID": "other"}, "'other' is not configured"),
        (PLACE | SECRETS | {"pool": "backup"}, "pool 'backup' of cluster 'lab'"),
        (PLACE | SECRETS | {"radosNamespace": "x"}, "pool 'rbd/x' of cluster 'lab'"),
        (PLACE | SECRETS | {"dataPool": "gone"}, "dataPool 'gone'"),
        (PLACE | SECRETS | {"mkfsOptions": "", "stripeCount": "x"}, "stripeCount"),
        (PLACE, "names no provisioner-secret"),
        (PLACE | secret("provisioner-secret"), "names no node-stage-secret"),
        (
            PLACE | secret("provisioner-secret") | secret("node-stage-secret", "b"),
            "made with Secret vault/key and opened with vault/b",
        ),
        (
            PLACE | SECRETS | secret("node-stage-secret", "${pvc.uid}"),
            "the template ${pvc.uid}, which nobody fills in",
        ),
        (
            PLACE | SECRETS | {"passphraseSecretName": "x"},
            "are given together or not at all",
        ),
    ],
)
def test_classes_that_cannot_work(parameters: dict[str, str], text: str) -> None:
    found = judged(parameters)
    assert set(statuses(found)) == {"failed"}
    assert [each for each in found if text in each.found]


def test_a_class_whose_volumes_cannot_grow() -> None:
    good, check = judged(PLACE | SECRETS, allowVolumeExpansion=None)
    assert good.status is Status.OK
    assert (check.status, check.subject) == (Status.WARNING, "fast")


def test_without_a_cluster_config_places_are_not_judged() -> None:
    found = {"metadata": {"name": "x"}, "parameters": PLACE | {"encrypted": "false"}}
    assert Status.FAILED not in statuses(list(judging.storage_class(found, None)))


def test_snapshot_classes_have_no_parameters_of_their_own() -> None:
    found: dict[str, Any] = {"metadata": {"name": "x"}}
    assert judging.snapshot_class(found).status is Status.OK
    found["parameters"] = secret("snapshotter-secret")
    assert judging.snapshot_class(found).status is Status.OK
    found["parameters"]["flatten"] = "true"
    assert "'flatten'" in judging.snapshot_class(found).found


@pytest.mark.parametrize(
    ("parameters", "status"),
    [({"iops": "100", "bandwidth": "1Gi"}, "ok"), ({"bandwith": "1"}, "failed")],
)
def test_attributes_classes(parameters: dict[str, str], status: str) -> None:
    found = {"metadata": {"name": "x"}, "parameters": parameters}
    assert judging.attributes_class(found).status == status


def test_every_secret_of_a_class_is_known() -> None:
    given = SECRETS | {
        "passphraseSecretName": "own",
        "passphraseSecretNamespace": "vault",
    }
    found = judging.named_secrets({"parameters": given})
    assert [(each.purpose, str(each)) for each in found] == [
        ("provisioner-secret", "vault/key"),
        ("node-stage-secret", "vault/key"),
        ("passphraseSecret", "vault/own"),
    ]
