# SPDX-License-Identifier: Apache-2.0
"""The part of the chart's README that is made of its values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Sequence

    from charttools.values import Value

BEGIN = "<!-- values: made by hack/chart docs, from values.yaml -->"
END = "<!-- values: end -->"


def with_values(readme: str, values: Sequence[Value]) -> str:
    """Return the README with the tables of these values between its marks.

    ValueError if a mark is missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        message = f"the README has no marks {BEGIN} and {END}"
        raise ValueError(message)
    return f"{before}{BEGIN}\n\n{tables(values)}\n{END}{after}"


def tables(values: Sequence[Value]) -> str:
    """Return a table of the values on top, then one for each section there."""
    on_top = [value for value in values if "." not in value.path]
    parts = [_table(value for value in on_top if not value.section)]
    for section in on_top:
        if section.section:
            inner = [
                value for value in values if value.path.startswith(f"{section.path}.")
            ]
            heading = f"### `{section.path}`\n\n{section.meaning}\n\n"
            parts.append(heading + _table(inner))
    return "\n".join(parts)


def _table(values: Iterable[Value]) -> str:
    rows = [_row(value) for value in values]
    return "".join(("| value | default | meaning |\n", "|---|---|---|\n", *rows))


def _row(value: Value) -> str:
    default = "" if value.section else f"`{json.dumps(value.default)}`"
    meaning = value.meaning.replace("|", "\\|")
    return f"| `{value.path}` | {default} | {meaning} |\n"
