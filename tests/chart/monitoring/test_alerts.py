# SPDX-License-Identifier: Apache-2.0
"""Alerts speak of what the code tells, and each leads to what to do."""

from __future__ import annotations

import re

import grpc
import pytest
import yaml

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.kube.events import EventCounts
from csi_driver.rpc.workers import MOST_STUCK
from csi_driver.settings import DRIVER_NAME
from tests.chart import rendered
from tests.chart.monitoring import metrics
from tests.chart.rendered import Object

ALERTS: list[Object] = yaml.safe_load(rendered.file("files/alerts.yaml"))["alerts"]
RUNBOOKS = rendered.repository("docs/runbooks.md").read_text()
KNOWN = {
    "code": {code.name for code in grpc.StatusCode},
    "component": set(rendered.COMPONENTS),
    "fate": set(EventCounts.__dataclass_fields__),
    "state": {state.value for state in FlattenState},
    "method": {"NodeStageVolume"},
}
"""What labels are compared with."""

each_alert = pytest.mark.parametrize(
    "alert", ALERTS, ids=[alert["alert"] for alert in ALERTS]
)


@each_alert
def test_an_alert_reads_what_the_driver_tells(alert: Object) -> None:
    defined = metrics.defined()
    found = metrics.selectors(alert["expr"])
    assert found
    for selector in found:
        assert selector.name in defined
        allowed = defined[selector.name] | metrics.FROM_OUTSIDE
        for matcher in selector.matchers.matchers:
            assert matcher.name in allowed
            assert set(matcher.value.split("|")) <= KNOWN[matcher.name]


@each_alert
def test_an_alert_groups_by_labels_that_exist(alert: Object) -> None:
    defined = metrics.defined()
    read = [selector.name for selector in metrics.selectors(alert["expr"])]
    known = {label for name in read for label in defined[str(name)]}
    assert metrics.labels(alert["expr"]) <= known | metrics.FROM_OUTSIDE


@each_alert
def test_an_alert_s_text_uses_labels_that_its_expression_leaves(alert: Object) -> None:
    used = set(re.findall(r"\$labels\.(\w+)", alert["summary"] + alert["description"]))
    grouped = metrics.labels(alert["expr"])
    if re.match(r"(sum|count|absent|histogram_quantile|max|min)\b", alert["expr"]):
        assert used <= grouped
    else:
        defined = metrics.defined()
        first = str(metrics.selectors(alert["expr"])[0].name)
        assert used <= defined[first] | metrics.FROM_OUTSIDE


@each_alert
def test_an_alert_has_a_runbook(alert: Object) -> None:
    section = RUNBOOKS.partition(f"\n## {alert['alert']}\n")[2].partition("\n## ")[0]
    for word in ("**Means**:", "**Look at**:", "**Do**:"):
        assert word in section


def test_every_runbook_has_an_alert_in_the_same_order() -> None:
    sections = re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


def test_links_of_a_rule_lead_to_sections() -> None:
    rule = rendered.one(rendered.objects("everything", "PrometheusRule"))
    anchors = {
        heading.lower() for heading in re.findall(r"^## (.+)$", RUNBOOKS, re.MULTILINE)
    }
    rules = rule["spec"]["groups"][0]["rules"]
    assert len(rules) == len(ALERTS) - 1  # the case leaves one out
    for each in rules:
        page, _, anchor = each["annotations"]["runbook_url"].partition("#")
        assert page.endswith("/docs/runbooks.md")
        assert anchor in anchors


def test_a_rule_is_what_its_file_says() -> None:
    rule = rendered.one(rendered.objects("everything", "PrometheusRule"))
    found = {each["alert"]: each for each in rule["spec"]["groups"][0]["rules"]}
    assert "RbdcryptVersionsDiffer" not in found
    for alert in ALERTS:
        if alert["alert"] == "RbdcryptVersionsDiffer":
            continue
        made = found[alert["alert"]]
        assert made["expr"] == alert["expr"].strip()
        assert made["for"] == alert["for"]
        assert made["labels"] == {"severity": alert["severity"], "team": "storage"}
        assert made["annotations"]["summary"] == alert["summary"]
        assert made["annotations"]["description"] == alert["description"].strip()


def test_severities_are_few() -> None:
    assert {alert["severity"] for alert in ALERTS} == {"critical", "warning", "info"}


def test_numbers_and_names_in_texts_are_the_code_s() -> None:
    stuck = next(each for each in ALERTS if each["alert"] == "RbdcryptCallsStuck")
    assert f"from {MOST_STUCK} on" in stuck["description"]
    assert f"from {MOST_STUCK} on" in RUNBOOKS
    assert DRIVER_NAME in RUNBOOKS
