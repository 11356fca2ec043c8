# SPDX-License-Identifier: Apache-2.0
"""Typed fields: each reader takes its own type and nothing that resembles it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import pytest

from csi_driver.domain import json_fields as read

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, "", "text", [], ["a"], ["a", 1], [1], {},
    {"a": 1}, [{}], [{}, 1],
]  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "taken"),
    [
        (read.string, ["", "text"]),
        (read.strings, [[], ["a"]]),
        (read.integer, [0, 1, -1]),
        (read.natural, [0, 1]),
        (read.truth, [True, False]),
        (read.optional, [None, {}, {"a": 1}]),
        (read.objects, [[], [{}]]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_reader_takes_its_own_type(
    reader: Callable[[Mapping[str, Any], str], Any],
    taken: list[Any],
) -> None:
    for value in VALUES:
        if any(type(each) is type(value) and each == value for each in taken):
            found = reader({"field": value}, "field")
            assert found == (tuple(value) if reader is read.strings else value)
            continue
        with pytest.raises((TypeError, ValueError), match="field is "):
            reader({"field": value}, "field")
    with pytest.raises(KeyError):
        reader({}, "field")
