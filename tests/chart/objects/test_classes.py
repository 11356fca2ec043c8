# SPDX-License-Identifier: Apache-2.0
"""Classes and the CSIDriver object, against what the driver reads and does."""

from __future__ import annotations

from pathlib import Path

import pytest
from charttools import rendering

import csi_driver
from csi_driver.domain import class_secrets
from csi_driver.domain.class_secrets import USED
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.limits import IoLimits
from csi_driver.domain.parameters import check_snapshot_parameters
from csi_driver.domain.parameters import parse_parameters
from csi_driver.domain.parameters import without_claim
from csi_driver.rpc.controller import CAPABILITIES
from csi_driver.rpc.stubs import csi_pb2
from csi_driver.settings import DRIVER_NAME
from tests.chart import rendered


@pytest.mark.parametrize("case", rendered.CASES)
def test_the_driver_understands_every_class(case: str) -> None:
    for each in rendered.objects(case, "StorageClass"):
        assert each["provisioner"] == DRIVER_NAME
        parse_parameters(without_claim(each["parameters"]))
    for each in rendered.objects(case, "VolumeSnapshotClass"):
        check_snapshot_parameters(each.get("parameters", {}))
    for each in rendered.objects(case, "VolumeAttributesClass"):
        NO_LIMITS.changed_by(each["parameters"])


def test_limits_are_what_values_say() -> None:
    found = rendered.one(rendered.objects("everything", "VolumeAttributesClass"))
    limits = NO_LIMITS.changed_by(found["parameters"])
    assert limits == IoLimits(iops=500, bandwidth=50 << 20)


def test_a_secret_goes_to_the_calls_that_read_it() -> None:
    """NodePublish stages again what a dead datapath has lost; no other reads one."""
    found = rendered.one(rendered.objects("minimal", "StorageClass"))
    named = class_secrets.templates(found["parameters"])
    assert {each.purpose for each in named} == {each.name for each in USED}
    for each in named:
        assert str(each) == "${pvc.namespace}/rbdcrypt-passphrase"


@pytest.mark.parametrize("case", rendered.CASES)
def test_templates_of_secrets_are_filled_in_by_somebody(case: str) -> None:
    for found in rendered.objects(case, "StorageClass"):
        for each in class_secrets.templates(found["parameters"]):
            assert not list(each.faults())


def test_a_class_can_name_a_secret_for_each_claim() -> None:
    found = rendered.objects("everything", "StorageClass")[0]["parameters"]
    assert found["csi.storage.k8s.io/node-stage-secret-name"] == "${pvc.name}"
    assert found["csi.storage.k8s.io/node-stage-secret-namespace"] == "${pvc.namespace}"


def test_volumes_grow_unless_a_class_says_otherwise() -> None:
    (first, second) = rendered.objects("everything", "StorageClass")
    assert first["allowVolumeExpansion"] is False
    assert second["allowVolumeExpansion"] is True


def test_defaults_are_annotations() -> None:
    storage = rendered.objects("everything", "StorageClass")[0]["metadata"]
    name = "storageclass.kubernetes.io/is-default-class"
    assert storage["annotations"][name] == "true"
    snapshots = rendered.one(rendered.objects("everything", "VolumeSnapshotClass"))
    name = "snapshot.storage.kubernetes.io/is-default-class"
    assert snapshots["metadata"]["annotations"][name] == "true"
    assert (
        "annotations" not in rendered.objects("minimal", "StorageClass")[0]["metadata"]
    )


def test_snapshot_classes_wait_for_their_crd() -> None:
    values = rendering.cases()["ceph-csi"]
    without = rendered.parsed(rendering.template(values, apis=()))
    assert not [each for each in without if each["kind"] == "VolumeSnapshotClass"]
    assert rendered.objects("ceph-csi", "VolumeSnapshotClass")
    whole = f"{rendering.SNAPSHOTS}/VolumeSnapshotClass"
    found = rendered.parsed(rendering.template(values, apis=(whole,)))
    assert [each for each in found if each["kind"] == "VolumeSnapshotClass"]


def test_the_csidriver_object_says_what_the_driver_does() -> None:
    found = rendered.one(rendered.objects("minimal", "CSIDriver"))
    assert found["metadata"]["name"] == DRIVER_NAME
    spec = found["spec"]
    assert spec["attachRequired"] is True
    assert spec["fsGroupPolicy"] == "File"
    assert spec["seLinuxMount"] is True
    assert spec["volumeLifecycleModes"] == ["Persistent"]
    assert spec["requiresRepublish"] is False


def test_capacity_is_published_by_nobody() -> None:
    """csi-provisioner makes and deletes it in turn for a driver without topology."""
    assert csi_pb2.ControllerServiceCapability.RPC.GET_CAPACITY in CAPABILITIES
    found = rendered.one(rendered.objects("minimal", "CSIDriver"))
    assert found["spec"]["storageCapacity"] is False
    containers = rendered.pod("minimal", "controller")["containers"]
    provisioner = rendered.one_named(containers, "csi-provisioner")
    assert not [each for each in provisioner["args"] if "capacity" in each]


def test_pods_are_told_of_if_and_only_if_the_driver_reads_that() -> None:
    sources = Path(csi_driver.__file__).parent.rglob("*.py")
    reads = any("csi.storage.k8s.io/pod.name" in path.read_text() for path in sources)
    found = rendered.one(rendered.objects("minimal", "CSIDriver"))
    assert found["spec"]["podInfoOnMount"] is reads
