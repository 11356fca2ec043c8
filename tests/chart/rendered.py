# SPDX-License-Identifier: Apache-2.0
"""The chart's objects as helm renders them, for all tests of the chart.

A case is a values file of the chart's folder ci/; each is rendered once.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from charttools import rendering

type Object = dict[str, Any]

CASES = sorted(rendering.cases())
COMPONENTS = ("controller", "node", "datapath")


@functools.cache
def text(case: str) -> str:
    """Return what helm makes of a case."""
    return rendering.template(rendering.cases()[case])


def objects(case: str, kind: str = "") -> list[Object]:
    """Return a case's objects, or those of one kind; the caller may change them."""
    found: list[Object] = json.loads(_as_json(case))
    return [each for each in found if not kind or each["kind"] == kind]


@functools.cache
def _as_json(case: str) -> str:
    """Return a case's objects as JSON, which is read a hundred times faster."""
    return json.dumps(parsed(text(case)))


def parsed(rendered: str, kind: str = "") -> list[Object]:
    """Return the objects of a render, or those of one kind."""
    found = [each for each in yaml.safe_load_all(rendered) if each]
    return [each for each in found if not kind or each["kind"] == kind]


def rendered_with(*sets: str, case: str = "minimal") -> str:
    """Return a case's render with further values, as --set-json takes them."""
    return rendering.template(rendering.cases()[case], sets=sets)


def one(found: list[Object]) -> Object:
    """Return the only object of a list."""
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def component(case: str, name: str) -> Object:
    """Return the Deployment or DaemonSet of a component."""
    label = "app.kubernetes.io/component"
    return one(
        [
            each
            for each in objects(case)
            if each["kind"] in {"Deployment", "DaemonSet"}
            and each["metadata"]["labels"][label] == name
        ]
    )


def pod(case: str, name: str) -> Object:
    """Return the pod specification of a component."""
    found: Object = component(case, name)["spec"]["template"]["spec"]
    return found


def containers(case: str) -> Iterator[tuple[str, Object, Object]]:
    """Yield component, pod specification and container, for every container."""
    for name in COMPONENTS:
        spec = pod(case, name)
        for container in spec["containers"]:
            yield name, spec, container


def driver(case: str, name: str) -> Object:
    """Return the driver's own container of a component."""
    return one_named(pod(case, name)["containers"], name)


def one_named(found: list[Object], name: str) -> Object:
    """Return the member of a list that has a name."""
    matching = [each for each in found if each["name"] == name]
    assert len(matching) == 1, (name, [each["name"] for each in found])
    return matching[0]


def config(case: str) -> str:
    """Return the cluster list that the chart writes."""
    found = one(
        [each for each in objects(case, "ConfigMap") if "config.json" in each["data"]]
    )
    written: str = found["data"]["config.json"]
    return written


def default_values() -> Object:
    """Return the chart's own values."""
    found: Object = yaml.safe_load(file("values.yaml"))
    return found


def schema() -> Object:
    """Return the schema of the values."""
    found: Object = json.loads(file("values.schema.json"))
    return found


def file(name: str) -> str:
    """Return a file of the chart."""
    return (rendering.CHART / name).read_text(encoding="utf-8")


def repository(name: str) -> Path:
    """Return the path of a file of the repository."""
    return rendering.REPO / name
