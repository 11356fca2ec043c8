# SPDX-License-Identifier: Apache-2.0
"""Being told to end, by SIGTERM or SIGINT, in whichever thread that arrives.

Linux may hand a signal to any thread.  Python's handlers run in the main one,
which does not notice while it sleeps in a lock or in poll: an Event set by a
handler was lost in one of some fifty ends of a busy controller.  The wakeup
descriptor is written at once, by the thread that got the signal.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Final

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def told_to_end() -> Iterator[int]:
    """Yield a descriptor that becomes readable when one of ENDING has come.

    Called in the main thread; handlers are as before afterwards.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {each: signal.signal(each, _leave_to_descriptor) for each in ENDING}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former)
        os.close(reading)
        os.close(writing)


def wait_until(told: int) -> None:
    """Sleep until the descriptor of `told_to_end` is readable."""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.poll()


def _leave_to_descriptor(_number: int, _frame: FrameType | None) -> None:
    """Only a signal with a handler is written to the wakeup descriptor."""
