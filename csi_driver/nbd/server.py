# SPDX-License-Identifier: Apache-2.0
"""One export served by one epoll loop.

Clients are ordinary ones, who come through a listening unix socket and shake
hands, and connected sockets that are already in the transmission phase, such as
the end of a socketpair whose other end the kernel holds.  Everything in the hot
path happens in the thread that called `run`; other threads talk to it through
commands, which the loop executes between two turns.

Nothing else may run in a process that serves: a busy Python thread takes the
lock of the interpreter and costs most of the speed (measured: 3,006 to 119
reads per second at depth 1).
"""

from __future__ import annotations

import dataclasses
import errno
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from csi_driver.domain.errors import PreconditionError
from csi_driver.nbd.backend import Backend
from csi_driver.nbd.buffers import BUDGET
from csi_driver.nbd.buffers import SlotPool
from csi_driver.nbd.commands import CommandQueue
from csi_driver.nbd.connection import Connection
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.listener import listen
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.protocol.export import Export
from csi_driver.nbd.protocol.handshake import Handshake
from csi_driver.nbd.protocol.inbox import Inbox
from csi_driver.nbd.protocol.transmission import Transmission
from csi_driver.nbd.shared import Shared
from csi_driver.nbd.shared import State
from csi_driver.nbd.stats import Counters
from csi_driver.nbd.stats import ServerStats

MAXIMUM_CONNECTIONS: Final = 32
_HANG_UP: Final = select.EPOLLHUP | select.EPOLLERR
_UNREGISTERED: Final = -1

type FatalCallback = Callable[[int], None]
type ClosedCallback = Callable[[int, str], None]


def export_of(
    backend: Backend[Operation],
    *,
    name: str = "",
    ceiling: int | None = None,
    minimum_block: int = c.DEFAULT_BLOCK,
) -> Export:
    """Return the export that a backend can honour; SizeError on an odd size."""
    return Export(
        size=backend.size(),
        name=name,
        ceiling=ceiling,
        read_only=backend.read_only,
        can_flush=backend.can_flush,
        can_fua=backend.can_fua,
        can_multi_conn=backend.can_multi_conn,
        minimum_block=minimum_block,
    )


