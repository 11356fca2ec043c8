# SPDX-License-Identifier: Apache-2.0
"""Clients that do not read, ask without end or want much memory."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path

import pytest

from csi_driver.nbd.connection import MAXIMUM_QUEUED_REPLIES
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.server import Server
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import FaultyBackend
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.nbd_client import Dialer
from csi_driver.testing.nbd_client import serving
from tests.unit.nbd.memory import MIB
from tests.unit.nbd.memory import SIZE
from tests.unit.nbd.memory import faulty
from tests.unit.nbd.memory import wait_until


def test_one_who_does_not_read_holds_up_nobody_else(
    server: Server, path: Path, dial: Dialer
) -> None:
    lazy = dial.ready()
    lazy.sock.setblocking(False)
    sent = 0
    request = c.REQUEST.pack(c.REQUEST_MAGIC, 0, c.CMD_READ, 1, 0, MIB)
    try:
        while sent < 1000:
            lazy.sock.sendall(request)
            sent += 1
    except BlockingIOError:
        pass
    busy = dial.ready()
    for _ in range(50):
        busy.read(0, MIB)
    stats = server.stats()
    assert stats.buffers_mapped <= 64 * MIB
    assert stats.reads.count < 50 + 60
    lazy.sock.setblocking(True)
    lazy.sock.settimeout(30)
    for _ in range(sent):
        assert lazy.reply() == (1, 0)
        lazy.receive(MIB)


@pytest.mark.parametrize(
    ("command", "length"), [(99, 0), (c.CMD_READ, 4096), (c.CMD_READ, MIB)]
)
def test_requests_without_end_do_not_fill_the_memory(
    server: Server, dial: Dialer, command: int, length: int
) -> None:
    client = dial.ready()
    client.sock.settimeout(0.5)
    request = c.REQUEST.pack(c.REQUEST_MAGIC, 0, command, 1, 0, length)
    flood = request * (1 << 20)  # 28 MiB
    with pytest.raises(TimeoutError):  # nobody reads replies, so nobody reads these
        client.sock.sendall(flood)
    stats = server.stats()
    assert stats.buffers_mapped <= 64 * MIB
    # The socket's own buffer holds some 10,000 replies, our queue 1,024.
    assert stats.rejected < 30_000


def test_more_bad_requests_than_the_queue_holds_are_all_answered(
    server: Server, dial: Dialer
) -> None:
    client = dial.ready()
    count = 2 * MAXIMUM_QUEUED_REPLIES + 10
    bad = c.REQUEST.pack(c.REQUEST_MAGIC, 0, 99, 1, 0, 0)
    client.sock.sendall(bad * count)
    for _ in range(count):
        assert client.reply() == (1, c.EINVAL)


def test_slow_operations_of_one_leave_memory_for_others(
    path: Path, dial: Dialer
) -> None:
    with serving(faulty(Fault("read", delay=3)), path) as server:
        greedy = dial.ready()
        for _ in range(100):
            greedy.send_request(c.CMD_READ, 0, MIB)
        wait_until(lambda: server.stats().in_flight > 10)
        modest = dial.ready()
        before = time.monotonic()
        modest.write(0, bytes(16 * MIB))
        assert time.monotonic() - before < 2


class GatedBackend(MemoryBackend[Operation]):
    """Memory whose results come out only when the test lets them."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self._held: list[tuple[Operation, int]] = []
        self._allowed = 0

    def completions(self) -> list[tuple[Operation, int]]:
        self._held += super().completions()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        out, self._held = self._held[: self._allowed], self._held[self._allowed :]
        self._allowed -= len(out)
        return out

    def let(self, count: int) -> None:
        """Let out that many results more, the oldest first."""
        self._allowed += count
        os.eventfd_write(self._event, 1)


class Crowd:
    """Two clients fill the memory; one of 16 MiB waits, and one more behind it."""

    def __init__(self, backend: GatedBackend, server: Server, dial: Dialer) -> None:
        self._backend = backend
        self.first = dial.ready()
        for _ in range(6):
            self.first.send_request(c.CMD_READ, 0, MIB)
        wait_until(lambda: server.stats().in_flight == 6)
        self.slow = [dial.ready(), dial.ready()]
        for client in self.slow:
            for _ in range(7):
                client.send_request(c.CMD_READ, 0, 4 * MIB)
        wait_until(lambda: server.stats().in_flight == 20)
        self.first.send_request(c.CMD_READ, 0, 16 * MIB)
        wait_until(lambda: len(server._shared.waiting) == 1)
        self.last = dial.ready()
        self.last.send_request(c.CMD_WRITE, 0, 16 * MIB)
        wait_until(lambda: len(server._shared.waiting) == 2)
        backend.let(6)  # replies that nobody takes: the first in line is crowded
        wait_until(lambda: server.stats().in_flight == 14)

    def finish(self) -> None:
        """Free the memory; then the last in line has to be served."""
        self._backend.let(1000)
        for client in self.slow:
            for _ in range(7):
                client.reply()
                client.receive(4 * MIB)
        self.last.sock.settimeout(5)
        self.last.sock.sendall(bytes(16 * MIB))
        assert self.last.reply() == (1, 0)


def test_a_waiting_client_that_takes_no_replies_lets_others_pass(
    path: Path, dial: Dialer
) -> None:
    backend = GatedBackend()
    with serving(backend, path) as server:
        crowd = Crowd(backend, server, dial)
        crowd.finish()
        for _ in range(6):
            assert crowd.first.reply()[1] == 0
            crowd.first.receive(MIB)
        assert crowd.first.reply() == (7, 0)
        crowd.first.receive(16 * MIB)


def test_a_waiting_client_that_vanishes_leaves_the_line(
    path: Path, dial: Dialer
) -> None:
    backend = GatedBackend()
    with serving(backend, path) as server:
        crowd = Crowd(backend, server, dial)
        crowd.first.close()
        wait_until(lambda: server.stats().connections == 3)
        crowd.finish()
        assert dial.ready().read(0, 4096) == bytes(4096)


def test_once_fenced_the_backend_is_not_asked_again(path: Path, dial: Dialer) -> None:
    inner: MemoryBackend[int] = MemoryBackend(SIZE)
    backend = FaultyBackend[Operation](inner, [Fault("flush", error=errno.ESHUTDOWN)])
    with serving(backend, path):
        client = dial.ready()
        client.write(0, b"a" * 4096)
        assert client.request(c.CMD_FLUSH, 0, 0)[0] == c.ESHUTDOWN
        assert client.request(c.CMD_WRITE, 0, 4096, b"b" * 4096)[0] == c.ESHUTDOWN
        assert inner.contents()[:4096] == b"a" * 4096


def test_a_32_mib_write_gets_its_memory_among_others(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault(delay=0.01)), path) as server:
        failures: list[BaseException] = []

        def load() -> None:
            try:
                client = dial.ready()
                for _ in range(30):
                    cookies = [
                        client.send_request(c.CMD_READ, 0, 4 * MIB) for _ in range(4)
                    ]
                    for _ in cookies:
                        assert client.reply()[1] == 0
                        client.receive(4 * MIB)
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        client = dial.ready()
        for _ in range(3):
            client.write(0, bytes(32 * MIB))
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not failures
        assert server.stats().buffers_mapped <= 64 * MIB
