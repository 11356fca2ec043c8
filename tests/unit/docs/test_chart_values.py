# SPDX-License-Identifier: Apache-2.0
"""Values of the chart that pages name exist, and their YAML can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from typing import Final

import pytest
import yaml

from tests.unit.docs.pages import ROOT
from tests.unit.docs.pages import Page
from tests.unit.docs.pages import pages

_CHART: Final = ROOT / "charts/rbdcrypt-csi"
_SCHEMA: Final[dict[str, Any]] = json.loads((_CHART / "values.schema.json").read_text())
_TOP: Final = frozenset(_SCHEMA["properties"]) - {"global"}
_PATH: Final = re.compile(r"[a-zA-Z]+(?:\[\])?(?:\.[a-zA-Z]+(?:\[\])?)+")
_SET: Final = re.compile(r"--set(?:-json|-string)? '?([a-zA-Z.]+)=")


def named(page: Page) -> Iterator[str]:
    """Go through the values that a page names."""
    for code in page.inline():
        path = code.partition(":")[0]
        top = re.split(r"[.\[]", path)[0]
        if _PATH.fullmatch(path) and top in _TOP:
            yield path
    yield from _SET.findall(page.text)


def exists(path: str) -> bool:
    """Tell whether the chart has a value; `[]` behind a name is each of a list."""
    at = _SCHEMA
    for part in path.split("."):
        at = _resolved(at)
        name = part.removesuffix("[]")
        if name not in at.get("properties", {}):
            # Labels and the like have keys of the user's own.
            return isinstance(at.get("additionalProperties"), dict)
        at = _resolved(at["properties"][name])
        if part.endswith("[]"):
            if "items" not in at:
                return False
            at = at["items"]
    return True


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = _SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_value_exists(page: Page) -> None:
    assert [path for path in named(page) if not exists(path)] == []


def test_values_are_found() -> None:
    found = {path for page in pages() for path in named(page)}
    assert {"secrets.namespaces", "clusters[].pools", "paths.kubelet"} <= found


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("datapath.resources.requests.memory", True),
        ("clusters[].secretName", True),
        ("clusters.secretName", False),
        ("clusters[].secret", False),
        ("node.labels", False),
        ("image[].tag", False),
    ],
)
def test_a_value_is_told_from_none(path: str, there: bool) -> None:
    assert exists(path) is there


@pytest.mark.parametrize("page", pages(), ids=str)
def test_yaml_can_be_read(page: Page) -> None:
    for fence in page.fences():
        if fence.language == "yaml":
            assert list(yaml.safe_load_all(fence.text)), fence.text
