# SPDX-License-Identifier: Apache-2.0
"""How long an owner of a half-made image is taken for alive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from csi_driver.images.port import LockOwner

DEAD_AFTER: Final = 15.0
"""Seconds.  A create takes under one; and breaking a lock fences its owner, so
one that is only slow fails instead of doing harm."""


class LockPatience:
    """Remembers since when each image has been seen with which lock owner."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since: dict[str, tuple[LockOwner, float]] = {}

    def presumed_dead(self, image_id: str, owner: LockOwner) -> bool:
        """Tell whether this very owner has held the lock for DEAD_AFTER."""
        now = self._clock()
        with self._lock:
            seen, since = self._since.get(image_id, (None, now))
            if seen != owner:
                self._since[image_id] = (owner, now)
                return False
            return now - since >= DEAD_AFTER

    def forget(self, image_id: str) -> None:
        """Drop what is remembered of an image that is finished."""
        with self._lock:
            self._since.pop(image_id, None)
