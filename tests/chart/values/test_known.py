# SPDX-License-Identifier: Apache-2.0
"""The schema itself: strict everywhere, and true to values and to the driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml
from charttools import values

from csi_driver.domain import limits
from csi_driver.domain.flattening import FlattenPolicy
from csi_driver.domain.parameters import KNOWN
from csi_driver.settings import DeviceMethod
from csi_driver.settings import LogFormat
from csi_driver.settings import LogLevel
from tests.chart import rendered
from tests.chart.rendered import Object


def _objects(schema: Any, path: str = "") -> Iterator[tuple[str, Object]]:
    """Yield every schema of an object with its place."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from _objects(each, f"{path}/{index}")
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, each in schema.items():
            yield from _objects(each, f"{path}/{key}")


def test_no_object_takes_what_it_does_not_know() -> None:
    """A map of free keys says what its values are; `global` is Helm's own."""
    found = dict(_objects(rendered.schema()))
    assert found.pop("/properties/global")
    assert len(found) > 50
    for path, schema in found.items():
        free = schema["additionalProperties"]
        if free is not False:
            assert free["type"] == "string", path
            assert "propertyNames" in schema, path


def test_every_definition_is_used() -> None:
    schema = rendered.schema()
    text = json.dumps(schema)
    for name in schema["definitions"]:
        assert f'"#/definitions/{name}"' in text


def _resolved(schema: Object) -> Object:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    name = reference.removeprefix("#/definitions/")
    found: Object = rendered.schema()["definitions"][name]
    return found


def _paths(schema: Object, prefix: str = "") -> Iterator[str]:
    """Yield the paths of all values that a schema knows by name, lists left out."""
    for key, each in _resolved(schema).get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from _paths(each, f"{prefix}{key}.")


def test_schema_and_values_know_the_same() -> None:
    found = values.parse(rendered.file("values.yaml"))
    leaves = [value.path for value in found if not value.section]
    known = set(_paths(rendered.schema())) - {"global"}
    told = {value.path for value in found}
    assert told <= known
    # Below a value with a default of its own (resources, affinity) are Kubernetes'
    # own fields.
    assert {
        path
        for path in known - told
        if not any(path.startswith(f"{leaf}.") for leaf in leaves)
    } == set()


def _definition(name: str) -> Object:
    found: Object = rendered.schema()["definitions"][name]["properties"]
    return found


def test_parameters_are_those_of_the_driver() -> None:
    known = _definition("classParameters")
    assert set(known) == set(KNOWN)
    assert set(known["flattenPolicy"]["enum"]) == {each.value for each in FlattenPolicy}
    limited = _definition("volumeAttributesClass")["parameters"]["properties"]
    assert set(limited) == set(limits.KNOWN)


def test_choices_are_those_of_the_driver() -> None:
    top = rendered.schema()["properties"]
    assert set(top["deviceMethod"]["enum"]) == {each.value for each in DeviceMethod}
    log = top["log"]["properties"]
    assert set(log["format"]["enum"]) == {each.value for each in LogFormat}
    assert set(log["level"]["enum"]) == {each.value for each in LogLevel}


def test_alerts_that_can_be_left_out_are_those_that_exist() -> None:
    rule = rendered.schema()["properties"]["metrics"]["properties"]["prometheusRule"]
    wanted = rule["properties"]["disabled"]["items"]["enum"]
    found = yaml.safe_load(rendered.file("files/alerts.yaml"))["alerts"]
    assert wanted == [each["alert"] for each in found]
