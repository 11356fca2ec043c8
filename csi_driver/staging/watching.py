# SPDX-License-Identifier: Apache-2.0
"""One thread that looks at the open volumes of this node from time to time.

What happens to a volume between two calls, nobody is answered: so somebody has
to look.  What a look finds, and whom it is told, is left to the observers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Final
from typing import Protocol

import structlog

from csi_driver.datapath.messages import ExportStatus
from csi_driver.domain.errors import DriverError

IDLE_SECONDS: Final = 10.0
"""Between two looks; the datapath asks each worker for a few numbers."""

BUSY_SECONDS: Final = 2.0
"""Between two looks while an observer has something to follow."""

STOP_SECONDS: Final = 2.0

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Sees all open volumes at each look; called from one thread."""

    def look(self, exports: Sequence[ExportStatus]) -> bool:
        """Take them in; True if the next look should come soon."""


class Watch:
    """The thread; `start` and `stop` belong together."""

    def __init__(
        self,
        exports: Callable[[], Iterable[ExportStatus]],
        observers: Sequence[Observer],
        woken: threading.Event,
        *,
        idle: float = IDLE_SECONDS,
        busy: float = BUSY_SECONDS,
    ) -> None:
        """Ask the datapath by `exports`; whoever sets `woken` has it looked soon."""
        self._exports = exports
        self._observers = observers
        self._idle = idle
        self._busy = busy
        self._woken = woken
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look, at once."""
        self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> bool:
        """End; True if the thread has ended within the time.

        One that waits for Ceph is left, and does not keep the process.
        """
        self._ending = True
        self._woken.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._ending:
            pause = self._busy if self._look() else self._idle
            self._woken.wait(pause)
            self._woken.clear()

    def _look(self) -> bool:
        try:
            exports = list(self._exports())
        except DriverError as error:
            _log.debug("nothing to look at", error=str(error))
            return False
        except Exception as error:  # noqa: BLE001  # the next look may go well
            _log.error("looking failed unforeseen", exc_info=error)
            return False
        busy = [self._show(each, exports) for each in self._observers]
        return any(busy)

    def _show(self, observer: Observer, exports: Sequence[ExportStatus]) -> bool:
        try:
            return observer.look(exports)
        except DriverError as error:
            _log.info("a look was in vain", error=str(error))
        except Exception as error:  # noqa: BLE001  # the next look may go well
            _log.error("a look failed unforeseen", exc_info=error)
        return False
