# SPDX-License-Identifier: Apache-2.0
"""Sizes and stripes: for every geometry, and at every corner of a request."""

from __future__ import annotations

import itertools
import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import SizeError
from csi_driver.domain.sizes import BLOCK_SIZE
from csi_driver.domain.sizes import DEFAULT_SIZE
from csi_driver.domain.sizes import GIB
from csi_driver.domain.sizes import HEADER_ROOM
from csi_driver.domain.sizes import KIB
from csi_driver.domain.sizes import LARGEST_IMAGE
from csi_driver.domain.sizes import MIB
from csi_driver.domain.sizes import CapacityRange
from csi_driver.domain.sizes import EffectiveSize
from csi_driver.domain.sizes import Layout
from csi_driver.domain.sizes import RawSize
from csi_driver.domain.sizes import Striping
from csi_driver.domain.sizes import round_up

INT64_MAX = (1 << 63) - 1
OBJECT_SIZES = [1 << order for order in range(12, 26)]
GEOMETRIES = [
    Striping(size, size, count)
    for size, count in itertools.product(OBJECT_SIZES, [1, 2, 3, 4, 16, 1024])
] + [
    Striping(size, size >> shift, count)
    for size, shift, count in itertools.product(OBJECT_SIZES, [1, 3], [2, 5])
]


@pytest.mark.parametrize("striping", GEOMETRIES, ids=str)
def test_the_reserve_holds_a_header_in_whole_periods(striping: Striping) -> None:
    layout = Layout.for_striping(striping)
    assert layout.reserve >= HEADER_ROOM
    assert layout.reserve % striping.period == 0
    assert layout.reserve - striping.period < HEADER_ROOM
    assert 1 << striping.order == striping.object_size
    assert striping.encryptable == (striping.stripe_unit == striping.object_size)


@pytest.mark.parametrize(
    ("striping", "reserve"),
    [
        (Striping(MIB, MIB), 16 * MIB),
        (Striping(), 16 * MIB),
        (Striping(8 * MIB, 8 * MIB), 16 * MIB),
        (Striping(32 * MIB, 32 * MIB), 32 * MIB),
        (Striping(4 * MIB, MIB, 4), 16 * MIB),
        (Striping(4 * MIB, 4 * MIB, 3), 24 * MIB),
    ],
)
def test_the_reserve_is_what_librbd_takes(striping: Striping, reserve: int) -> None:
    """Measured on 18.2.7 for LUKS2; the last is the same rule."""
    assert Layout.for_striping(striping).reserve == reserve


@given(st.sampled_from(GEOMETRIES), st.integers(0, LARGEST_IMAGE))
def test_raw_and_effective_are_each_others_inverse(
    striping: Striping,
    count: int,
) -> None:
    layout = Layout.for_striping(striping)
    size = EffectiveSize(count)
    assert layout.effective(layout.raw(size)) == size
    assert layout.raw(size).count - count == layout.reserve


def test_an_image_below_its_reserve_exports_nothing() -> None:
    layout = Layout(16 * MIB)
    assert layout.effective(RawSize(16 * MIB)) == EffectiveSize(0)
    with pytest.raises(SizeError, match="smaller than its reserve"):
        layout.effective(RawSize(16 * MIB - 1))


@pytest.mark.parametrize("kind", [RawSize, EffectiveSize, Layout])
def test_nothing_is_negative(kind: type) -> None:
    with pytest.raises(SizeError):
        kind(-1)


