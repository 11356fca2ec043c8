# SPDX-License-Identifier: Apache-2.0
"""What one measurement says: figures, ratio, goal, and whether the goal holds.

Pure: no clock, no Ceph.  A missed goal is a result, never an error.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

_DIGITS = 3
"""Figures are rounded to what they can mean on a shared machine."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on our figure (in its own unit) or on the ratio."""

    of: Literal["ours", "ratio"]
    bound: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.of} {self.bound} {self.limit:g}"

    def met_by(self, value: float) -> bool:
        """Tell whether a figure keeps the bound; equality does."""
        return value <= self.limit if self.bound == "<=" else value >= self.limit


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the output.

    `ratio_of` says which way the ratio goes: "ours/rival", or "rival/ours"
    where a small figure is good and the goal says how many times faster.
    """

    work: str
    ours: float
    unit: str
    rival: float | None = None
    rival_name: str = ""
    ratio_of: Literal["ours/rival", "rival/ours"] = "ours/rival"
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """The quotient of the two figures; None without a rival or over zero."""
        pair = (self.ours, self.rival)
        above, below = pair if self.ratio_of == "ours/rival" else pair[::-1]
        if above is None or not below:
            return None
        return above / below

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met, by unrounded figures; None without a goal."""
        if self.goal is None:
            return None
        value = self.ours if self.goal.of == "ours" else self.ratio
        return value is not None and self.goal.met_by(value)

    def to_json(self) -> str:
        """Return the result as one JSON object on one line."""
        return json.dumps(
            {
                "work": self.work,
                "ours": rounded(self.ours),
                "rival": rounded(self.rival),
                "rival_name": self.rival_name or None,
                "unit": self.unit,
                "ratio": rounded(self.ratio),
                "goal": str(self.goal) if self.goal else None,
                "holds": self.holds,
            }
        )

    def to_row(self) -> str:
        """Return the result as one row under `HEADING`."""
        verdict = {True: "yes", False: "NO", None: ""}[self.holds]
        return _row(
            self.work,
            _figure(self.ours),
            _figure(self.rival),
            self.unit,
            _figure(self.ratio),
            str(self.goal or ""),
            verdict,
            self.rival_name,
        )


def middle(values: Sequence[float]) -> float:
    """Return the median: one disturbed run does not move it."""
    return statistics.median(values)


def rounded(value: float | None) -> float | None:
    """Round to three significant digits, integers of more digits kept whole."""
    if value is None or value == 0:
        return value
    if abs(value) >= 10**_DIGITS:
        return float(round(value))
    return float(f"{value:.{_DIGITS}g}")


def _figure(value: float | None) -> str:
    shown = rounded(value)
    if shown is None:
        return ""
    return f"{shown:.0f}" if abs(shown) >= 10**_DIGITS else f"{shown:g}"


def _row(*cells: str) -> str:
    widths = (47, 7, 7, 6, 6, 14, 6)
    left = {0, 3, 5, 6}
    padded = [
        cell.ljust(width) if index in left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=False))
    ]
    return "  ".join([*padded, cells[-1]]).rstrip()


HEADING = _row("work", "ours", "rival", "unit", "ratio", "goal", "holds", "rival is")
