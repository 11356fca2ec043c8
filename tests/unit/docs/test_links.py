# SPDX-License-Identifier: Apache-2.0
"""Links within the repository lead somewhere, and every page is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT
from tests.unit.docs.pages import Page
from tests.unit.docs.pages import pages


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    for target in page.links():
        path, _, anchor = target.partition("#")
        there = (page.file.parent / path).resolve() if path else page.file
        assert there.exists(), target
        if anchor:
            aim = Page(str(there.relative_to(ROOT)))
            assert anchor in aim.anchors(), target


def test_the_readme_leads_to_every_page() -> None:
    readme = Page("README.md")
    reached = {(ROOT / each.partition("#")[0]).resolve() for each in readme.links()}
    wanted = {each.file for each in pages() if each.path.startswith("docs/")}
    assert wanted <= reached


def test_a_link_is_read_with_its_anchor(tmp_path: Path) -> None:
    text = "# One: `a` & b\n\n[x](other.md#y) `[no](link)` [web](https://z)\n"
    (tmp_path / "page.md").write_text(text)
    page = Page(str(tmp_path / "page.md"))
    assert list(page.links()) == ["other.md#y"]
    assert page.anchors() == {"one-a--b"}
