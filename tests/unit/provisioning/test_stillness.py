# SPDX-License-Identifier: Apache-2.0
"""How long something is said to have looked the same."""

from __future__ import annotations

from csi_driver.provisioning.stillness import Stillness


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_time_is_counted_from_the_first_look_on() -> None:
    clock = Clock()
    still = Stillness(60, clock)
    assert still.note("a", "x") is None
    clock.now += 30
    assert still.note("a", "x") == 30
    assert still.note("b", "x") is None
    clock.now += 20
    assert still.note("a", "x") == 50


def test_a_change_begins_anew_also_one_back() -> None:
    clock = Clock()
    still = Stillness(60, clock)
    for seen in ("x", "y", "x"):
        assert still.note("a", seen) is None
        clock.now += 30
    assert still.note("a", "x") == 30


def test_a_long_gap_between_two_looks_counts_little() -> None:
    """Ceph was away, or this machine stood still: nobody could go on."""
    clock = Clock()
    still = Stillness(60, clock)
    still.note("a", "x")
    clock.now += 3600
    assert still.note("a", "x") == 60


def test_what_is_gone_is_forgotten() -> None:
    clock = Clock()
    still = Stillness(60, clock)
    still.note("a", "x")
    still.note("b", "x")
    still.keep_only({"b"})
    clock.now += 1
    assert still.note("a", "x") is None
    assert still.note("b", "x") == 1
