# SPDX-License-Identifier: Apache-2.0
"""The dashboard shows what the code tells, all of it, and no panel hides another."""

from __future__ import annotations

import json
from itertools import combinations

from tests.chart import rendered
from tests.chart.monitoring import metrics
from tests.chart.rendered import Object

DASHBOARD: Object = json.loads(rendered.file("dashboards/rbdcrypt-csi.json"))
PANELS: list[Object] = DASHBOARD["panels"]
NOT_SHOWN = {
    # What Prometheus' library tells of any process beside memory and time.
    "process_max_fds",
    "process_open_fds",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
}


def _expressions() -> list[str]:
    found = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
    return [each.replace("$__rate_interval", "5m") for each in found]


def test_panels_read_what_the_driver_tells() -> None:
    defined = metrics.defined()
    for expression in _expressions():
        for selector in metrics.selectors(expression):
            assert selector.name in defined, expression
            allowed = defined[str(selector.name)] | metrics.FROM_OUTSIDE
            names = {matcher.name for matcher in selector.matchers.matchers}
            assert names <= allowed, expression


def test_panels_group_by_labels_that_exist() -> None:
    defined = metrics.defined()
    for expression in _expressions():
        read = [str(each.name) for each in metrics.selectors(expression)]
        known = {label for name in read for label in defined[name]}
        assert metrics.labels(expression) <= known | metrics.FROM_OUTSIDE


def test_everything_that_the_driver_tells_is_shown() -> None:
    shown = {
        str(selector.name)
        for expression in _expressions()
        for selector in metrics.selectors(expression)
    }
    # Python's client adds when a series began.
    told = {name for name in metrics.defined() if not name.endswith("_created")}
    assert told - shown == NOT_SHOWN


def test_variables_are_labels_of_the_metric_that_they_ask_for() -> None:
    defined = metrics.defined()
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        asked, _, label = variable["definition"][len("label_values(") : -1].rpartition(
            ","
        )
        (selector,) = metrics.selectors(asked)
        known = defined[str(selector.name)] | metrics.FROM_OUTSIDE
        assert label.strip() in known


def test_every_panel_says_what_it_shows_and_has_its_own_place() -> None:
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith(".")
    for one, other in combinations([panel["gridPos"] for panel in PANELS], 2):
        apart_across = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        )
        apart_down = (
            one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )
        assert apart_across or apart_down


def test_grafana_gets_the_dashboard_as_it_is() -> None:
    found = [
        each
        for each in rendered.objects("everything", "ConfigMap")
        if each["metadata"]["name"].endswith("-dashboard")
    ]
    made = rendered.one(found)
    assert made["metadata"]["namespace"] == "monitoring"
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(made["data"]["rbdcrypt-csi.json"]) == DASHBOARD