def test_raw_and_effective_do_not_mix() -> None:
    raw: Any = RawSize(MIB)
    effective: Any = EffectiveSize(MIB)
    assert raw != effective
    for mixing in (operator.lt, operator.add, operator.sub):
        with pytest.raises(TypeError):
            mixing(raw, effective)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((0, 0, 1), "objectSize"),
        ((2 * KIB, 2 * KIB, 1), "objectSize"),
        ((64 * MIB, 64 * MIB, 1), "objectSize"),
        ((3 * MIB, 3 * MIB, 1), "objectSize"),
        ((-4 * MIB, 4 * MIB, 1), "objectSize"),
        ((4 * MIB, 0, 2), "stripeUnit"),
        ((4 * MIB, -4096, 2), "stripeUnit"),
        ((4 * MIB, 3 * MIB, 2), "stripeUnit"),
        ((4 * MIB, 8 * MIB, 2), "stripeUnit"),
        ((4 * MIB, MIB, 1), "stripeCount"),
        ((4 * MIB, 4 * MIB, 0), "stripeCount"),
        ((4 * MIB, 4 * MIB, 1025), "stripeCount"),
    ],
)
def test_geometries_that_librbd_does_not_take(
    arguments: tuple[int, int, int],
    why: str,
) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        Striping(*arguments)


@pytest.mark.parametrize(
    ("required", "limit", "chosen"),
    [
        (0, 0, DEFAULT_SIZE),
        (1, 0, 4096),
        (4096, 0, 4096),
        (4097, 0, 8192),
        (4097, 8192, 8192),
        (GIB, GIB, GIB),
        (0, GIB, GIB),
        (0, 2 * GIB, DEFAULT_SIZE),
        (0, 5000, 4096),
        (0, 4096, 4096),
        (LARGEST_IMAGE, 0, LARGEST_IMAGE),
        (1, INT64_MAX, 4096),
    ],
)
def test_what_a_range_chooses(required: int, limit: int, chosen: int) -> None:
    asked = CapacityRange(required, limit)
    assert asked.choose() == EffectiveSize(chosen)
    assert asked.admits(EffectiveSize(chosen))


@pytest.mark.parametrize(
    ("required", "limit"),
    [
        (4097, 8191),
        (1, 4095),
        (4096 * 3 + 1, 4096 * 3 + 2),
        (0, 1),
        (0, 4095),
        (LARGEST_IMAGE + 1, 0),
        (INT64_MAX, 0),
        (INT64_MAX, INT64_MAX),
    ],
)
def test_ranges_that_no_volume_satisfies(required: int, limit: int) -> None:
    with pytest.raises(SizeError):
        CapacityRange(required, limit).choose()


@pytest.mark.parametrize(
    ("required", "limit"),
    [(-1, 0), (0, -1), (2, 1), (INT64_MAX, 1), (INT64_MAX + 1, 0), (0, INT64_MAX + 1)],
)
def test_ranges_that_make_no_sense(required: int, limit: int) -> None:
    with pytest.raises(InvalidRequestError):
        CapacityRange(required, limit)


@given(st.integers(0, INT64_MAX), st.integers(0, INT64_MAX))
def test_a_choice_is_whole_blocks_inside_the_range(required: int, limit: int) -> None:
    if limit and limit < required:
        return
    asked = CapacityRange(required, limit)
    try:
        size = asked.choose()
    except SizeError:
        block = round_up(max(required, 1), BLOCK_SIZE)
        assert block > LARGEST_IMAGE or (limit and block > limit)
        return
    assert size.count % BLOCK_SIZE == 0
    assert 0 < size.count <= LARGEST_IMAGE
    assert asked.admits(size)


@given(st.integers(0, INT64_MAX), st.integers(1, INT64_MAX))
def test_rounding_up(value: int, unit: int) -> None:
    rounded = round_up(value, unit)
    assert rounded % unit == 0
    assert 0 <= rounded - value < unit


@pytest.mark.parametrize(
    ("size", "admitted"),
    [(99, False), (100, True), (200, True), (201, False)],
)
def test_an_existing_volume_is_judged_by_both_ends(size: int, admitted: bool) -> None:
    assert CapacityRange(100, 200).admits(EffectiveSize(size)) is admitted
    assert CapacityRange(100).admits(EffectiveSize(1 << 60))
    assert CapacityRange().admits(EffectiveSize(0))
