# SPDX-License-Identifier: Apache-2.0
"""Fault wrappers around any connector: crash or fail at the Nth call to Ceph.

Every method of Ceph, Pool and Image that is called through the wrapper counts
as one step.  At one chosen step the process is killed, or an error is raised,
either before the call is carried out or after it.  Running a killing fault in
a process of its own is left to `crash`.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import signal
import threading
from collections.abc import Callable
from typing import Any
from typing import Final
from typing import Self
from typing import cast

from csi_driver.domain.clusters import CephUser
from csi_driver.domain.errors import DriverError
from csi_driver.images.port import Ceph
from csi_driver.images.port import Connector

_OPENERS: Final = {
    "pool": "pool",
    "pool_at": "pool",
    "at": "pool",
    "open_raw": "image",
    "open_parent": "image",
    "open_loaded": "image",
}
"""Methods whose result is wrapped in its turn, and what it counts as."""


class When(enum.Enum):
    """Where in the chosen step the fault strikes."""

    BEFORE = "before"
    """Nothing of the call was carried out."""
    AFTER = "after"
    """Ceph has carried it out, the caller never learns of it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the step numbered `at`, from 1; never if `at` is 0.

    `error` is raised; without one the process kills itself.
    """

    at: int
    when: When = When.BEFORE
    error: DriverError | None = None

    def strike(self) -> None:
        """Raise the error or end the process, as SIGKILL would."""
        if self.error is not None:
            raise self.error
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()  # the signal is on its way to some thread of ours


class Steps:
    """Counts the steps of all handles made through one connector.

    `names` are the calls in their order; `watch` is told of each one before
    it is carried out.
    """

    def __init__(
        self,
        fault: Fault,
        watch: Callable[[int, str], None] | None = None,
    ) -> None:
        self.fault: Final = fault
        self.names: Final[list[str]] = []
        self._watch = watch
        self._lock = threading.Lock()

    def run[**P, R](
        self,
        name: str,
        call: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Carry out one step, with the fault if it is the chosen one."""
        with self._lock:
            self.names.append(name)
            number = len(self.names)
        if self._watch is not None:
            self._watch(number, name)
        chosen = number == self.fault.at
        if chosen and self.fault.when is When.BEFORE:
            self.fault.strike()
        result = call(*args, **kwargs)
        if chosen and self.fault.when is When.AFTER:
            self.fault.strike()
        return result


class _Counted:
    """Stands in for a Ceph, Pool or Image and counts its method calls."""

    def __init__(self, target: Any, kind: str, steps: Steps) -> None:
        self._target = target
        self._kind = kind
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def step(*args: Any, **kwargs: Any) -> Any:
            result = self._steps.run(f"{self._kind}.{name}", found, *args, **kwargs)
            if name in _OPENERS:
                return _Counted(result, _OPENERS[name], self._steps)
            return result

        return step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        return True


class FaultyConnector:
    """A connector whose calls are counted, one of which goes wrong."""

    def __init__(self, connector: Connector, steps: Steps) -> None:
        self._connector = connector
        self.steps: Final = steps

    def connect(self, cluster: str, user: CephUser | None = None) -> Ceph:
        """Connect; the connection counts as a step, too."""
        made = self.steps.run("connect", self._connector.connect, cluster, user)
        return cast("Ceph", _Counted(made, "ceph", self.steps))
