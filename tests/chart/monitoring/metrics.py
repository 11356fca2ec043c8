# SPDX-License-Identifier: Apache-2.0
"""The metrics that the driver's code defines, by registering all of them."""

from __future__ import annotations

import re
from typing import Final

import promql_parser
from prometheus_client import CollectorRegistry
from promql_parser import VectorSelector

from csi_driver.datapath.flatten_status import FlattenState
from csi_driver.datapath.flatten_status import FlattenStatus
from csi_driver.kube.events import EventCounts
from csi_driver.observability import metrics
from csi_driver.observability.collecting import CollectorMetrics
from csi_driver.observability.events import EventMetrics
from csi_driver.observability.exports import ExportMetrics
from csi_driver.provisioning.tally import Tallies
from tests.unit.observability.test_exports import Told
from tests.unit.observability.test_exports import export

_LISTS: Final = re.compile(r"\b(?:by|on|without|group_left)\s*\(([^)]*)\)")

FROM_OUTSIDE: Final = {"component", "node", "instance", "pod"}
"""Labels that the PodMonitor or ServiceMonitor, or Prometheus itself, adds."""


def registry() -> CollectorRegistry:
    """Return a registry with everything that a process of the driver may tell."""
    found = metrics.registry_of("1.2.3")
    calls = metrics.RpcMetrics(found)
    calls.answered("NodeStageVolume", "OK", 0.1)
    calls.stuck(0)
    metrics.add_registration(found, lambda: True)
    found.register(EventMetrics(EventCounts))
    found.register(CollectorMetrics(Tallies))
    flatten = FlattenStatus(FlattenState.COPYING, done=1, total=2)
    found.register(ExportMetrics(Told(export("1", flatten=flatten))))
    return found


def defined() -> dict[str, set[str]]:
    """Return the names of all time series with their labels."""
    found: dict[str, set[str]] = {}
    for family in registry().collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def selectors(expression: str) -> list[VectorSelector]:
    """Return what an expression reads; ValueError if it is no PromQL."""
    found: list[VectorSelector] = []

    def visit(node: object) -> bool:
        if isinstance(node, VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def labels(expression: str) -> set[str]:
    """Return the labels by which an expression groups or joins."""
    lists = _LISTS.findall(expression)
    return {each.strip() for text in lists for each in text.split(",") if each.strip()}
