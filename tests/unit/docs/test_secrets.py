# SPDX-License-Identifier: Apache-2.0
"""Pages never show how a Secret of volumes is overwritten by mistake."""

from __future__ import annotations

import re

import pytest

from tests.unit.docs.pages import Page
from tests.unit.docs.pages import pages

_CREATED = re.compile(r"\bkubectl\b[^\n|]* create\b")


def makes_a_secret(text: str) -> bool:
    return "kind: Secret" in text or "/dev/urandom" in text


@pytest.mark.parametrize("page", pages(), ids=str)
def test_a_secret_is_created_and_never_applied(page: Page) -> None:
    for fence in page.fences():
        text = fence.text.replace("\\\n", " ")
        if fence.language == "" and makes_a_secret(text):
            assert _CREATED.search(text), text
            assert "kubectl apply" not in text, text


def test_secrets_are_found() -> None:
    made = [
        str(page)
        for page in pages()
        for fence in page.fences()
        if fence.language == "" and makes_a_secret(fence.text)
    ]
    assert {"README.md", "docs/install.md"} <= set(made)
