# SPDX-License-Identifier: Apache-2.0
"""How the registration with kubelet stands: what is told about it, and by whom.

The thread that keeps the socket in place and the servicer that kubelet calls
write it; readiness, metrics and logs read it.  Nothing is done here.
"""

from __future__ import annotations

import dataclasses
import enum
import threading

from csi_driver.domain.errors import PendingError
from csi_driver.domain.errors import UnavailableError


class Phase(enum.Enum):
    """Where the registration is."""

    ABSENT = enum.auto()
    """There is no socket for kubelet to find."""
    OFFERED = enum.auto()
    """The socket is there and kubelet has not decided."""
    REGISTERED = enum.auto()
    REFUSED = enum.auto()


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """A phase, and why it is not REGISTERED: a sentence that says what to do.

    `stale` is set when only a new process can come to another phase.
    """

    phase: Phase
    reason: str = ""
    stale: bool = False


class Standing:
    """The registration's state; begins as ABSENT.  For any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state = State(Phase.ABSENT, "this driver does not serve yet")

    @property
    def state(self) -> State:
        """How it stands now."""
        with self._changed:
            return self._state

    @property
    def registered(self) -> bool:
        """Whether kubelet has the driver registered, as far as it told."""
        return self.state.phase is Phase.REGISTERED

    def require_registered(self) -> None:
        """PendingError or UnavailableError unless kubelet has it registered."""
        state = self.state
        if state.phase is Phase.OFFERED:
            raise PendingError(state.reason)
        if state.phase is not Phase.REGISTERED:
            raise UnavailableError(state.reason)

    def require_fresh(self) -> None:
        """UnavailableError if nothing but a restart of the process helps."""
        state = self.state
        if state.stale:
            raise UnavailableError(state.reason)

    def set(self, state: State) -> bool:
        """Replace the state; True if it was another one."""
        with self._changed:
            before, self._state = self._state, state
            self._changed.notify_all()
        return before != state

    def replace(self, known: State, state: State) -> bool:
        """Replace the state if it is `known`; True if it was."""
        with self._changed:
            if self._state != known:
                return False
            self._state = state
            self._changed.notify_all()
        return True

    def wait_for_change(self, known: State, seconds: float) -> None:
        """Return when the state is another than `known`, or after a while."""
        with self._changed:
            self._changed.wait_for(lambda: self._state != known, seconds)
