# SPDX-License-Identifier: Apache-2.0
"""How often the collector did what, since the process began; for whoever watches it."""

from __future__ import annotations

import dataclasses
import threading


@dataclasses.dataclass(frozen=True, slots=True)
class Tallies:
    """Counts of what the collector did.

    `removed` tombstones are gone with their images; creates were `given_up` since
    nobody went on with them; what `failed` is tried again at the next look.
    """

    removed: int = 0
    given_up: int = 0
    failed: int = 0


class Tally:
    """Counts; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Tallies()

    @property
    def counts(self) -> Tallies:
        """The counts so far."""
        with self._lock:
            return self._counts

    def removed(self) -> None:
        """Count a tombstone that is gone."""
        self._add(Tallies(removed=1))

    def given_up(self) -> None:
        """Count a create that nobody went on with."""
        self._add(Tallies(given_up=1))

    def failed(self) -> None:
        """Count what could not be done."""
        self._add(Tallies(failed=1))

    def _add(self, more: Tallies) -> None:
        with self._lock:
            now = self._counts
            self._counts = Tallies(
                now.removed + more.removed,
                now.given_up + more.given_up,
                now.failed + more.failed,
            )
