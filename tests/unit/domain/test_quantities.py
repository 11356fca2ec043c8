# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.quantities import parse_size
from csi_driver.domain.quantities import show_size


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("4096", 4096), ("10Gi", 10 << 30), ("1Ki", 1024), ("3Pi", 3 << 50)],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5Gi", "10G", "1 Gi", "Gi", "\u0661", "1gi"]
)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3 << 29, "1.5 GiB"),
        (16 << 20, "16 MiB"),
        (1 << 63, "8192 PiB"),
    ],
)
def test_sizes_are_shown(count: int, text: str) -> None:
    assert show_size(count) == text


@given(st.integers(0, 1 << 60))
def test_what_is_shown_is_near(count: int) -> None:
    number, unit = show_size(count).split()
    units = {"B": 1, **{f"{u}iB": 1024**n for n, u in enumerate("KMGTP", 1)}}
    assert abs(float(number) * units[unit] - count) <= 0.06 * units[unit]
