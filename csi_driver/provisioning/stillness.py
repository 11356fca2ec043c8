# SPDX-License-Identifier: Apache-2.0
"""For how long something has looked the same, each time that it was looked at.

Measured by this process's own clock and memory: clocks of other machines, and
times that they wrote down, can be wrong by any amount, and a volume that is taken
away too early costs more than one that is taken away late.  A process that is
started anew begins to wait anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Collection


class Stillness:
    """Remembers what was seen under each key, and for how long.  For one thread."""

    def __init__(
        self, longest_gap: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Of the time between two looks `longest_gap` seconds count at most.

        While Ceph could not be reached, nobody could change anything either.
        """
        self._longest_gap = longest_gap
        self._clock = clock
        self._kept: dict[str, tuple[object, float, float]] = {}

    def note(self, key: str, seen: object) -> float | None:
        """Return for how many seconds this was seen; None if something else was."""
        now = self._clock()
        before, last, still = self._kept.get(key, (None, now, 0.0))
        if before != seen:
            self._kept[key] = (seen, now, 0.0)
            return None
        still += min(now - last, self._longest_gap)
        self._kept[key] = (seen, now, still)
        return still

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget everything else."""
        self._kept = {key: kept for key, kept in self._kept.items() if key in keys}
