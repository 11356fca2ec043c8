# SPDX-License-Identifier: Apache-2.0
"""What hack/bench prints: ratios, verdicts, JSON lines."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

_FILE: Final = Path(__file__).parents[3] / "hack/benchtools/results.py"
_KEYS: Final = ["work", "ours", "rival", "rival_name", "unit", "ratio", "goal", "holds"]
_POSITIVE: Final = st.floats(min_value=1e-6, max_value=1e9)


def _load() -> ModuleType:
    """Load the module by its path: hack/ is no package of the driver."""
    spec = importlib.util.spec_from_file_location("bench_results", _FILE)
    if spec is None or spec.loader is None:
        raise AssertionError(_FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


results = _load()


def test_a_line_of_json_has_exactly_the_agreed_keys() -> None:
    goal = results.Goal("ratio", ">=", 3)
    line = results.Result("read", 6000.4, "IOPS", 1500.0, "qemu-nbd", goal=goal)
    text = line.to_json()
    assert "\n" not in text
    assert list(json.loads(text)) == _KEYS
    assert json.loads(text) == {
        "work": "read",
        "ours": 6000,
        "rival": 1500,
        "rival_name": "qemu-nbd",
        "unit": "IOPS",
        "ratio": 4.0,
        "goal": "ratio >= 3",
        "holds": True,
    }


def test_without_rival_and_goal_the_fields_are_null() -> None:
    found = json.loads(results.Result("create", 0.41234, "s").to_json())
    assert list(found) == _KEYS
    assert found["ours"] == 0.412
    absent = ("rival", "rival_name", "ratio", "goal", "holds")
    assert [found[key] for key in absent] == [None] * 5


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        ("<=", 0.5, True),
        ("<=", 0.5001, False),
        (">=", 0.5, True),
        (">=", 0.4999, False),
    ],
)
def test_a_bound_includes_its_limit(bound: str, value: float, holds: bool) -> None:
    goal = results.Goal("ours", bound, 0.5)
    assert results.Result("w", value, "s", goal=goal).holds is holds


def test_a_figure_just_beyond_its_goal_is_not_rounded_into_it() -> None:
    goal = results.Goal("ours", "<=", 0.2)
    line = results.Result("stage", 0.20004, "s", goal=goal)
    assert json.loads(line.to_json())["ours"] == 0.2
    assert line.holds is False
    assert " NO" in line.to_row()


def test_times_faster_is_the_rivals_time_over_ours() -> None:
    goal = results.Goal("ratio", ">=", 25)
    line = results.Result("create", 0.5, "s", 20.0, "rbd", "rival/ours", goal)
    assert line.ratio == pytest.approx(40)
    assert line.holds is True


def test_a_goal_on_a_ratio_that_does_not_exist_is_missed() -> None:
    goal = results.Goal("ratio", ">=", 1)
    assert results.Result("w", 5.0, "s", 0.0, "dead rival", goal=goal).holds is False
    assert results.Result("w", 5.0, "s", goal=goal).holds is False


@given(_POSITIVE, _POSITIVE)
def test_the_two_directions_of_a_ratio_are_reciprocal(
    ours: float, rival: float
) -> None:
    one = results.Result("w", ours, "s", rival).ratio
    other = results.Result("w", ours, "s", rival, ratio_of="rival/ours").ratio
    assert one * other == pytest.approx(1)


@given(_POSITIVE)
def test_rounding_keeps_three_digits_and_whole_numbers(value: float) -> None:
    rounded = results.rounded(value)
    assert math.isclose(rounded, value, rel_tol=0.005)
    if value >= 1000:
        assert rounded == round(value)


@given(st.lists(_POSITIVE, min_size=3, max_size=9).filter(lambda v: len(v) % 2))
def test_one_disturbed_run_leaves_the_median_within_the_others(
    values: list[float],
) -> None:
    disturbed = [*values[:-1], max(values) * 100]
    assert results.middle(disturbed) <= max(values)
    assert min(values) <= results.middle(disturbed)


def test_rows_stand_under_their_heading() -> None:
    goal = results.Goal("ratio", ">=", 3)
    row = results.Result("read", 123456.7, "IOPS", 12000.0, "qemu", goal=goal).to_row()
    assert row.startswith("read ")
    assert row.index("123457") + 6 == results.HEADING.index("ours") + 4
    assert row.index("ratio >= 3") == results.HEADING.index("goal")
    assert row.endswith("qemu")
