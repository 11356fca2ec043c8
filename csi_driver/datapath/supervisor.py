# SPDX-License-Identifier: Apache-2.0
"""The datapath's process: a socket for root, and the exports behind it.

It serves no I/O and holds no key longer than a request takes.  One thread per
connection answers requests; the main thread accepts and waits for the signal
to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from csi_driver.datapath import wire
from csi_driver.datapath.attachment import NodeDevices
from csi_driver.datapath.ending import told_to_end
from csi_driver.datapath.envelope import VersionError
from csi_driver.datapath.envelope import skew
from csi_driver.datapath.exports import Exports
from csi_driver.datapath.leftovers import Leftovers
from csi_driver.datapath.messages import MIN_VERSION
from csi_driver.datapath.messages import VERSION
from csi_driver.datapath.messages import Close
from csi_driver.datapath.messages import Done
from csi_driver.datapath.messages import Failed
from csi_driver.datapath.messages import Flatten
from csi_driver.datapath.messages import Grow
from csi_driver.datapath.messages import Message
from csi_driver.datapath.messages import Open
from csi_driver.datapath.messages import Opened
from csi_driver.datapath.messages import Ping
from csi_driver.datapath.messages import Sized
from csi_driver.datapath.messages import Status
from csi_driver.datapath.messages import Statuses
from csi_driver.datapath.preparation import preparation
from csi_driver.datapath.state import StateDirectory
from csi_driver.datapath.state import current_boot_id
from csi_driver.datapath.workers import WorkerPool
from csi_driver.devices.process_space import ends_with_its_first_process
from csi_driver.domain.clusters import Clusters
from csi_driver.domain.errors import DriverError
from csi_driver.domain.errors import ForbiddenError
from csi_driver.domain.errors import InvalidRequestError
from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import UnavailableError
from csi_driver.keys.hygiene import harden
from csi_driver.nbd.listener import listen

REQUEST_SECONDS: Final = 10.0
"""How long a client may take to send a request, or to ask its next one."""

SHUTDOWN_SECONDS: Final = 25.0
"""How long closing everything may take; Kubernetes gives 30 s in all.  A worker
that has to stay is waited for longer where it would be killed with a container."""

_CREDENTIALS: Final = struct.Struct("3i")
_ROOT: Final = 0
_log = structlog.get_logger(__name__)


def serve(
    *,
    socket_path: Path,
    run_dir: Path,
    state_dir: Path,
    method: str = "auto",
    clusters: Clusters | None = None,
    watched: Callable[[Exports], contextlib.AbstractContextManager[None]] | None = None,
) -> None:
    """Run the datapath until SIGTERM or SIGINT; every volume is closed then.

    `socket_path` is where clients connect.  `run_dir` holds sockets and mount
    points and should be a tmpfs; `state_dir` has to outlive the process and
    belongs to one datapath: PreconditionError if another one runs on it.
    `method` is "auto", "kernel" or "fuse".  `clusters` give the driver's own
    Ceph users, with which the locks of dead workers are taken back.  `watched` is
    entered before anything is recovered, and left when all is closed.  Called in
    the main thread of a process of its own.
    """
    for warning in harden().warnings:
        _log.warning("datapath", warning=warning)
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = StateDirectory(state_dir)
    with _sole_owner(state_dir), told_to_end() as stop:
        life = state.lives.begin()
        pool = WorkerPool(preparation=lambda: preparation(clusters), life=life)
        pool.refill()
        devices = NodeDevices(run_dir / "fuse", method)
        leftovers = Leftovers(
            state=state,
            pool=pool,
            devices=devices,
            clusters=clusters,
            boot_id=current_boot_id(),
        )
        exports = Exports(
            state=state,
            pool=pool,
            devices=devices,
            leftovers=leftovers,
            run_dir=run_dir,
        )
        with watched(exports) if watched else contextlib.nullcontext():
            leftovers.recover()
            _listen(socket_path, exports, stop)
        _log.info("datapath ended")


def _listen(socket_path: Path, exports: Exports, stop: int) -> None:
    """Answer until told to stop; then close everything."""
    with listen(socket_path) as listener:
        _log.info("datapath ready", socket=str(socket_path))
        try:
            Supervisor(exports).run(listener, stop)
        finally:
            socket_path.unlink(missing_ok=True)
            exports.shut_down(
                SHUTDOWN_SECONDS, leave_behind=not ends_with_its_first_process()
            )


class Supervisor:
    """Answers requests on a listening socket."""

    def __init__(self, exports: Exports, *, allowed_uid: int = _ROOT) -> None:
        """Only processes of `allowed_uid` are heard."""
        self._exports = exports
        self._allowed_uid = allowed_uid

    def run(self, listener: socket.socket, stop: int) -> None:
        """Accept connections until the descriptor `stop` is readable."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(stop, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if stop in ready:
                return
            try:
                client, _ = listener.accept()
            except OSError as error:
                _log.warning("accept failed", error=str(error))
                time.sleep(0.1)  # out of descriptors: let some be closed
                continue
            threading.Thread(target=self._converse, args=(client,), daemon=True).start()

    def _converse(self, client: socket.socket) -> None:
        """Answer one client until it hangs up, or is silent for too long."""
        with client, contextlib.suppress(UnavailableError):
            client.settimeout(REQUEST_SECONDS)
            uid = _peer_uid(client)
            if uid != self._allowed_uid:
                _log.warning("client refused", uid=uid)
                text = f"the datapath hears user {self._allowed_uid} alone, not {uid}"
                wire.send(client, Failed.of(ForbiddenError(text)))
                return
            while True:
                try:
                    request, version = wire.receive_versioned(client)
                except VersionError as error:
                    wire.send(client, _refusal(error), _spoken(error.version))
                    return
                except InvalidRequestError as error:
                    wire.send(client, Failed.of(error))
                    return
                wire.send(client, self._answered(request), _spoken(version))

    def _answered(self, request: Message) -> Message:
        kind = type(request).__name__
        begin = time.monotonic()
        try:
            answer = self._answer(request)
        except DriverError as error:
            _log.warning(
                "request failed",
                kind=kind,
                volume=_volume(request),
                error=type(error).__name__,
                reason=str(error),
            )
            return Failed.of(error)
        except Exception as error:  # noqa: BLE001  # answered, and logged
            _log.error("request failed unforeseen", kind=kind, exc_info=error)
            return Failed.of(error)
        if not isinstance(request, Ping | Status):
            seconds = round(time.monotonic() - begin, 3)
            _log.info("request", kind=kind, volume=_volume(request), seconds=seconds)
        return answer

    def _answer(self, request: Message) -> Message:
        match request:
            case Open(volume):
                try:
                    return Opened(self._exports.open(volume))
                finally:
                    volume.wipe()
            case Close(volume_id):
                self._exports.close(volume_id)
                return Done()
            case Grow(volume_id):
                return Sized(self._exports.grow(volume_id))
            case Flatten(volume_id):
                self._exports.flatten(volume_id)
                return Done()
            case Status(wanted):
                return Statuses(self._exports.status(wanted))
            case Ping():
                return Done()
            case _:
                kind = type(request).__name__
                raise InvalidRequestError(f"a datapath takes no {kind}")


def _refusal(error: VersionError) -> Failed:
    refusal = skew(node=error.version, datapath=VERSION)
    _log.error("request refused", reason=str(refusal))
    return Failed.of(refusal)


def _spoken(version: int) -> int:
    """Return the version of an answer to a request of `version`."""
    return min(max(version, MIN_VERSION), VERSION)


def _volume(request: Message) -> str:
    match request:
        case Open(volume):
            return str(volume.volume_id)
        case Close(volume_id) | Grow(volume_id) | Flatten(volume_id):
            return str(volume_id)
        case _:
            return ""


def _peer_uid(client: socket.socket) -> int:
    """Return the user id of the process that connected (unix(7), SO_PEERCRED)."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)


@contextlib.contextmanager
def _sole_owner(state_dir: Path) -> Iterator[None]:
    """Hold the state directory against a second datapath."""
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = (
                f"another datapath runs on {state_dir}: stop it first; a second driver"
                " on this node needs directories of its own (RBDCRYPT_STATE_DIR and"
                " RBDCRYPT_RUN_DIR; the chart's paths.state and paths.run)"
            )
            raise PreconditionError(message) from error
        yield
