# SPDX-License-Identifier: Apache-2.0
"""Whether this process can do its work: starting, ready, or broken and why."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import PreconditionError

_log = structlog.get_logger(__name__)


class Health:
    """What Probe answers; starts as "not yet ready"."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready = False
        self._failure: str | None = None

    def ready(self) -> bool:
        """Tell whether the process is ready; PreconditionError if it never will be."""
        with self._lock:
            if self._failure is not None:
                raise PreconditionError(self._failure)
            return self._ready

    def check(self, probe: Callable[[], None]) -> None:
        """Run the probe and keep its verdict."""
        failure = None
        try:
            probe()
        except DriverError as error:
            failure = str(error)
            _log.error("not fit for work", reason=failure)
        with self._lock:
            self._ready = failure is None
            self._failure = failure

    def check_beside(self, probe: Callable[[], None]) -> threading.Thread:
        """Run the probe in a thread of its own, so that serving begins at once."""
        thread = threading.Thread(
            target=self.check,
            args=(probe,),
            name="probe",
            daemon=True,
        )
        thread.start()
        return thread
