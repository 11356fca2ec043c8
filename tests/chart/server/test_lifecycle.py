# SPDX-License-Identifier: Apache-2.0
"""helm install, upgrade, rollback and uninstall, against a real API server."""

from __future__ import annotations

import json

import pytest
import yaml
from charttools import rendering
from charttools.rendering import HelmError

from tests.chart.rendered import Object
from tests.chart.server.api_server import ApiServer
from tests.chart.server.api_server import snapshot_crds
from tests.chart.server.conftest import Place

CRD = "snapshot.storage.k8s.io_volumesnapshotclasses.yaml"


def _made(place: Place) -> list[Object]:
    text = place.run("get", "manifest", place.release)
    return [each for each in yaml.safe_load_all(text) if each]


def _exists(api: ApiServer, each: Object) -> bool:
    group = each["apiVersion"].rpartition("/")[0]
    kind = f"{each['kind']}.{group}" if group else each["kind"]
    namespace = each["metadata"].get("namespace", "default")
    words = ("get", kind, each["metadata"]["name"], "--namespace", namespace)
    return bool(api.kubectl(*words, "--ignore-not-found", "--output", "name"))


def _config(place: Place) -> Object:
    name = f"{place.release}-rbdcrypt-csi-config"
    words = ("get", "configmap", name, "--namespace", place.namespace)
    text = place.api.kubectl(*words, "--output", "jsonpath={.data.config\\.json}")
    found: Object = json.loads(text)[0]
    return found


def test_an_install_makes_everything_and_says_the_next_command(place: Place) -> None:
    said = place.helm("install")
    made = _made(place)
    assert len(made) >= 15
    assert all(_exists(place.api, each) for each in made)
    assert f"--namespace {place.namespace} create secret generic rbdcrypt-ceph" in said
    assert "create secret generic rbdcrypt-passphrase" in said
    assert f"storageClassName: {place.storage_class}" in said
    assert "NOTE: " not in said


def test_an_upgrade_and_a_rollback_change_what_values_change(place: Place) -> None:
    place.helm("install")
    assert _config(place)["monitors"] == ["192.0.2.1:3300"]
    said = place.helm("upgrade", "--set", "clusters[0].monitors={192.0.2.9:3300}")
    assert _config(place)["monitors"] == ["192.0.2.9:3300"]
    assert "The datapath pods were left as they are" in said
    place.run("rollback", place.release, "1")
    assert _config(place)["monitors"] == ["192.0.2.1:3300"]


def test_an_uninstall_leaves_volumes_claims_and_secrets_alone(place: Place) -> None:
    place.helm("install")
    made = _made(place)
    space = place.namespace
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{space}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": place.storage_class,
            "csi": {"driver": place.driver, "volumeHandle": "v1:lab:1::1"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "mine", "namespace": space},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": place.storage_class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "rbdcrypt-passphrase", "namespace": space},
        "stringData": {"encryptionPassphrase": "made up"},
    }
    place.api.apply(volume, claim, secret)
    place.run("uninstall", place.release)
    assert all(_exists(place.api, each) for each in (volume, claim, secret))
    assert not [each for each in made if _exists(place.api, each)]
    place.helm("install")


def test_a_second_driver_of_the_same_name_is_refused(place: Place) -> None:
    place.helm("install")
    with pytest.raises(HelmError) as caught:
        place.run(
            *("install", "another", *_chart_and_values(place)),
            *("--set", f"driverName={place.driver}"),
        )
    said = str(caught.value)
    assert f"driverName: CSIDriver {place.driver} exists in this cluster" in said
    assert f"release {place.release} in namespace {place.namespace}" in said
    assert "give this release another driverName" in said
    # The release itself is not refused.
    place.helm("upgrade")


def test_a_driver_that_helm_did_not_make_is_not_replaced(place: Place) -> None:
    driver = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": {"name": place.driver},
        "spec": {"attachRequired": False},
    }
    place.api.apply(driver)
    with pytest.raises(HelmError, match="belongs to something other than Helm"):
        place.helm("install")
    place.api.kubectl("delete", "csidriver", place.driver)


def test_two_drivers_of_different_names_get_along(place: Place) -> None:
    place.helm("install")
    other = f"other-{place.driver}"
    place.run(
        *("install", "another", *_chart_and_values(place)),
        *("--set", f"driverName={other}"),
        *("--set", f"storageClasses[0].name=other-{place.storage_class}"),
        *("--set", "paths.state=/var/lib/other,paths.run=/run/other"),
        *("--set", "node.httpPort=9781,datapath.httpPort=9782"),
    )
    drivers = place.api.names("csidriver")
    assert {f"csidriver.storage.k8s.io/{each}" for each in (other, place.driver)} <= (
        drivers
    )
    place.run("uninstall", "another")


CHANGES = {
    "fullnameOverride": ("another", "end the I/O of every mounted volume"),
    "driverName": ("another.example.org", "stands in every PersistentVolume"),
    "paths.run": ("/run/another", "would not find the datapaths that run"),
    "paths.state": ("/var/lib/another", "would be lost"),
    "paths.kubelet": ("/var/data/kubelet", "could not be unmounted"),
}


def test_an_upgrade_that_would_end_io_is_refused(place: Place) -> None:
    place.helm("install")
    before = place.run("get", "manifest", place.release)
    for path, (value, reason) in CHANGES.items():
        with pytest.raises(HelmError) as caught:
            place.helm("upgrade", "--set", f"{path}={value}")
        said = str(caught.value)
        assert f"{path}: " in said
        assert reason in said
    assert place.run("get", "manifest", place.release) == before
    said = place.helm("upgrade", "--set", "paths.modules=/usr/lib/modules")
    assert "WARNING: where nodePlacement was narrowed" in said


