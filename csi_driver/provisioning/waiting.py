# SPDX-License-Identifier: Apache-2.0
"""How often a tombstone is looked at that snapshots or clones still need.

It may wait for months, and a look opens its image.  So looks at one that was
kept become rarer, until something was deleted that may have been in its way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

FIRST: Final = 5.0
LONGEST: Final = 300.0
"""Seconds from one look to the next."""


class Waiting:
    """Remembers when each tombstone's next look is due.  Safe between threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[str, tuple[float, float]] = {}

    def due(self, image: str) -> bool:
        """Tell whether it is time for a look."""
        with self._lock:
            at, _ = self._due.get(image, (0.0, 0.0))
            return self._clock() >= at

    def kept(self, image: str) -> None:
        """Note a look that was in vain: the next one waits twice as long."""
        with self._lock:
            _, pause = self._due.get(image, (0.0, FIRST / 2))
            pause = min(2 * pause, LONGEST)
            self._due[image] = (self._clock() + pause, pause)

    def forget(self, image: str) -> None:
        """Drop what is remembered of a tombstone that is gone."""
        with self._lock:
            self._due.pop(image, None)

    def reset(self) -> None:
        """Have all of them looked at: something was deleted."""
        with self._lock:
            self._due.clear()
