# SPDX-License-Identifier: Apache-2.0
"""The server over memory: order, bounds, faults, ends."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.nbd.connection import MAXIMUM_QUEUED_REPLIES
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.server import MAXIMUM_CONNECTIONS
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import FaultyBackend
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.nbd_client import Dialer
from csi_driver.testing.nbd_client import RawClient
from csi_driver.testing.nbd_client import info_request
from csi_driver.testing.nbd_client import running
from csi_driver.testing.nbd_client import serving

MIB = 1 << 20
SIZE = 64 * MIB

type Memory = MemoryBackend[Operation]


def memory(size: int = SIZE, *, read_only: bool = False) -> Memory:
    return MemoryBackend(size, read_only=read_only)


def faulty(*faults: Fault) -> FaultyBackend[Operation]:
    return FaultyBackend(MemoryBackend[int](SIZE), faults)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def backend() -> Memory:
    return memory()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def dial(path: Path) -> Iterator[Dialer]:
    with Dialer(path) as dial:
        yield dial


@pytest.fixture
def server(backend: Memory, path: Path) -> Iterator[Server]:
    with serving(backend, path) as server:
        yield server


def test_what_is_written_is_read(
    server: Server, path: Path, backend: Memory, dial: Dialer
) -> None:
    client = dial.ready()
    data = os.urandom(3 * MIB)
    client.write(8192, data, fua=True)
    client.flush()
    assert client.read(8192, len(data)) == data
    assert backend.contents()[8192 : 8192 + len(data)] == data
    assert (backend.fua_writes, backend.flushes) == (1, 1)


def test_the_largest_requests_go_through(
    server: Server, path: Path, dial: Dialer
) -> None:
    client = dial.ready()
    data = os.urandom(32 * MIB)
    client.write(0, data)
    assert client.read(0, len(data)) == data
    wait_until(lambda: server.stats().buffers_used == 0)


def test_errors_do_not_end_the_connection(
    server: Server, path: Path, dial: Dialer
) -> None:
    client = dial.ready()
    big = bytes(33 * MIB)
    for command, offset, data, length, flags, error in (
        (c.CMD_READ, SIZE, b"", 4096, 0, c.EINVAL),
        (c.CMD_WRITE, SIZE, bytes(4096), 4096, 0, c.ENOSPC),
        (c.CMD_WRITE, 1, bytes(4096), 4096, 0, c.EINVAL),
        (c.CMD_WRITE, 0, big, len(big), 0, c.EINVAL),
        (c.CMD_WRITE, 0, b"", 0, 0, c.EINVAL),
        (c.CMD_READ, 0, b"", 0, 0, c.EINVAL),
        (c.CMD_READ, 0, b"", 4096, 64, c.EINVAL),
        (4, 0, b"", 4096, 0, c.EINVAL),
        (6, 0, b"", 4096, 0, c.EINVAL),
        (77, 0, b"", 0, 0, c.EINVAL),
    ):
        got, _ = client.request(command, offset, length, data, flags=flags)
        assert got == error, (command, offset, length)
    assert server.stats().rejected == 10
    assert client.read(0, 4096) == bytes(4096)


def test_a_read_only_export_permits_no_write(path: Path, dial: Dialer) -> None:
    with serving(memory(read_only=True), path):
        client = dial.ready()
        assert client.request(c.CMD_WRITE, 0, 4096, bytes(4096))[0] == c.EPERM
        assert client.read(0, 4096) == bytes(4096)
        client.flush()


@pytest.mark.parametrize("seed", [1, 2])
def test_replies_in_any_order_find_their_requests(
    path: Path, seed: int, dial: Dialer
) -> None:
    rng = random.Random(seed)  # noqa: S311
    with serving(MemoryBackend(SIZE, seed=seed), path):
        client = dial.ready()
        blocks = [rng.randbytes(4096) for _ in range(64)]
        for index, block in enumerate(blocks):
            client.send_request(c.CMD_WRITE, index * 4096, 4096, block)
        assert {client.reply() for _ in blocks} == {(n, 0) for n in range(1, 65)}
        wanted = {
            client.send_request(c.CMD_READ, index * 4096, 4096): block
            for index, block in enumerate(blocks)
        }
        order = []
        for _ in blocks:
            cookie, error = client.reply()
            assert error == 0
            assert client.receive(4096) == wanted[cookie]
            order.append(cookie)
        assert sorted(order) == list(wanted)
        assert order != list(wanted)


def test_a_failed_operation_is_reported(path: Path, dial: Dialer) -> None:
    backend = faulty(
        Fault("write", every=2, error=errno.EIO),
        Fault("flush", error=errno.ENOSPC),
        Fault("read", skip=1, error=errno.EINVAL),
    )
    with serving(backend, path) as server:
        client = dial.ready()
        client.write(0, bytes(4096))
        assert client.request(c.CMD_WRITE, 0, 4096, bytes(4096))[0] == c.EIO
        assert client.request(c.CMD_FLUSH, 0, 0)[0] == c.ENOSPC
        assert client.read(0, 4096) == bytes(4096)
        # A backend's EINVAL is no fault of the request.
        assert client.request(c.CMD_READ, 0, 4096)[0] == c.EIO
        stats = server.stats()
        assert (stats.writes.count, stats.writes.errors) == (2, 1)
        assert (stats.reads.bytes, stats.reads.errors) == (4096, 1)
        assert stats.flushes.errors == 1


def test_a_short_read_is_an_error(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault("read", short=4096)), path):
        client = dial.ready()
        assert client.request(c.CMD_READ, 0, 8192)[0] == c.EIO


def test_a_fenced_backend_fails_everything_and_is_reported(
    path: Path, dial: Dialer
) -> None:
    backend, fatal = memory(), list[int]()
    server = Server(backend, export_of(backend), on_fatal=fatal.append)
    server.listen(path)
    with running(server):
        client = dial.ready()
        client.write(0, bytes(4096))
        backend.fence()
        for _ in range(3):
            error, _ = client.request(c.CMD_WRITE, 0, 4096, b"x" * 4096)
            assert error == c.ESHUTDOWN
        assert client.request(c.CMD_READ, 0, 4096)[0] == c.ESHUTDOWN
        assert client.request(c.CMD_FLUSH, 0, 0)[0] == c.ESHUTDOWN
        assert fatal == [errno.ESHUTDOWN]
        assert server.stats().fenced
        assert server.stats().buffers_used == 0
    assert backend.contents() == bytes(SIZE)
    backend.close()


def test_disconnect_finishes_what_is_outstanding(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault("write", delay=0.2))
    with serving(backend, path) as server:
        client = dial.ready()
        cookie = client.send_request(c.CMD_WRITE, 0, 4096, b"x" * 4096)
        client.disconnect()
        assert client.reply() == (cookie, 0)
        assert client.at_end()
        wait_until(lambda: server.stats().connections == 0)


def test_a_client_that_vanishes_leaves_nothing_behind(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(every=2, delay=0.3), Fault(delay=0.1))
    with serving(backend, path) as server:
        client = dial.ready()
        for index in range(100):
            client.send_request(c.CMD_READ, index * 4096, 4096)
        client.send_request(c.CMD_WRITE, 0, MIB, bytes(5000))  # and no more of it
        wait_until(lambda: server.stats().in_flight == 100)
        client.close()
        wait_until(lambda: server.stats().connections == 0)
        wait_until(lambda: server.stats().buffers_used == 0)
        assert server.stats().in_flight == 0
        dial.ready().close()


def test_noise_ends_only_its_own_connection(
    server: Server, path: Path, dial: Dialer
) -> None:
    good = dial.ready()
    bad = dial.ready()
    bad.sock.sendall(bytes(64))
    assert bad.at_end()
    rude = dial.connect()
    rude.greet(flags=99)
    assert rude.at_end()
    good.write(0, bytes(4096))


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


def test_a_connected_socket_needs_no_handshake(server: Server, dial: Dialer) -> None:
    ours, theirs = socket.socketpair()
    number = server.add_connection(theirs)
    client = dial.adopt(RawClient(ours))
    client.write(4096, b"k" * 4096)
    assert client.read(4096, 4096) == b"k" * 4096
    assert number == 1
    client.disconnect()
    assert client.at_end()


def test_leftover_bytes_are_served_first(
    server: Server, backend: Memory, dial: Dialer
) -> None:
    ours, theirs = socket.socketpair()
    header = c.REQUEST.pack(c.REQUEST_MAGIC, 0, c.CMD_WRITE, 9, 0, 4096)
    server.add_connection(theirs, header + b"l" * 1000)
    client = dial.adopt(RawClient(ours))
    client.sock.sendall(b"m" * 3096)
    assert client.reply() == (9, 0)
    assert backend.contents()[:4096] == b"l" * 1000 + b"m" * 3096


def test_growth_takes_effect_on_live_connections(path: Path, dial: Dialer) -> None:
    backend = memory(MIB)
    with serving(backend, path) as server:
        client = dial.ready()
        assert client.request(c.CMD_READ, MIB, 4096)[0] == c.EINVAL
        backend.resize(2 * MIB)
        server.set_size(2 * MIB)
        assert client.read(MIB, 4096) == bytes(4096)
        later = dial.connect()
        later.greet()
        info = later.option(c.Option.INFO, info_request(""))[0].data
        assert int.from_bytes(info[2:10]) == 2 * MIB
        with pytest.raises(SizeError):
            server.set_size(1000)


def test_a_ceiling_is_announced_and_the_size_enforced(path: Path, dial: Dialer) -> None:
    backend = memory(MIB)
    server = Server(backend, export_of(backend, ceiling=64 * MIB))
    server.listen(path)
    with running(server):
        client = dial.connect()
        client.greet()
        info = client.option(c.Option.GO, info_request(""))[0].data
        assert int.from_bytes(info[2:10]) == 64 * MIB
        assert client.request(c.CMD_WRITE, MIB, 4096, bytes(4096))[0] == c.ENOSPC
        backend.resize(2 * MIB)
        server.set_size(2 * MIB)
        client.write(MIB, bytes(4096))
        with pytest.raises(SizeError):
            server.set_size(65 * MIB)
    backend.close()


def test_stopping_answers_what_was_received(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(delay=0.2))
    with serving(backend, path) as server:
        client = dial.ready()
        cookies = [client.send_request(c.CMD_READ, 0, 4096) for _ in range(10)]
        wait_until(lambda: server.stats().in_flight == 10)
        server.stop(timeout=10)
        for cookie in cookies:
            assert client.reply() == (cookie, 0)
            client.receive(4096)
        assert client.at_end()
        assert not path.exists()
        with pytest.raises(PreconditionError, match="ended"):
            server.set_size(SIZE)


def test_stopping_gives_up_after_its_timeout(path: Path, dial: Dialer) -> None:
    backend = faulty(Fault(delay=60))
    with serving(backend, path) as server:
        client = dial.ready()
        client.send_request(c.CMD_READ, 0, 4096)
        wait_until(lambda: server.stats().in_flight == 1)
        before = time.monotonic()
        server.stop(timeout=0.2)
        assert time.monotonic() - before < 5
        assert client.at_end()


def test_ends_are_reported_with_their_reason(path: Path, dial: Dialer) -> None:
    backend, ends = memory(), list[tuple[int, str]]()
    server = Server(
        backend, export_of(backend), on_closed=lambda *end: ends.append(end)
    )
    with running(server):
        for action in ("hang up", "disconnect", "noise"):
            ours, theirs = socket.socketpair()
            server.add_connection(theirs)
            client = dial.adopt(RawClient(ours))
            if action == "disconnect":
                client.disconnect()
            elif action == "noise":
                client.sock.sendall(bytes(28))
            else:
                client.close()
            wait_until(lambda: server.stats().connections == 0)
    backend.close()
    assert [number for number, _ in ends] == [1, 2, 3]
    assert [reason[:12] for _, reason in ends] == [
        "the client h",
        "the client d",
        "not NBD: req",
    ]


def test_too_many_clients_are_turned_away(
    server: Server, path: Path, dial: Dialer
) -> None:
    clients = [dial.ready() for _ in range(MAXIMUM_CONNECTIONS)]
    extra = dial.connect()
    assert extra.at_end()
    clients.pop().close()
    wait_until(lambda: server.stats().connections == MAXIMUM_CONNECTIONS - 1)
    clients.append(dial.ready())


def test_a_second_listener_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="already served"):
        server.listen(tmp_path / "other")


def test_a_waiting_server_uses_no_time(
    server: Server, path: Path, dial: Dialer
) -> None:
    dial.ready()
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_a_half_closed_client_gets_its_replies(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault(delay=0.1)), path):
        client = dial.ready()
        cookie = client.send_request(c.CMD_READ, 0, 4096)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.reply() == (cookie, 0)
        assert client.receive(4096) == bytes(4096)
        assert client.at_end()


def test_a_hang_up_in_the_middle_costs_no_time(path: Path, dial: Dialer) -> None:
    with serving(faulty(Fault(delay=0.4)), path) as server:
        client = dial.ready()
        client.send_request(c.CMD_READ, 0, 4096)
        wait_until(lambda: server.stats().in_flight == 1)
        client.close()
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_random_work_equals_an_oracle(path: Path, seed: int, dial: Dialer) -> None:
    rng = random.Random(seed)  # noqa: S311
    backend: MemoryBackend[Operation] = MemoryBackend(4 * MIB, seed=seed)
    oracle = bytearray(4 * MIB)
    with serving(backend, path):
        client = dial.ready()
        for _ in range(200):
            length = rng.choice([4096, 8192, 65536, 131072, MIB])
            offset = rng.randrange(0, len(oracle) - length + 1, 4096)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                client.write(offset, data, fua=rng.random() < 0.2)
                oracle[offset : offset + length] = data
            else:
                assert client.read(offset, length) == oracle[offset : offset + length]
        assert backend.contents() == oracle
