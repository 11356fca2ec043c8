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

_OURS: Final = "this process"


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

    def presumed_dead(self, image: str, owner: str, *, times: int = 1) -> bool:
        """Tell whether this image has been in these hands for so long, or times that.

        The first question about an image is when the waiting begins.
        """
        now = self._clock()
        with self._lock:
            seen, since = self._since.get(image, ("", now))
            if seen != owner:
                self._since[image] = (owner, now)
                return False
            return now - since >= times * self._dead_after

    def begin(self, image: str) -> None:
        """Note that this process has the image in hand itself."""
        with self._lock:
            self._since[image] = (_OURS, self._clock())

    def ours_or_dead(self, image: str, owner: str) -> bool:
        """As `presumed_dead`; True as well for what this process has in hand."""
        with self._lock:
            seen, _ = self._since.get(image, ("", 0.0))
        return seen == _OURS or self.presumed_dead(image, owner)

    def forget(self, image: str) -> None:
        """Drop what is remembered of an image that is finished."""
        with self._lock:
            self._since.pop(image, None)
