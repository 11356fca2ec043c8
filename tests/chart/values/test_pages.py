# SPDX-License-Identifier: Apache-2.0
"""Values that pages show are values that the chart takes.

A block adds to those before it on its page, as its reader does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from charttools import rendering

from tests.chart import rendered
from tests.unit.docs.pages import Page
from tests.unit.docs.pages import pages


def shown(page: Page) -> Iterator[str]:
    """Go through the blocks of a page that are values of the chart."""
    known = rendered.schema()["properties"].keys()
    for fence in page.fences():
        if fence.language == "yaml":
            found = list(yaml.safe_load_all(fence.text))
            if (
                len(found) == 1
                and isinstance(found[0], dict)
                and found[0].keys() <= known
            ):
                yield fence.text


def with_values() -> list[Page]:
    return [page for page in pages() if any(shown(page))]


@pytest.mark.parametrize("page", with_values(), ids=str)
def test_the_chart_takes_what_a_page_shows(page: Page, tmp_path: Path) -> None:
    files: list[Path] = []
    for number, text in enumerate(shown(page)):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(text)
        assert rendered.parsed(rendering.template(*files), "Deployment")


def test_values_are_found() -> None:
    found = {page.path: len(list(shown(page))) for page in with_values()}
    assert found["README.md"] == 2
    assert found["docs/install.md"] > 3
    assert {"docs/migrate-from-ceph-csi.md", "charts/rbdcrypt-csi/README.md"} <= set(
        found
    )