CLASS_CHANGES = {
    "parameters": "storageClasses[0].parameters.flattenPolicy=always",
    "reclaimPolicy": "storageClasses[0].reclaimPolicy=Retain",
    "volumeBindingMode": "storageClasses[0].volumeBindingMode=WaitForFirstConsumer",
}


def test_a_class_that_changed_is_refused_before_anything_is_changed(
    place: Place,
) -> None:
    place.helm("install")
    for field, change in CLASS_CHANGES.items():
        with pytest.raises(HelmError) as caught:
            place.helm(
                *("upgrade", "--set", change),
                *("--set", "clusters[0].monitors={192.0.2.9:3300}"),
            )
        said = str(caught.value)
        assert f"storageClasses.0.{field}: class {place.storage_class!r}" in (
            said.replace('"', "'")
        )
        assert "make a class of another name" in said
        assert _config(place)["monitors"] == ["192.0.2.1:3300"]
    # What can be changed is changed.
    free = "storageClasses[0].allowVolumeExpansion=false,storageClasses[0].default=true"
    place.helm("upgrade", "--set", free)


def _volume(place: Place, name: str, cluster: str) -> str:
    """Make a PersistentVolume of a cluster, as the provisioner does."""
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "64Mi"},
            "csi": {"driver": place.driver, "volumeHandle": f"v1:{cluster}:1::12ab"},
        },
    }
    place.api.apply(made)
    return name


def test_a_cluster_is_kept_as_long_as_it_has_volumes(place: Place) -> None:
    place.helm("install")
    cluster = _config(place)["clusterID"]
    renamed = (
        *("--set", "clusters[0].clusterID=other"),
        *("--set", "storageClasses=null"),
    )
    volume = _volume(place, f"volume-of-{place.namespace}", cluster)
    _volume(place, f"not-of-{place.namespace}", "elsewhere")
    with pytest.raises(HelmError) as caught:
        place.helm("upgrade", *renamed)
    said = str(caught.value)
    assert all(each in said for each in (cluster, volume, "keep the cluster"))
    assert _config(place)["clusterID"] == cluster
    patch = '{"metadata":{"finalizers":null}}'  # no controller is there to do it
    place.api.kubectl("patch", "persistentvolume", volume, "--patch", patch)
    place.api.kubectl("delete", "persistentvolume", volume)
    place.helm("upgrade", *renamed)
    assert _config(place)["clusterID"] == "other"


def test_limits_of_a_class_are_not_changed(place: Place) -> None:
    name = f"volumeAttributesClasses[0].name=slow-{place.namespace}"
    limit = "volumeAttributesClasses[0].parameters.iops"
    place.helm("install", "--set", name, "--set-string", f"{limit}=500")
    place.helm("upgrade", "--set", name, "--set-string", f"{limit}=500")
    with pytest.raises(HelmError, match=r"volumeAttributesClasses\.0\.parameters"):
        place.helm("upgrade", "--set", name, "--set-string", f"{limit}=501")


def test_a_release_may_be_installed_anew_with_other_paths(place: Place) -> None:
    words = [f"{path}={value}" for path, (value, _) in CHANGES.items()]
    changed = [word for each in words for word in ("--set", each)]
    place.helm("install")
    place.run("uninstall", place.release)
    place.helm("install", *changed[:2], *changed[4:])
    place.helm("upgrade", *changed[:2], *changed[4:])


def _chart_and_values(place: Place) -> tuple[str, ...]:
    values = str(rendering.cases()["minimal"])
    spaces = ("--set", f"secrets.namespaces={{{place.namespace}}}")
    return (str(rendering.CHART), "--values", values, *spaces)


def test_notes_know_a_secret_that_is_there(place: Place) -> None:
    place.api.kubectl(
        *("create", "secret", "generic", "rbdcrypt-ceph"),
        *("--namespace", place.namespace, "--from-literal=userID=x"),
    )
    said = place.helm("install")
    assert "Secret rbdcrypt-ceph of cluster lab is there." in said
    assert "ceph auth print-key" not in said


def test_notes_warn_of_secrets_that_nobody_may_read(place: Place) -> None:
    said = place.helm("install", "--set", "secrets.namespaces=null")
    assert "NOTE: StorageClasses name Secrets, but the controller may read none" in said


def test_notes_warn_of_a_namespace_that_forbids_the_pods(place: Place) -> None:
    label = "pod-security.kubernetes.io/enforce=baseline"
    place.api.kubectl("label", "namespace", place.namespace, label)
    said = place.helm("install")
    assert f"NOTE: namespace {place.namespace} enforces the pod security level" in said
    assert "pod-security.kubernetes.io/enforce=privileged" in said


def test_snapshot_classes_come_with_their_crd(place: Place) -> None:
    wanted = f"snapshots-of-{place.namespace}"
    words = ("--set", f"volumeSnapshotClasses[0].name={wanted}")
    said = place.helm("install", *words)
    assert "NOTE: the cluster has no snapshot CRDs" in said
    crd = yaml.safe_load(snapshot_crds().joinpath(CRD).read_text())
    name = crd["metadata"]["name"]
    place.api.apply(crd)
    place.api.kubectl(
        *("wait", "--for=condition=Established", "--timeout=30s"), f"crd/{name}"
    )
    said = place.helm("upgrade", *words)
    assert "NOTE: " not in said
    made = f"volumesnapshotclass.snapshot.storage.k8s.io/{wanted}"
    assert made in place.api.names("volumesnapshotclass")
    place.run("uninstall", place.release)
    place.api.kubectl("delete", "crd", name)
