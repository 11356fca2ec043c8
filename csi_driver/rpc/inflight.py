# SPDX-License-Identifier: Apache-2.0
"""One call at a time per volume or snapshot, or per name while it has no id yet.

Calls of the same process are kept apart here, at no cost.  Two processes are
kept apart by compare-and-set on the record and by the image's lock.
"""

from __future__ import annotations

import threading

from csi_driver.domain.errors import PendingError


class InFlight:
    """The set of keys that somebody is at work on; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working: dict[str, str] = {}

    def enter(self, key: str, method: str) -> None:
        """Claim a key, or raise PendingError at once, naming who has it."""
        with self._lock:
            present = self._working.get(key)
            if present is None:
                self._working[key] = method
                return
        message = f"{present} is still at work on {key}; try again when it is done"
        raise PendingError(message)

    def leave(self, key: str) -> None:
        """Give a key back; KeyError if nobody has it."""
        with self._lock:
            del self._working[key]

    def keys(self) -> frozenset[str]:
        """Return the keys that are taken now."""
        with self._lock:
            return frozenset(self._working)
