# SPDX-License-Identifier: Apache-2.0
"""The chart's README says what values.yaml says, and each value says what it is."""

from __future__ import annotations

import pytest
from charttools import command
from charttools import readme
from charttools import values

from tests.chart import rendered

TEXT = """\
# Of the file, not of a value.

# How many.
# And why.
count: 2

# A section.
place:
  # Where.
  path: /a|b
  # A mapping that is a value.
  labels:
    some: "1"
bare: []
"""


def test_the_readme_is_fresh() -> None:
    assert rendered.file("README.md") == command.docs_wanted(), "run: hack/chart docs"


def test_every_value_has_a_meaning() -> None:
    found = values.parse(rendered.file("values.yaml"))
    assert len(found) > 150
    assert not [value.path for value in found if not value.meaning]
    assert not [value.path for value in found if not value.meaning.endswith(".")]


def test_values_are_read_with_their_comments() -> None:
    found = values.parse(TEXT)
    assert found == [
        values.Value("count", "How many. And why.", 2, section=False),
        values.Value("place", "A section.", None, section=True),
        values.Value("place.path", "Where.", "/a|b", section=False),
        values.Value(
            "place.labels", "A mapping that is a value.", {"some": "1"}, section=False
        ),
        values.Value("bare", "", [], section=False),
    ]


def test_a_list_is_no_values_file() -> None:
    with pytest.raises(ValueError, match="mapping"):
        values.parse("- 1\n")


def test_tables_stand_between_the_marks_alone() -> None:
    before = f"# Title\n\n{readme.BEGIN}\nold\n{readme.END}\nafter\n"
    found = readme.with_values(before, values.parse(TEXT))
    assert found.startswith(f"# Title\n\n{readme.BEGIN}\n")
    assert found.endswith(f"{readme.END}\nafter\n")
    assert "old" not in found
    assert "| `count` | `2` | How many. And why. |" in found
    assert "### `place`\n\nA section.\n" in found
    assert '| `place.labels` | `{"some": "1"}` | A mapping that is a value. |' in found
    assert readme.with_values(found, values.parse(TEXT)) == found


def test_a_bar_does_not_end_a_cell() -> None:
    assert "a \\| b" in readme.tables(values.parse("# a | b\nx: 1\n"))


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        readme.with_values("# Title\n", [])
