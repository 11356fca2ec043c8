# SPDX-License-Identifier: Apache-2.0
"""The pages of the repository, and what they are made of: headings, links, code."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]

_FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Fence:
    """A block of code; `language` is "" where none is said."""

    language: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page, by its path in the repository."""

    path: str

    def __str__(self) -> str:
        """Return what tests are named after."""
        return self.path

    @property
    def file(self) -> Path:
        """Where it is."""
        return ROOT / self.path

    @property
    def text(self) -> str:
        """All of it."""
        return self.file.read_text(encoding="utf-8")

    @property
    def prose(self) -> str:
        """What stands outside of blocks of code."""
        return _FENCE.sub("", self.text)

    def fences(self, section: str = "") -> Iterator[Fence]:
        """Go through the blocks of code, or those of one section."""
        text = self.text
        if section:
            text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
        for indent, language, code in _FENCE.findall(text):
            lines = [line.removeprefix(indent) for line in code.splitlines()]
            yield Fence(language, "\n".join(lines) + "\n")

    def inline(self) -> Iterator[str]:
        """Go through code within sentences, on one line each."""
        for found in _INLINE.findall(self.prose):
            yield re.sub(r"\s+", " ", found).replace("\\|", "|")

    def links(self) -> Iterator[str]:
        """Go through the targets of links, those to the web left out."""
        for target in _LINK.findall(_INLINE.sub("", self.prose)):
            if not target.startswith(("http://", "https://")):
                yield target

    def anchors(self) -> set[str]:
        """Return what can stand behind a # in a link to this page."""
        return set(map(_slug, _HEADING.findall(self.prose)))


def _slug(heading: str) -> str:
    """Return the anchor that a heading gets on the web."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@functools.cache
def pages() -> tuple[Page, ...]:
    """Return every page."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("hack/*.md")]
    found += ROOT.glob("charts/*/*.md")
    return tuple(Page(str(each.relative_to(ROOT))) for each in sorted(found))
