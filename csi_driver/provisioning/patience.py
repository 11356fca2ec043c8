# SPDX-License-Identifier: Apache-2.0
"""How long the maker of a half-made volume is taken for alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

DEAD_AFTER: Final = 15.0
"""Seconds.  A create takes under one; and breaking a lock fences its owner, so
one that is only slow fails instead of doing harm."""


class LockPatience:
    """Remembers since when each image has been seen in whose hands.

    `dead_after` is in seconds.
    """

    def __init__(
        self,
        dead_after: float = DEAD_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dead_after = dead_after
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, tuple[str, float]] = {}

    def presumed_dead(self, image: str, owner: str) -> bool:
        """Tell whether this image has been in these hands for so long."""
        now = self._clock()
        with self._lock:
            seen, since = self._since.get(image, ("", now))
            if seen != owner:
                self._since[image] = (owner, now)
                return False
            return now - since >= self._dead_after

    def forget(self, image: str) -> None:
        """Drop what is remembered of an image that is finished."""
        with self._lock:
            self._since.pop(image, None)
