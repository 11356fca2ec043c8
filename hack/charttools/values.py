# SPDX-License-Identifier: Apache-2.0
"""The values of a chart as their file says them: path, default, meaning.

A comment right above a key, in the key's column, is its meaning.  A mapping whose
own keys have comments is a section; any other one is the default of its key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from collections.abc import Sequence


@dataclass(frozen=True)
class Value:
    """One key of a values file."""

    path: str
    """Keys from the top on, joined by dots."""
    meaning: str
    """Its comment in one line, "" without one."""
    default: Any
    section: bool
    """Whether it holds further values; `default` says nothing then."""


def parse(text: str) -> list[Value]:
    """Return every value of a values file in its order; ValueError if it is none."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        message = "a values file is a mapping"
        raise ValueError(message)  # noqa: TRY004  # the text is wrong, not its type
    return list(_values(root, text.splitlines(), ""))


def _values(
    mapping: yaml.MappingNode, lines: Sequence[str], prefix: str
) -> Iterator[Value]:
    for key, node in mapping.value:
        path = f"{prefix}{key.value}"
        meaning = _comment(key, lines)
        if isinstance(node, yaml.MappingNode) and _is_section(node, lines):
            yield Value(path, meaning, None, section=True)
            yield from _values(node, lines, f"{path}.")
        else:
            default = yaml.safe_load(yaml.serialize(node))
            yield Value(path, meaning, default, section=False)


def _is_section(mapping: yaml.MappingNode, lines: Sequence[str]) -> bool:
    return any(_comment(key, lines) for key, _ in mapping.value)


def _comment(key: yaml.Node, lines: Sequence[str]) -> str:
    mark = "#".rjust(key.start_mark.column + 1)
    found: list[str] = []
    for line in reversed(lines[: key.start_mark.line]):
        if not line.startswith(mark):
            break
        found.append(line.removeprefix(mark).strip())
    return " ".join(reversed(found)).strip()
