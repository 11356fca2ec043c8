# SPDX-License-Identifier: Apache-2.0
"""A worker process: waits for one volume, serves it, and ends with it.

`python -m csi_driver.datapath.worker FD` is started by the supervisor with one
end of a socketpair.  The main thread runs the NBD server's loop; one control
thread sleeps on the socketpair.  Nothing else runs here, because a busy Python
thread would take most of the speed.  When the supervisor is gone, the worker
stops serving, closes its image and ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Final

import structlog

from csi_driver.datapath import wire
from csi_driver.datapath.holdings import release
from csi_driver.datapath.messages import CloseImage
from csi_driver.datapath.messages import ConfirmSize
from csi_driver.datapath.messages import Connected
from csi_driver.datapath.messages import Count
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import FlattenImage
from csi_driver.datapath.messages import GrowImage
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import OpenImage
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.messages import Prepare
from csi_driver.datapath.messages import Proceed
from csi_driver.datapath.messages import Ready
from csi_driver.datapath.messages import Release
from csi_driver.datapath.messages import Serving
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Staying
from csi_driver.datapath.messages import TakeSocket
from csi_driver.datapath.prepared import Prepared
from csi_driver.datapath.prepared import prepare
from csi_driver.datapath.session import Session
from csi_driver.datapath.session import open_session
from csi_driver.datapath.worker_log import configure
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import InternalError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import UnavailableError
from csi_driver.keys.hygiene import harden
from csi_driver.nbd.librbd_api import library
from csi_driver.nbd.server import Server

DRAIN_SECONDS: Final = 10.0
"""How long requests in flight may take when serving ends."""

ORPHAN_SECONDS: Final = 20.0
"""After the supervisor's death: how long closing may take before it is cut off."""

_log = structlog.get_logger(__name__)


class Worker:
    """The life of one worker process."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._close_asked = False
        self._prepared: Prepared | None = None

    def run(self) -> int:
        """Serve at most one volume; return the exit status."""
        hygiene = harden(io_flusher=True)
        library()
        try:
            wire.send(self._control, Ready(hygiene.warnings))
            request = wire.receive(self._control)
            if isinstance(request, Prepare):
                self._prepare(request)
                request = wire.receive(self._control)
        except wire.ClosedError:
            self._discard()
            return 0
        if not isinstance(request, OpenImage):
            self._discard()
        match request:
            case OpenImage():
                return self._serve(request)
            case Release():
                return self._release(request)
            case CloseImage():
                wire.send(self._control, Done())
                return 0
            case _:
                return self._refuse(InternalError("a worker is given a volume first"))

    # ---------------------------------------------------------------- phases

    def _prepare(self, request: Prepare) -> None:
        """Connect ahead of the volume; a failure leaves that for later."""
        answer: Message = Done()
        try:
            self._prepared = prepare(request)
        except Exception as error:  # noqa: BLE001  # told to the supervisor
            answer = Failed.of(error)
        wire.send(self._control, answer)

    def _discard(self) -> None:
        if self._prepared is not None:
            self._prepared.close()

    def _serve(self, request: OpenImage) -> int:
        try:
            session, flags = open_session(request, self._announce, self._prepared)
        except Exception as error:  # noqa: BLE001  # told to the supervisor
            return self._refuse(error)
        server = session.server
        if server is None:
            return self._refuse(InternalError("a session without a server"))
        signal.signal(
            signal.SIGTERM, lambda *_: server.request_stop(timeout=DRAIN_SECONDS)
        )
        try:
            wire.send(self._control, Serving(session.size, flags, session.fenced))
            threading.Thread(
                target=self._converse, args=(session, server), daemon=True
            ).start()
            server.run()
        except wire.ClosedError:
            _log.warning("the supervisor is gone")
        finally:
            failures = session.close()
        return self._farewell(failures)

    def _farewell(self, failures: list[DriverError]) -> int:
        """Answer the request to close, if that is why this ends."""
        if not self._close_asked:
            return 1
        wire.send(self._control, Failed.of(failures[0]) if failures else Done())
        return 0

    def _release(self, request: Release) -> int:
        try:
            release(request)
        except Exception as error:  # noqa: BLE001  # told to the supervisor
            return self._refuse(error)
        finally:
            request.key.wipe()
        wire.send(self._control, Done())
        return 0

    def _refuse(self, error: Exception) -> int:
        if not isinstance(error, DriverError):
            _log.error("unforeseen failure", exc_info=error)
        with contextlib.suppress(wire.ClosedError):  # nobody is left to be told
            wire.send(self._control, Failed.of(error))
        return 0

    def _announce(self, address: str) -> None:
        """Tell the supervisor who holds what comes next, before it is held."""
        wire.send(self._control, Connected(address))
        if not isinstance(wire.receive(self._control), Proceed):
            raise InvalidRequestError("the supervisor did not let the worker proceed")

    # --------------------------------------------------------- control thread

    def _converse(self, session: Session, server: Server) -> None:
        """Answer the supervisor until it asks to close, or is gone."""
        try:
            while True:
                message = wire.receive(self._control)
                if isinstance(message, CloseImage):
                    reason = session.must_stay()
                    if not reason:
                        self._close_asked = True
                        return
                    wire.send(self._control, Staying(reason))
                    continue
                wire.send(self._control, self._answered(session, server, message))
        except (UnavailableError, InvalidRequestError) as error:
            _log.warning("serving ends: no supervisor", error=str(error))
            _cut_off_later(session)
        finally:
            server.request_stop(timeout=DRAIN_SECONDS)

    def _answered(self, session: Session, server: Server, message: Message) -> Message:
        try:
            return self._answer(session, server, message)
        except Exception as error:  # noqa: BLE001  # told to the supervisor
            if not isinstance(error, DriverError):
                _log.error("unforeseen failure", exc_info=error)
            return Failed.of(error)

    def _answer(self, session: Session, server: Server, message: Message) -> Message:
        match message:
            case TakeSocket():
                server.add_connection(wire.receive_socket(self._control))
                return Done()
            case GrowImage():
                return Sized(session.grow())
            case ConfirmSize(size):
                session.confirm(size)
                return Done()
            case FlattenImage():
                session.flatten()
                return Done()
            case Count():
                return session.counters()
            case Ping():
                return Done()
            case _:
                kind = type(message).__name__
                raise InvalidRequestError(f"a serving worker takes no {kind}")


def _cut_off_later(session: Session) -> None:
    """End the process even if closing hangs, but not while it has to stay."""

    def cut_off() -> None:
        if session.must_stay():
            _cut_off_later(session)
        else:
            os._exit(1)

    timer = threading.Timer(ORPHAN_SECONDS, cut_off)
    timer.daemon = True
    timer.start()


def main() -> int:
    """Run the worker on the descriptor that the command line names."""
    configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's
    os.chdir("/")
    with socket.socket(fileno=int(sys.argv[1])) as control:
        return Worker(control).run()


if __name__ == "__main__":
    sys.exit(main())
