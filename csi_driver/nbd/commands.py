# SPDX-License-Identifier: Apache-2.0
"""How other threads talk to a loop: commands that it executes between turns."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from csi_driver.domain.errors import PreconditionError


class CommandQueue:
    """Commands for one loop, announced by an eventfd.

    Until `adopt` names the loop's thread, and within that thread, a command is
    executed at once by whoever gives it.  After `close` commands are refused
    with PreconditionError.
    """

    def __init__(self) -> None:
        self._commands: deque[Callable[[], None]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.RLock()  # a signal handler may come in between
        self._thread: int | None = None
        self._closed = False

    @property
    def adopted(self) -> bool:
        """Whether a loop runs, or ran."""
        return self._thread is not None

    def adopt(self) -> None:
        """Make the calling thread the loop's; PreconditionError the second time."""
        with self._lock:
            if self._closed or self._thread is not None:
                raise PreconditionError("the loop runs already or has ended")
            self._thread = threading.get_ident()
            os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        """Return the descriptor that is readable while commands wait."""
        return self._event

    def post(self, command: Callable[[], None]) -> None:
        """Have `command` executed later and return; ignored after `close`."""
        with self._lock:
            if not self._closed:
                self._commands.append(command)
                os.eventfd_write(self._event, 1)

    def call[Result](self, command: Callable[[], Result]) -> Result:
        """Have `command` executed; return its result or raise its error."""
        future: Future[Result] = Future()

        def execute() -> None:
            if self._closed:
                future.set_exception(_ended())
                return
            try:
                future.set_result(command())
            except BaseException as error:  # noqa: BLE001  # it is the caller's
                future.set_exception(error)

        with self._lock:
            if self._closed:
                raise _ended()
            if self._thread is None or self._thread == threading.get_ident():
                execute()
            else:
                self.post(execute)
        return future.result()

    def execute(self) -> None:
        """Execute what waits; for the loop, when the descriptor is readable."""
        os.eventfd_read(self._event)
        while self._commands:
            self._commands.popleft()()

    def close(self) -> None:
        """Refuse what waits and everything that comes."""
        with self._lock:
            self._closed = True
            while self._commands:
                self._commands.popleft()()
            os.close(self._event)


def _ended() -> PreconditionError:
    return PreconditionError("the loop has ended")
