# SPDX-License-Identifier: Apache-2.0
"""Prometheus finds every port with metrics, with the labels that alerts go by."""

from __future__ import annotations

import pytest

from tests.chart import rendered
from tests.chart.rendered import Object

MONITORS = {
    "everything": ("PodMonitor", "podMetricsEndpoints"),
    "upstream-sidecars": ("ServiceMonitor", "endpoints"),
}


def _endpoints(case: str) -> list[Object]:
    kind, key = MONITORS[case]
    found: list[Object] = rendered.one(rendered.objects(case, kind))["spec"][key]
    return found


@pytest.mark.parametrize("case", MONITORS)
def test_every_port_of_a_container_is_scraped_once(case: str) -> None:
    ports = {
        port["name"]
        for _, _, container in rendered.containers(case)
        for port in container.get("ports", [])
    }
    names = [endpoint["port"] for endpoint in _endpoints(case)]
    assert sorted(names) == sorted(ports)


@pytest.mark.parametrize("case", MONITORS)
def test_series_carry_component_and_node(case: str) -> None:
    for endpoint in _endpoints(case):
        assert endpoint["path"] == "/metrics"
        made = {each["targetLabel"] for each in endpoint["relabelings"]}
        assert made == {"component", "node"}


def test_a_pod_monitor_finds_all_three_components() -> None:
    monitor = rendered.one(rendered.objects("everything", "PodMonitor"))
    wanted = monitor["spec"]["selector"]["matchLabels"]
    for name in rendered.COMPONENTS:
        pod = rendered.component("everything", name)["spec"]["template"]
        assert wanted.items() <= pod["metadata"]["labels"].items()


def test_a_service_monitor_finds_the_service_and_that_all_pods() -> None:
    case = "upstream-sidecars"
    service = rendered.one(rendered.objects(case, "Service"))
    monitor = rendered.one(rendered.objects(case, "ServiceMonitor"))
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    for name in rendered.COMPONENTS:
        pod = rendered.component(case, name)["spec"]["template"]
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    ports = [port["port"] for port in service["spec"]["ports"]]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize(
    "case", [case for case in rendered.CASES if case not in MONITORS]
)
def test_nothing_of_prometheus_is_made_unasked(case: str) -> None:
    groups = {each["apiVersion"].partition("/")[0] for each in rendered.objects(case)}
    assert "monitoring.coreos.com" not in groups
