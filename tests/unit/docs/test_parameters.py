# SPDX-License-Identifier: Apache-2.0
"""docs/parameters.md says what the code says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
import yaml

from csi_driver.domain import class_secrets
from csi_driver.domain import limits
from csi_driver.domain import parameters
from csi_driver.domain.class_secrets import templates
from csi_driver.domain.class_secrets import without_secrets
from csi_driver.domain.parameters import parse_parameters
from csi_driver.keys.material import SECRET_KEYS
from csi_driver.settings import ControllerSettings
from csi_driver.settings import DatapathSettings
from csi_driver.settings import NodeSettings

ROOT: Final = Path(__file__).resolve().parents[3]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Load the generator as `hack/docs` does."""
    monkeypatch.syspath_prepend(str(ROOT / "hack"))
    import docstools.parameters as loaded  # noqa: PLC0415

    yield loaded
    for name in [each for each in sys.modules if each.startswith("docstools")]:
        del sys.modules[name]


@pytest.fixture
def page() -> str:
    return (ROOT / "docs/parameters.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_generator_makes(tool: ModuleType, page: str) -> None:
    assert page == tool.page(), "run hack/docs parameters"


def test_every_name_is_on_it(page: str) -> None:
    described = (
        *parameters.PARAMETERS,
        *limits.PARAMETERS,
        *class_secrets.USED,
        *SECRET_KEYS,
    )
    for each in described:
        name = each.name.partition(",")[0]
        assert f"\n| `{name}`" in page
        assert each.meaning
    for kind in (ControllerSettings, NodeSettings, DatapathSettings):
        for name in kind.model_fields:
            assert f"\n| `--{name.replace('_', '-')}` |" in page


def test_every_row_has_as_many_cells_as_its_table(page: str) -> None:
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        rows = [len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()]
        assert len(set(rows)) == 1, block


def test_its_example_is_a_class_that_the_driver_takes(page: str) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    found = yaml.safe_load(text)["parameters"]
    assert parse_parameters(without_secrets(found)).encrypted
    named = templates(found)
    assert [each.purpose for each in named] == [e.name for e in class_secrets.USED]
    assert not [fault for each in named for fault in each.faults()]


def test_defaults_are_those_of_the_parser() -> None:
    made = parse_parameters({"clusterID": "c", "pool": "p"})
    defaults = {each.name: each.default.strip("`") for each in parameters.PARAMETERS}
    assert defaults["imageFeatures"] == ",".join(made.features)
    assert int(defaults["objectSize"]) == made.striping.object_size
    assert int(defaults["stripeCount"]) == made.striping.stripe_count
    assert (defaults["encrypted"] == '"true"') is made.encrypted
    assert defaults["flattenPolicy"] == made.flatten_policy.value
    required = {name for name, text in defaults.items() if text == "required"}
    assert required == {"clusterID", "pool"}
