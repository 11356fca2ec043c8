# SPDX-License-Identifier: Apache-2.0
"""Turns: one handle of this process at a time changes the snapshots of an image.

Whoever changes them owns the exclusive lock until it closes, and librbd has the
owner carry out what other handles ask for.  An owner that is closed meanwhile ends
its process (librbd 18.2.7: AsyncOpTracker's assertion that no operation is pending,
or a task that runs on when its client is gone).  Owners in other processes are
theirs to close; those in this one wait for each other.
"""

from __future__ import annotations

import threading
from typing import Final

from csi_driver.domain.errors import PendingError

TURN_SECONDS: Final = 60.0
"""How long a handle waits for its turn: a change takes about a second."""


class Turns:
    """Who changes which image; for any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[str] = set()

    def take(self, image_id: str, seconds: float = TURN_SECONDS) -> None:
        """Wait until nobody else has the image's turn; PendingError if it takes long.

        A handle that has it and asks again waits for itself.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: image_id not in self._taken, seconds):
                message = (
                    f"image {image_id}: another call has been changing its snapshots"
                    f" for {seconds:.0f} s: try again"
                )
                raise PendingError(message)
            self._taken.add(image_id)

    def give_back(self, image_id: str) -> None:
        """Let the next one have it."""
        with self._changed:
            self._taken.remove(image_id)
            self._changed.notify_all()


TURNS: Final = Turns()
"""Those of this process."""
