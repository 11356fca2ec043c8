# SPDX-License-Identifier: Apache-2.0
"""Every object is one of each supported Kubernetes, without a field too many."""

from __future__ import annotations

import re

import kubernetes_validate
import pytest
import yaml

from tests.chart import rendered
from tests.chart.rendered import Object

_OLDEST = re.search(r">=(\d+\.\d+)\.0-0", rendered.file("Chart.yaml"))
SUPPORTED = sorted(
    {
        version.rpartition(".")[0]
        for version in kubernetes_validate.utils.all_versions()
        if _OLDEST and float(version.rpartition(".")[0]) >= float(_OLDEST[1])
    }
)

NOT_OF_KUBERNETES = {
    ("monitoring.coreos.com/v1", "PodMonitor"),
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass"),
}
"""Kinds that come with CRDs; the API server's tests know VolumeSnapshotClass."""


def _known(found: list[Object]) -> list[Object]:
    return [
        each
        for each in found
        if (each["apiVersion"], each["kind"]) not in NOT_OF_KUBERNETES
    ]


def test_the_supported_versions_are_those_from_the_chart_s_oldest_on() -> None:
    assert SUPPORTED[0] == "1.34"
    assert len(SUPPORTED) >= 4


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("case", rendered.CASES)
def test_every_object_is_valid(case: str, version: str) -> None:
    found = _known(rendered.objects(case))
    assert len(found) >= 15
    for each in found:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_field_too_many_would_be_found() -> None:
    daemon_set = rendered.component("minimal", "node")
    daemon_set["spec"]["template"]["spec"]["containers"][0]["imagePullpolicy"] = "x"
    with pytest.raises(kubernetes_validate.ValidationError, match="imagePullpolicy"):
        kubernetes_validate.validate(daemon_set, SUPPORTED[0], strict=True)


@pytest.mark.parametrize("case", rendered.CASES)
def test_no_object_is_there_twice(case: str) -> None:
    names = [
        (each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"])
        for each in rendered.objects(case)
    ]
    assert sorted(map(str, names)) == sorted(set(map(str, names)))


@pytest.mark.parametrize("case", rendered.CASES)
def test_every_object_carries_the_chart_s_labels(case: str) -> None:
    for each in rendered.objects(case):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "rbdcrypt-csi"
        assert labels["app.kubernetes.io/instance"] == "rbdcrypt-csi"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"


def test_labels_of_values_reach_every_object_and_pod() -> None:
    for each in rendered.objects("everything"):
        assert each["metadata"]["labels"]["team"] == "storage"
    for name in rendered.COMPONENTS:
        pod = rendered.component("everything", name)["spec"]["template"]
        assert pod["metadata"]["labels"]["team"] == "storage"


def test_labels_of_values_do_not_replace_the_chart_s() -> None:
    name = '{"app.kubernetes.io/name": "other", "app.kubernetes.io/component": "x"}'
    text = rendered.rendered_with(f"commonLabels={name}", f"node.podLabels={name}")
    for each in rendered.parsed(text, "DaemonSet"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "rbdcrypt-csi"
        assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("name", rendered.COMPONENTS)
def test_pods_are_found_by_their_component(name: str) -> None:
    found = rendered.component("minimal", name)["spec"]
    wanted = {
        "app.kubernetes.io/name": "rbdcrypt-csi",
        "app.kubernetes.io/instance": "rbdcrypt-csi",
        "app.kubernetes.io/component": name,
    }
    assert found["selector"]["matchLabels"] == wanted
    assert wanted.items() <= found["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("case", rendered.CASES)
def test_no_text_is_taken_for_another_type(case: str) -> None:
    """Labels, annotations and parameters are strings, whatever values hold."""
    for each in rendered.objects(case):
        texts = [each["metadata"]["labels"], each["metadata"].get("annotations", {})]
        texts += [each.get("parameters", {}), each.get("data", {})]
        for mapping in texts:
            assert all(isinstance(text, str) for text in mapping.values()), yaml.dump(
                each
            )