class Server:
    """Serves `backend` as `export` until it is stopped.

    `budget` bounds the bytes of payload memory, all clients together.
    `on_fatal(errno)` is called once, when the backend was fenced by its cluster:
    from then on every request is answered with ESHUTDOWN.  `on_closed(number,
    reason)` is called when a connection ended.  Both run in the loop's thread
    and have to return at once; neither may call a waiting method of the server.

    The backend belongs to the caller, who closes it after `run` has returned,
    also because requests that were abandoned still use buffers until then.
    """

    def __init__(
        self,
        backend: Backend[Operation],
        export: Export,
        *,
        budget: int = BUDGET,
        on_fatal: FatalCallback | None = None,
        on_closed: ClosedCallback | None = None,
    ) -> None:
        self._pool = SlotPool(budget)
        self._shared = Shared(
            backend=backend,
            pool=self._pool,
            counters=Counters(),
            export=export,
            waiting=deque(),
            quota=budget // 2,
        )
        self._backend = backend
        self._on_fatal = on_fatal
        self._on_closed = on_closed
        self._epoll = select.epoll()
        self._commands = CommandQueue()
        self._done = threading.Event()
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._connections: dict[int, Connection] = {}
        self._next_number = 1
        self._stopping = False
        self._deadline: float | None = None

    # ------------------------------------------------- control, any thread

    def listen(self, path: Path) -> None:
        """Accept ordinary clients at `path`, a unix socket of mode 0600.

        A dead socket in that place is replaced.  Raises PreconditionError when
        somebody listens there, or something else stands there.
        """
        self._commands.call(lambda: self._listen(path))

    def add_connection(self, sock: socket.socket, leftover: bytes = b"") -> int:
        """Serve a connected stream socket that is in the transmission phase.

        Takes the socket over and returns its number.  `leftover` is what a
        predecessor had received from it and not acted upon.
        """
        return self._commands.call(lambda: self._add(sock, leftover))

    def set_size(self, size: int, ceiling: int | None = None) -> None:
        """Judge requests by a new size in bytes; clients see it on connecting.

        `ceiling` replaces the announced ceiling if given.  SizeError when the
        size does not fit the block size or exceeds the ceiling.
        """
        self._commands.call(lambda: self._set_size(size, ceiling))

    def stats(self) -> ServerStats:
        """Return the counters as they are now."""
        counters = self._shared.counters
        return ServerStats(
            reads=counters.reads.snapshot(),
            writes=counters.writes.snapshot(),
            flushes=counters.flushes.snapshot(),
            rejected=counters.rejected,
            in_flight=counters.in_flight,
            connections=len(self._connections),
            buffers_used=self._pool.used,
            buffers_mapped=self._pool.mapped,
            fenced=bool(self._shared.fenced),
        )

    def request_stop(self, *, drain: bool = True, timeout: float = 30.0) -> None:
        """Ask the loop to end and return at once; safe in a signal handler.

        With `drain`, requests that were completely received are answered
        first, for at most `timeout` seconds.  What has not been read stays
        unanswered, so that a kernel sends it again to a successor.
        """
        deadline = time.monotonic() + (timeout if drain else 0.0)
        self._commands.post(lambda: self._stop(deadline))

    def stop(self, *, drain: bool = True, timeout: float = 30.0) -> None:
        """Like `request_stop`, and wait until the loop has ended."""
        self.request_stop(drain=drain, timeout=timeout)
        if self._commands.adopted:
            self._done.wait()

    # -------------------------------------------------------------- the loop

    def run(self) -> None:
        """Serve until stopped.  The calling thread does nothing else."""
        self._commands.adopt()
        backend_fd = self._backend.fileno()
        self._epoll.register(backend_fd, select.EPOLLIN)
        self._epoll.register(self._commands.fileno(), select.EPOLLIN)
        try:
            while not self._finished():
                self._turn(backend_fd)
        finally:
            self._end()

    def _turn(self, backend_fd: int) -> None:
        """Wait for something to happen, and do it."""
        timeout = -1.0
        if self._deadline is not None:
            timeout = max(0.0, self._deadline - time.monotonic())
        events = self._epoll.poll(timeout)
        self._shared.now = time.monotonic_ns()
        for fd, mask in events:
            if fd == backend_fd:
                self._complete()
            elif fd == self._commands.fileno():
                self._commands.execute()
            elif self._listener is not None and fd == self._listener.fileno():
                self._accept(self._listener)
            else:
                connection = self._connections.get(fd)
                if connection is not None:
                    self._serve(connection, mask)
        if self._shared.waiting:
            self._resume_waiting()

    def _serve(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            connection.resume()
        if mask & (select.EPOLLIN | _HANG_UP) and connection.may_read():
            connection.readable()
        elif mask & _HANG_UP and connection.state is not State.DEAD:
            # epoll reports a hang-up for ever; nothing can be done about it
            # while requests wait, so the descriptor leaves the set until then.
            self._epoll.unregister(connection.fd)
            connection.mask = _UNREGISTERED
        self._update(connection)

    def _complete(self) -> None:
        """Deliver finished operations; answer each connection in one go."""
        answered: dict[Connection, None] = {}
        for operation, result in self._backend.completions():
            if result == -errno.ESHUTDOWN and not self._shared.fenced:
                self._fence()
            connection = operation.connection
            connection.complete(operation, result)
            answered[connection] = None
        for connection in answered:
            connection.resume()
            self._update(connection)

    def _fence(self) -> None:
        self._shared.fenced = c.ESHUTDOWN
        if self._on_fatal is not None:
            self._on_fatal(errno.ESHUTDOWN)

    def _resume_waiting(self) -> None:
        """Give freed memory to those who wait, in their order."""
        waiting = self._shared.waiting
        for _ in range(len(waiting)):
            if not waiting:
                return
            connection = waiting[0]
            connection.proceed()
            self._update(connection)
            if waiting and waiting[0] is connection:
                if not connection.crowded():
                    return  # no memory for the first in line
                waiting.rotate(-1)

    def _update(self, connection: Connection) -> None:
        """Bring epoll's view of a connection up to date."""
        if connection.state is State.DEAD:
            self._forget(connection)
            return
        mask = connection.interest()
        if mask == connection.mask:
            return
        if connection.mask == _UNREGISTERED:
            if not mask:
                return
            self._epoll.register(connection.fd, mask)
        else:
            self._epoll.modify(connection.fd, mask)
        connection.mask = mask

    def _forget(self, connection: Connection) -> None:
        """Drop a connection whose socket is closed, once."""
        if self._connections.get(connection.fd) is not connection:
            return
        del self._connections[connection.fd]  # closing left the epoll set
        if self._on_closed is not None:
            self._on_closed(connection.number, connection.reason)

    # ------------------------------------------- commands, within the loop

    def _listen(self, path: Path) -> None:
        if self._listener is not None:
            raise PreconditionError(f"the export is already served at {self._path}")
        self._listener = listen(path)
        self._path = path
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            # The client has gone again, or no descriptor is free: it may come
            # back, the clients that are here must not suffer.
            if error.errno in {errno.EBADF, errno.EINVAL}:
                raise
            return
        if len(self._connections) >= MAXIMUM_CONNECTIONS or self._stopping:
            sock.close()
            return
        connection = self._register(sock, Handshake(self._shared.export, Inbox()))
        connection.proceed()
        self._update(connection)

    def _add(self, sock: socket.socket, leftover: bytes) -> int:
        inbox = Inbox()
        if inbox.feed(leftover) != len(leftover):
            raise PreconditionError(f"{len(leftover)} bytes left over are too many")
        connection = self._register(sock, Transmission(self._shared.export, inbox))
        connection.proceed()
        self._update(connection)
        return connection.number

    def _register(
        self, sock: socket.socket, protocol: Handshake | Transmission
    ) -> Connection:
        connection = Connection(self._next_number, sock, self._shared, protocol)
        self._next_number += 1
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, 0)
        return connection

    def _set_size(self, size: int, ceiling: int | None) -> None:
        old = self._shared.export
        export = dataclasses.replace(
            old, size=size, ceiling=old.ceiling if ceiling is None else ceiling
        )
        self._shared.export = export
        for connection in self._connections.values():
            connection.update_export(export)

    def _stop(self, deadline: float) -> None:
        self._stopping = True
        if self._deadline is None or deadline < self._deadline:
            self._deadline = deadline
        self._close_listener()
        for connection in list(self._connections.values()):
            connection.finish("the server stops")
            self._update(connection)

    def _finished(self) -> bool:
        if not self._stopping:
            return False
        if not self._connections and not self._shared.counters.in_flight:
            return True
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _close_listener(self) -> None:
        if self._listener is None or self._path is None:
            return
        self._path.unlink(missing_ok=True)
        self._listener.close()
        self._listener = None

    def _end(self) -> None:
        """Close everything; called when the loop ends, by an error too."""
        self._commands.close()
        self._close_listener()
        for connection in list(self._connections.values()):
            connection.abort("the server stopped")
            self._forget(connection)
        self._pool.close()
        self._epoll.close()
        self._done.set()
