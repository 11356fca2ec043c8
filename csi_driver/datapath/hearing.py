# SPDX-License-Identifier: Apache-2.0
"""Hearing of the work that other clients ask the owner of an image's lock for.

librbd carries it out in the owner, and the image is ruined if the owner closes
midway.  So a worker listens from before it takes the lock until right before it
closes the image, and stays meanwhile.  What is said is read by `images.foreign`;
what becomes of a volume that was flattened so is the matter of `flattening`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final
from typing import Protocol

import structlog

from csi_driver.datapath.staying import show_staying
from csi_driver.domain.errors import DriverError
from csi_driver.images.foreign import FLAT_SILENCE_SECONDS
from csi_driver.images.foreign import SILENCE_SECONDS
from csi_driver.images.foreign import ForeignWork
from csi_driver.images.foreign import Message

_STAY_SECONDS: Final = 0.2
_REMIND_SECONDS: Final = 1.0
_log = structlog.get_logger(__name__)


class Watch(Protocol):
    """A watch on an image's header."""

    def close(self) -> None:
        """End it; nothing is heard afterwards, and repeating it is harmless."""


class Watched(Protocol):
    """What is asked of an image here."""

    def has_parent(self) -> bool:
        """Tell whether it reads through a parent."""

    def watch(self, on_notify: Callable[[bytes], None]) -> Watch:
        """Hear what librbd's clients tell each other about it."""


class Hearing:
    """What other clients' work is under way in this process, for one clone.

    While there is some, the process is named as one that stays.  Methods may be
    called from any thread.
    """

    def __init__(self, name: str, image: Watched) -> None:
        self._name = name
        self._image = image
        self._foreign = ForeignWork()
        self._silence = SILENCE_SECONDS
        self._lock = threading.Lock()
        self._owning = False
        self._staying = False
        self._tell: Callable[[Message], None] = lambda _: None
        self._watch = image.watch(self._hear)

    def own(self, acquire: Callable[[], None]) -> None:
        """Take the lock: what is heard of from then on is done here."""
        self._owning = True
        try:
            acquire()
        except BaseException:
            self.disown()
            raise

    def disown(self) -> None:
        """Say that the lock is another's, or lost: nothing is done here then."""
        self._owning = False
        self._look()

    def tell(self, listener: Callable[[Message], None]) -> None:
        """Have messages given to `listener`, in librados' threads."""
        self._tell = listener

    def must_stay(self) -> bool:
        """Tell whether another client's work is under way that a close would ruin."""
        if not self._look():
            return False
        try:
            if not self._image.has_parent():
                self._silence = FLAT_SILENCE_SECONDS
        except DriverError as error:  # fenced: the lock is lost, and the work with it
            _log.warning("not staying", volume=self._name, error=str(error))
            self.disown()
        return self._look()

    def await_end(self) -> None:
        """Wait as long as the image must not be closed."""
        told = False
        while self.must_stay():
            if not told:
                _log.warning(
                    "closing has to wait for what another client asked for",
                    volume=self._name,
                )
                told = True
            time.sleep(_STAY_SECONDS)

    def let_go(self) -> None:
        """Return when the image may be closed, which has to follow at once.

        What was said before the watch ended is known when it has ended; if that
        was a request, it is waited for with a new watch.
        """
        while True:
            self.await_end()
            self._watch.close()
            if not self.must_stay():
                return
            try:
                self._watch = self._image.watch(self._hear)
            except DriverError as error:
                _log.warning("waiting unheard", volume=self._name, error=str(error))

    # ------------------------------------------------------- librados' threads

    def _hear(self, payload: bytes) -> None:
        message = self._foreign.hear(payload, time.monotonic())
        if message is not None:
            self._look()
            self._tell(message)

    # ---------------------------------------------------------------- details

    def _look(self) -> bool:
        """Tell whether to stay by what was heard alone, and show it."""
        with self._lock:
            now = time.monotonic()
            staying = self._owning and self._foreign.under_way(now, self._silence)
            if staying is not self._staying:
                self._staying = staying
                show_staying(staying=staying)
                if staying:
                    threading.Thread(
                        target=self._remind, daemon=True, name="staying"
                    ).start()
        return staying

    def _remind(self) -> None:
        """Look again and again: of an end that is not heard only time tells.

        librbd is not asked, so that a worker that hangs in it can be killed.
        """
        while self._look():
            time.sleep(_REMIND_SECONDS)
