# SPDX-License-Identifier: Apache-2.0
"""Keeping the registration socket in place for as long as the driver serves.

A socket that vanished or was replaced is made anew within a second or two.  After
a refusal it stays, since kubelet tries again by itself, and is made anew after a
wait that grows, which has kubelet begin afresh.  Whatever happens, the process
goes on: what is staged needs no registration.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from csi_driver.domain.errors import UnavailableError
from csi_driver.rpc.registration.place import RegistrationSocket
from csi_driver.rpc.registration.place import StaleDirectoryError
from csi_driver.rpc.registration.servicer import Driver
from csi_driver.rpc.registration.servicer import Registration
from csi_driver.rpc.registration.standing import Phase
from csi_driver.rpc.registration.standing import Standing
from csi_driver.rpc.registration.standing import State

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between two looks at the socket, and before trying again.

    The first wait doubles up to the longest one, until kubelet registers.
    """

    look: float = 1.0
    first: float = 2.0
    longest: float = 60.0


USUAL: Final = Pace()


@contextlib.contextmanager
def offered(
    path: Path, driver: Driver, standing: Standing, pace: Pace = USUAL
) -> Iterator[None]:
    """Keep the driver registered at `path` inside; kubelet forgets it at the end.

    To be entered when the CSI socket serves: kubelet calls it before it answers.
    """
    offer = _Offer(path, Registration(driver, standing), standing, pace)
    thread = threading.Thread(target=offer.run, name="registration", daemon=True)
    thread.start()
    try:
        yield
    finally:
        offer.stop()
        thread.join()


class _Offer:
    """What the thread knows; nobody else touches it, but for `stop`."""

    def __init__(
        self, path: Path, servicer: Registration, standing: Standing, pace: Pace
    ) -> None:
        self._path = path
        self._servicer = servicer
        self._standing = standing
        self._pace = pace
        self._stopping = threading.Event()
        self._socket: RegistrationSocket | None = None
        self._wait = pace.first
        self._until: float | None = None

    def stop(self) -> None:
        """Have `run` take the socket away and return."""
        self._stopping.set()
        self._absent("this driver is ending")

    def run(self) -> None:
        """Look after the socket until told to stop."""
        while not self._stopping.is_set():
            state = self._standing.state
            if self._socket is None:
                self._make()
            elif not self._socket.in_place:
                _log.warning("the registration socket is gone", path=str(self._path))
                self._drop()
                self._until = None
                continue
            elif state.phase is Phase.REGISTERED:
                self._until, self._wait = None, self._pace.first
            elif state.phase is Phase.REFUSED and self._waited():
                self._drop()
                continue
            self._standing.wait_for_change(state, self._pace.look)
        self._drop()
        self._absent("this driver is ending")

    def _make(self) -> None:
        if self._until is not None and not self._waited():
            return
        before = self._standing.state
        try:
            self._socket = RegistrationSocket(self._path, self._servicer)
        except UnavailableError as error:
            stale = isinstance(error, StaleDirectoryError)
            if self._standing.set(State(Phase.ABSENT, str(error), stale)):
                _log.error("not offered to kubelet", reason=str(error))
            self._waited()
            return
        reason = (
            "kubelet has not registered this driver yet: it is offered at"
            f" {self._path}, which has to lie in kubelet's plugins_registry"
        )
        # Unless kubelet has decided in this moment.
        self._standing.replace(before, State(Phase.OFFERED, reason))
        _log.info("offered to kubelet", path=str(self._path))

    def _waited(self) -> bool:
        """Begin to wait, each time twice as long; or tell whether that is over."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._wait
            self._wait = min(2 * self._wait, self._pace.longest)
        elif now >= self._until:
            self._until = None
        return self._until is None

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._absent("the registration socket is being made anew")

    def _absent(self, reason: str) -> None:
        self._standing.set(State(Phase.ABSENT, reason))
