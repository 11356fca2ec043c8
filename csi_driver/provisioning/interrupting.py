# SPDX-License-Identifier: Apache-2.0
"""Signals to a command that must not let go of an image just anywhere.

The first of SIGINT, SIGTERM and SIGHUP is KeyboardInterrupt in the main thread,
and all that was opened is closed on its way out.  A second one there could skip
what has to be waited for, so it only prints why the process has not ended yet.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from types import FrameType
from types import TracebackType
from typing import Final
from typing import Self

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

CLOSING: Final = "ending already: the image has to be closed first"
"""What a signal is answered with while there is nothing else to wait for."""


class Interrupts:
    """Handles the signals within a `with` statement of the main thread.

    Those that were ignored before still are.  In other threads, where Python
    handles no signals, it does nothing.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._before: dict[signal.Signals, signal._HANDLER] = {}
        self._why = ""

    def hold(self, why: str) -> None:
        """From now on a signal ends nothing any more, and `why` is said."""
        self._why = why

    def say(self, text: str) -> None:
        """Say it, if anybody is there: a terminal that is gone ends nothing."""
        with contextlib.suppress(OSError, RuntimeError):  # the latter: amid a print
            self._say(text)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        for each in _ENDING:
            handler = signal.getsignal(each)
            if handler is not signal.SIG_IGN:
                self._before[each] = handler
                signal.signal(each, self._come)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _come(self, number: int, _frame: FrameType | None) -> None:
        if self._why:
            self.say(f"{signal.Signals(number).name}: {self._why}")
            return
        self.hold(CLOSING)
        raise KeyboardInterrupt
