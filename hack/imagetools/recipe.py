# SPDX-License-Identifier: Apache-2.0
"""What an image is made of, and the key that changes with it.  Nothing is built."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Final

from labtools import places

from imagetools import base

if TYPE_CHECKING:
    from collections.abc import Iterator

_RECIPE: Final = "1"
"""Raise it when the way of building changes."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image."""

    reference: str
    """Its full name with a tag, as a pod says it."""
    containerfile: str
    """The text of its Dockerfile."""
    context: Path
    """The directory from which it copies."""
    inputs: tuple[Path, ...] = ()
    """What it copies: files below `context`."""
    arguments: tuple[tuple[str, str], ...] = ()
    """Names and values of build arguments."""

    @property
    def name(self) -> str:
        """The last part of the reference, fit for a file's name."""
        return self.reference.rpartition("/")[2].replace(":", "-")

    def key(self) -> str:
        """Return what identifies the image's content."""
        parts: list[str | Path] = [_RECIPE, base.key(), self.reference]
        parts += [
            self.containerfile,
            *(word for pair in self.arguments for word in pair),
        ]
        for path in self.inputs:
            parts += [str(path.relative_to(self.context)), path]
        return places.digest(*parts)


def copied(context: Path) -> tuple[str, ...]:
    """Return the names that a .dockerignore lets in, which excludes all else."""
    return tuple(line[1:] for line in _rules(context) if line.startswith("!"))


def inputs(context: Path) -> tuple[Path, ...]:
    """Return the files that a .dockerignore lets in, in order.

    It begins by excluding everything, lets names in, and excludes patterns again.
    """
    excluded = [line for line in _rules(context) if line[0] not in "!*"]
    everywhere = {
        line.removeprefix("**/") for line in _rules(context) if line.startswith("**/")
    }
    found = []
    for path in _files(context):
        name = str(path.relative_to(context))
        if everywhere.isdisjoint(Path(name).parts) and not any(
            fnmatch.fnmatch(name, pattern) for pattern in excluded
        ):
            found.append(path)
    return tuple(found)


def _rules(context: Path) -> list[str]:
    lines = (context / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _files(context: Path) -> Iterator[Path]:
    for name in copied(context):
        place = context / name
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        yield from (path for path in found if path.is_file())
