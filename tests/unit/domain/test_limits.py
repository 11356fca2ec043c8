# SPDX-License-Identifier: Apache-2.0
"""I/O limits: what a VolumeAttributesClass may say, and what librbd is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.limits import BANDWIDTH_SETTING
from csi_driver.domain.limits import IOPS_SETTING
from csi_driver.domain.limits import LARGEST_LIMIT
from csi_driver.domain.limits import NO_LIMITS
from csi_driver.domain.limits import IoLimits
from tests.unit.domain.strategies import LIMITS

SOME = IoLimits(iops=100, bandwidth=1 << 20)


@given(LIMITS)
def test_limits_come_back_as_they_were(limits: IoLimits) -> None:
    assert IoLimits.from_json_object(limits.to_json_object()) == limits


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("104857600", 104857600),
        ("5k", 5000),
        ("5M", 5_000_000),
        ("1G", 10**9),
        ("1T", 10**12),
        ("2Ki", 2048),
        ("100Mi", 100 << 20),
        ("1Gi", 1 << 30),
        ("1Ti", 1 << 40),
        (str(LARGEST_LIMIT), LARGEST_LIMIT),
    ],
)
def test_bandwidth_is_a_quantity(text: str, value: int) -> None:
    assert NO_LIMITS.changed_by({"bandwidth": text}) == IoLimits(0, value)


def test_what_is_not_named_stays() -> None:
    assert SOME.changed_by({}) == SOME
    assert SOME.changed_by({"iops": "0"}) == IoLimits(0, 1 << 20)
    assert SOME.changed_by({"bandwidth": "0"}) == IoLimits(100, 0)
    assert SOME.changed_by({"iops": "7", "bandwidth": "1k"}) == IoLimits(7, 1000)


BAD = ["", "-1", "+1", "1.5", " 1", "1 ", "1e3", "0x1", "\u0661", "1\n", "9" * 30]


@pytest.mark.parametrize("text", [*BAD, "1k", "1Mi"])
def test_operations_are_whole_numbers(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="iops"):
        SOME.changed_by({"iops": text, "bandwidth": "1"})


@pytest.mark.parametrize("text", [*BAD, "1m", "1KI", "Mi", "1Pi", "99999999Ti"])
def test_bytes_are_a_whole_quantity(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="bandwidth"):
        SOME.changed_by({"bandwidth": text})


@given(st.text().filter(lambda name: name not in {"iops", "bandwidth"}))
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="known are iops, bandwidth"):
        SOME.changed_by({name: "1", "iops": "1"})


@given(LIMITS)
def test_librbd_is_told_digits_or_nothing(limits: IoLimits) -> None:
    settings = limits.settings()
    assert set(settings) == {IOPS_SETTING, BANDWIDTH_SETTING}
    for value, count in zip(
        (settings[IOPS_SETTING], settings[BANDWIDTH_SETTING]),
        (limits.iops, limits.bandwidth),
        strict=True,
    ):
        assert value == (str(count) if count else None)
