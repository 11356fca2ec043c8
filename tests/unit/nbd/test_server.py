# SPDX-License-Identifier: Apache-2.0
"""The server over memory: order, bounds, faults, ends."""

from __future__ import annotations

import errno
import os
import random
import socket
import time
from pathlib import Path

import pytest

from csi_driver.domain.errors import PreconditionError
from csi_driver.domain.errors import SizeError
from csi_driver.nbd.connection import Operation
from csi_driver.nbd.protocol import constants as c
from csi_driver.nbd.server import MAXIMUM_CONNECTIONS
from csi_driver.nbd.server import Server
from csi_driver.nbd.server import export_of
from csi_driver.testing.backends import Fault
from csi_driver.testing.backends import MemoryBackend
from csi_driver.testing.nbd_client import Dialer
from csi_driver.testing.nbd_client import RawClient
from csi_driver.testing.nbd_client import info_request
from csi_driver.testing.nbd_client import running
from csi_driver.testing.nbd_client import serving
from tests.unit.nbd.memory import MIB
from tests.unit.nbd.memory import SIZE
from tests.unit.nbd.memory import Memory
from tests.unit.nbd.memory import faulty
from tests.unit.nbd.memory import memory
from tests.unit.nbd.memory import wait_until


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
